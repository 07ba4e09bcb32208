// Package endpoint is the address of a server and the connections to it,
// whatever API it speaks.
package endpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// InstanceHeader marks the answers of every joulemux, so that none takes
// another, or itself, for a backend.
const InstanceHeader = "X-Joulemux-Instance"

// maxFacts is how much a server may make us keep of what it says of itself, such
// as a listing of models.
const maxFacts = 16 << 20

// MaxError is how much of an error is kept, and MaxBody of an answer that has to
// be had whole.
const (
	MaxError = 64 << 10
	MaxBody  = 64 << 20
)

// Buffer is what an answer is read into: room for many lines of a few hundred
// bytes each.
type Buffer [16 << 10]byte

// buffers are those that nobody has borrowed. New ones would be a third of all that
// is allocated for a job.
var buffers = sync.Pool{New: func() any { return new(Buffer) }}

// Borrow returns a buffer with anything in it. Return it.
func Borrow() *Buffer { return buffers.Get().(*Buffer) }

// Return lets others have the buffer.
func (b *Buffer) Return() { buffers.Put(b) }

// Endpoint is where a server is.
type Endpoint struct {
	base string // scheme and host, to put a path behind
	pool *http.Transport
	// fresh opens a connection for each request: an answer on an old one says
	// nothing about whether new ones are accepted.
	fresh *http.Transport
	key   *keyring // nil if there is none
	// closed tells that no connection is to be left behind.
	closed atomic.Bool
}

// New returns the endpoint of a URL such as http://127.0.0.1:11434 or
// unix:///run/user/1000/llama.sock. It opens no connection.
func New(u *url.URL) *Endpoint {
	e := &Endpoint{base: u.Scheme + "://" + u.Host, pool: transport(), fresh: transport()}
	e.fresh.DisableKeepAlives = true
	if u.Scheme == "unix" {
		e.base = "http://localhost"
		for _, t := range []*http.Transport{e.pool, e.fresh} {
			t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", u.Path)
			}
		}
	}
	return e
}

// dialer gives up on a host that does not answer; a port that is closed
// answers at once.
var dialer = &net.Dialer{Timeout: 3 * time.Second}

// transport returns a transport of our own: no HTTP proxy between us and a
// server next door, and no compression, so that bytes pass as they are. The
// connections of a quiet server are closed within a minute; what sleeps then
// has no timer left to wake it.
func transport() *http.Transport {
	return &http.Transport{
		DialContext:         dialer.DialContext,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     time.Minute,
		TLSHandshakeTimeout: 5 * time.Second,
	}
}

// Close drops the idle connections. Whoever has not heard of it yet may ask on,
// each time on a connection that is not kept.
func (e *Endpoint) Close() {
	e.closed.Store(true)
	e.pool.CloseIdleConnections()
	e.fresh.CloseIdleConnections()
}

// Get decodes the JSON answer to a GET.
func (e *Endpoint) Get(ctx context.Context, path string, into any) (http.Header, error) {
	return e.get(ctx, e.pool, path, into)
}

// GetAnew is Get on a fresh connection.
func (e *Endpoint) GetAnew(ctx context.Context, path string, into any) (http.Header, error) {
	return e.get(ctx, e.fresh, path, into)
}

func (e *Endpoint) get(ctx context.Context, t *http.Transport, path string, into any) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.send(t, req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFacts))
	switch {
	case resp.StatusCode != http.StatusOK:
		return resp.Header, &StatusError{Path: path, Code: resp.StatusCode}
	case err == nil:
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		return resp.Header, fmt.Errorf("GET %s: %w", path, err)
	}
	return resp.Header, nil
}

// StatusError is an answer to a GET that has not what was asked for.
type StatusError struct {
	Path string
	Code int
}

// Error says what was asked, and the status.
func (e *StatusError) Error() string {
	return fmt.Sprintf("GET %s: %d %s", e.Path, e.Code, http.StatusText(e.Code))
}

// Post sends a request in JSON. A kept connection on which no answer begins is
// not the server's failure, so a fresh one is tried: a llama-server closes its own
// behind each stream, without a word in the answer's headers, and whoever asks at
// once is faster than the news of that. It is tried once, for a server may as well
// have worked on the request until it fell over.
func (e *Endpoint) Post(ctx context.Context, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header["Idempotency-Key"] = nil // not sent; it tells net/http that it may ask again
	return e.send(e.pool, req)
}

// Forward sends a client's request for what is at a path here. Of req, the
// body and what type it is are the client's. The caller closes the answer's
// body.
func (e *Endpoint) Forward(req *http.Request, path string) (*http.Response, error) {
	out, err := http.NewRequestWithContext(req.Context(), req.Method, e.base+path, req.Body)
	if err != nil {
		return nil, err
	}
	out.ContentLength = req.ContentLength
	if kind := req.Header.Get("Content-Type"); kind != "" {
		out.Header.Set("Content-Type", kind)
	}
	return e.send(e.pool, out)
}

// What a server may do after the last line of a stream, before its connection
// is closed rather than used again.
const (
	lingering = 50 * time.Millisecond
	maxTail   = 4 << 10
)

// ReadOut reads the end of an answer that has said all, without which its
// connection could not be used again.
func ReadOut(body io.ReadCloser) {
	enough := time.AfterFunc(lingering, func() { _ = body.Close() })
	defer enough.Stop()
	_, _ = io.CopyN(io.Discard, body, maxTail)
}

// Failed turns an error of the connection into the job's. The context's own
// error comes first, for it is the reason that the connection failed.
func Failed(ctx context.Context, err error) error {
	var ours *job.Error
	var client clientError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &client):
		return client.error
	case errors.As(err, &ours):
		return err
	default:
		return &job.Error{Code: job.BackendFailed, Err: err}
	}
}

// clientError is what the client returned, as against the server.
type clientError struct{ error }

// Handing hands an answer on: the head before the first piece of it.
type Handing struct {
	Head  job.Head
	Start func(job.Head) error
	Emit  func(job.Chunk) error
	// Begun tells that there was a piece.
	Begun bool
}

// Pass hands on a piece. What its error is of, Failed will know.
func (h *Handing) Pass(c job.Chunk) error {
	if !h.Begun {
		h.Begun = true
		if err := h.Start(h.Head); err != nil {
			return clientError{err}
		}
	}
	if err := h.Emit(c); err != nil {
		return clientError{err}
	}
	return nil
}

// CodeOf returns why another backend might answer better than with that status;
// Invalid is of the request, and "" of no failure.
func CodeOf(status int) job.Code {
	switch {
	case status < 400:
		return ""
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return job.Busy
	case status == http.StatusNotFound:
		return job.ModelNotFound
	case status == http.StatusNotImplemented: // by a server that is well
		return job.Unsupported
	case status >= 500:
		return job.BackendFailed
	default:
		return job.Invalid
	}
}

// RetryAfter is when a server that has enough to do wants to be asked again, by its
// header: so many seconds later, or at a time. Zero is not told.
func RetryAfter(resp *http.Response) time.Duration {
	said := resp.Header.Get("Retry-After")
	if at, err := http.ParseTime(said); err == nil {
		return min(max(time.Until(at), 0), maxWait)
	}
	seconds, err := strconv.ParseFloat(said, 64)
	if err != nil || !(seconds > 0) {
		return 0
	}
	return time.Duration(min(seconds, maxWait.Seconds()) * float64(time.Second))
}

// maxWait is longer than anybody comes back for.
const maxWait = 24 * time.Hour
