package endpoint

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"syscall"

	"github.com/joulemux/joulemux/daemon/job"
)

// Access is what a server wants of whoever comes, and what we want of it. The
// zero value is that of a server on this machine which asks for nothing.
type Access struct {
	// Key is where the key is that each request has with it, if one has.
	Key Key
	// CA is the path of the certificates that the server's must be signed by; ""
	// is the system's.
	CA string
	// Private tells that without encryption there is only the way to this machine
	// and the user's own network.
	Private bool
}

// Use has all requests from now on made with that access. It is called before the
// first of them.
func (e *Endpoint) Use(a Access) {
	d := &dialing{ca: a.CA}
	for _, t := range []*http.Transport{e.pool, e.fresh} {
		if a.Private {
			t.DialContext = private.DialContext
		}
		if a.CA != "" {
			t.DialTLSContext = d.dial
		}
	}
	if a.Key != (Key{}) {
		e.key = &keyring{Key: a.Key}
	}
}

// send has a request answered: by the server that is meant, with the key, and
// by nobody else. A server that sends us elsewhere is not followed: where to the
// user has not said, and the key is not for it.
func (e *Endpoint) send(t *http.Transport, req *http.Request) (*http.Response, error) {
	if e.closed.Load() {
		t = e.fresh
	}
	key, err := e.key.current()
	if err != nil {
		return nil, err
	}
	resp, err := e.sendWith(t, req, key)
	if err != nil || resp.StatusCode != http.StatusUnauthorized || key == "" || req.Body != nil && req.GetBody == nil {
		return e.judge(resp, err, key)
	}
	again, err := e.key.anew() // it may have been replaced just now
	if err != nil || again == key {
		return e.judge(resp, nil, key)
	}
	_ = resp.Body.Close()
	req = req.Clone(req.Context())
	if req.GetBody != nil {
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	resp, err = e.sendWith(t, req, again)
	return e.judge(resp, err, again)
}

func (e *Endpoint) sendWith(t *http.Transport, req *http.Request, key string) (*http.Response, error) {
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if req.GetBody == nil {
		return t.RoundTrip(req)
	}
	// Of the connections that are kept net/http would try one after the other.
	first := req.WithContext(req.Context())
	first.GetBody = func() (io.ReadCloser, error) { return nil, errKept }
	resp, err := t.RoundTrip(first)
	if !errors.Is(err, errKept) {
		return resp, err
	}
	again := req.WithContext(req.Context())
	if again.Body, err = req.GetBody(); err != nil {
		return nil, err
	}
	return e.fresh.RoundTrip(again)
}

// errKept is of a request on whose connection, which was kept, no answer began.
var errKept = errors.New("a connection that was kept is closed")

// judge refuses what is no answer to a request, and takes the key out of what is:
// servers repeat it in errors.
func (e *Endpoint) judge(resp *http.Response, err error, key string) (*http.Response, error) {
	if err != nil {
		return nil, err
	}
	why := ""
	switch status := resp.StatusCode; {
	case status >= 300 && status < 400 && status != http.StatusNotModified:
		why = "it sends its clients to " + elsewhere(resp) + "; configure the address where the API is"
	case key == "":
		return resp, nil
	case status < http.StatusBadRequest && len(key) < leastSecret:
		return resp, nil
	case status < http.StatusBadRequest:
		resp.Body = &masked{ReadCloser: resp.Body, key: []byte(key)}
		return resp, nil
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		why = "it does not take the key in " + e.key.String()
	case status == http.StatusPaymentRequired:
		why = "it wants to be paid before it answers"
	default:
		return resp, clean(resp, key)
	}
	_ = resp.Body.Close()
	return nil, job.Errorf(job.BackendFailed, "%s: %s", resp.Status, why)
}

// elsewhere returns the host of a redirection, and no more: its path and query may
// hold what is nobody's business.
func elsewhere(resp *http.Response) string {
	to, err := resp.Location()
	if err != nil {
		return "no address"
	}
	return (&url.URL{Scheme: to.Scheme, Host: to.Host}).String()
}

// clean takes the key out of an error.
func clean(resp *http.Response, key string) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxError))
	_ = resp.Body.Close()
	if err != nil {
		return err
	}
	body = bytes.ReplaceAll(body, []byte(key), []byte("***"))
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp.Header.Del("Content-Length")
	return nil
}

// private connects to this machine and to the user's own network alone, whatever
// a name stands for.
var private = &net.Dialer{Timeout: dialer.Timeout, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil // a Unix socket, which is of this machine
	}
	if !job.Private(at.Addr()) {
		return job.Errorf(job.BackendFailed, "%s is not on a private network; use https", at.Addr())
	}
	return nil
}}

// dialing connects to servers whose certificate others than the system's
// authorities vouch for.
type dialing struct {
	ca string
	mu sync.Mutex
	// roots are those of the file as it was then.
	roots *x509.CertPool
	was   version
}

func (d *dialing) dial(ctx context.Context, network, address string) (net.Conn, error) {
	roots, err := d.authorities()
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{NetDialer: dialer, Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}).DialContext(ctx, network, address)
}

// authorities returns those in the file, which is read again when it changes.
func (d *dialing) authorities() (*x509.CertPool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := os.Stat(d.ca)
	if err != nil {
		return nil, err
	}
	if d.roots != nil && d.was == versionOf(info) {
		return d.roots, nil
	}
	roots, err := Authorities(d.ca)
	if err != nil {
		return nil, err
	}
	d.roots, d.was = roots, versionOf(info)
	return roots, nil
}

// Authorities reads the certificates in a file.
func Authorities(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in it; want PEM", path)
	}
	return roots, nil
}
