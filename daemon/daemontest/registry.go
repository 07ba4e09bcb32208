package daemontest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// StubRegistry plays the registry from which an Ollama fetches models: one model,
// by any name, in the registry's own protocol. Like the real one it sends whoever
// wants a blob to another host, which takes ranges.
type StubRegistry struct {
	// Certificate is a file with what makes TLS clients believe it, as in
	// SSL_CERT_FILE.
	Certificate string
	// Size is how many bytes the model has, all in all.
	Size int64
	// Manifest and Blob, if set, answer in its place, unless they return false.
	// Blob is asked before it sends somebody to the other host.
	Manifest, Blob func(w http.ResponseWriter, r *http.Request) bool
	// Hold, if set, is called before each piece of a blob is written, of so many
	// bytes before it; false breaks the connection.
	Hold func(digest string, written int64) bool

	server   *httptest.Server
	manifest []byte
	blobs    map[string][]byte
	types    map[string]string // by digest

	mu        sync.Mutex
	manifests int
	sent      int64
}

// ServeRegistry serves a model of those layers, each with its media type, until
// the test ends.
func ServeRegistry(t testing.TB, layers ...Layer) *StubRegistry {
	t.Helper()
	s := &StubRegistry{blobs: make(map[string][]byte), types: make(map[string]string)}
	type entry struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int    `json:"size"`
	}
	add := func(l Layer) entry {
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256(l.Bytes))
		s.blobs[digest], s.types[digest] = l.Bytes, l.Type
		s.Size += int64(len(l.Bytes))
		return entry{l.Type, digest, len(l.Bytes)}
	}
	manifest := map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"}
	var list []entry
	for _, l := range layers {
		list = append(list, add(l))
	}
	manifest["layers"] = list
	manifest["config"] = add(Layer{"application/vnd.docker.container.image.v1+json", []byte(
		`{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"120K","file_type":"F32","architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`,
	)})
	s.manifest, _ = json.Marshal(manifest)
	s.server = httptest.NewUnstartedServer(s)
	s.server.TLS = &tls.Config{Certificates: []tls.Certificate{s.certify(t)}}
	s.server.Config.SetKeepAlivesEnabled(false) // what a client keeps open, a daemon in the same process would be blamed for
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	return s
}

// Layer is a part of a model.
type Layer struct {
	Type  string // its media type
	Bytes []byte
}

// The media types of layers.
const (
	ModelLayer   = "application/vnd.ollama.image.model"
	LicenseLayer = "application/vnd.ollama.image.license"
)

// certify makes a certificate for this machine by the two names that the stub
// goes by.
func (s *StubRegistry) certify(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stub registry"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s.Certificate = filepath.Join(t.TempDir(), "stub.pem")
	if err := os.WriteFile(s.Certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Name is the name of its model with that tag, as an Ollama wants it.
func (s *StubRegistry) Name(tag string) string {
	return s.server.Listener.Addr().String() + "/library/tiny:" + tag
}

// Asked is how often somebody began to fetch the model, and how many bytes of
// blobs were sent.
func (s *StubRegistry) Asked() (manifests int, sent int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.manifests, s.sent
}

// Is reports whether a path is that of a layer of that type.
func (s *StubRegistry) Is(path, mediaType string) bool {
	return s.types[path[strings.LastIndexByte(path, '/')+1:]] == mediaType
}

// ServeHTTP answers as a registry does.
func (s *StubRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	last := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	blob, known := s.blobs[last]
	switch {
	case strings.HasPrefix(r.URL.Path, "/v2/") && strings.Contains(r.URL.Path, "/manifests/"):
		s.mu.Lock()
		s.manifests++
		s.mu.Unlock()
		if s.Manifest == nil || !s.Manifest(w, r) {
			_, _ = w.Write(s.manifest)
		}
	case !known:
		http.NotFound(w, r)
	case strings.HasPrefix(r.URL.Path, "/data/"):
		http.ServeContent(&counted{ResponseWriter: w, registry: s, digest: last}, r, "", time.Time{}, bytes.NewReader(blob))
	case s.Blob != nil && s.Blob(w, r):
	case r.Method == http.MethodHead:
		w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
	default:
		_, port, _ := net.SplitHostPort(r.Host)
		http.Redirect(w, r, "https://localhost:"+port+"/data/"+last, http.StatusTemporaryRedirect)
	}
}

// counted writes a blob in pieces, and counts them.
type counted struct {
	http.ResponseWriter
	registry *StubRegistry
	digest   string
	written  int64
}

// pieceSize is small beside a tiny model.
const pieceSize = 4 << 10

// Write writes a piece at a time.
func (c *counted) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if hold := c.registry.Hold; hold != nil && !hold(c.digest, c.written) {
			panic(http.ErrAbortHandler)
		}
		wrote, err := c.ResponseWriter.Write(p[n:min(n+pieceSize, len(p))])
		n += wrote
		c.written += int64(wrote)
		c.registry.mu.Lock()
		c.registry.sent += int64(wrote)
		c.registry.mu.Unlock()
		if err != nil {
			return n, err
		}
		_ = http.NewResponseController(c.ResponseWriter).Flush()
	}
	return n, nil
}
