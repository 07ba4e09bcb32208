// Package ollama is a backend that speaks Ollama's API.
//
// It owns the connections to one server. Which servers there are, and whether
// they are well, is daemon/backend's; when to give up on one is
// daemon/dispatch's.
package ollama

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
	"time"

	"github.com/ollama/ollama/api"

	"github.com/joulemux/joulemux/daemon/job"
)

// InstanceHeader marks the answers of every joulemux, so that none takes
// another, or itself, for a backend.
const InstanceHeader = "X-Joulemux-Instance"

// Limits on what a server may make us keep.
const (
	maxFacts  = 16 << 20 // a listing of models
	maxAnswer = 64 << 10 // an error response
)

// Server is one server of Ollama's API.
type Server struct {
	base string // scheme and host, to put a path behind
	pool *http.Transport
	// fresh opens a connection for each request: an answer on an old one says
	// nothing about whether new ones are accepted.
	fresh *http.Transport
}

// New returns the server at endpoint, such as http://127.0.0.1:11434 or
// unix:///run/user/1000/llama.sock. It opens no connection.
func New(endpoint *url.URL) *Server {
	s := &Server{base: endpoint.Scheme + "://" + endpoint.Host, pool: transport(), fresh: transport()}
	s.fresh.DisableKeepAlives = true
	if endpoint.Scheme == "unix" {
		s.base = "http://localhost"
		for _, t := range []*http.Transport{s.pool, s.fresh} {
			t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", endpoint.Path)
			}
		}
	}
	return s
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

// Close drops the idle connections.
func (s *Server) Close() {
	s.pool.CloseIdleConnections()
	s.fresh.CloseIdleConnections()
}

// Ping asks for the version on a fresh connection.
func (s *Server) Ping(ctx context.Context) error {
	_, err := s.version(ctx, s.fresh)
	return err
}

// Probe asks the server what it is and what models it has. None of the three
// requests makes Ollama touch a GPU.
func (s *Server) Probe(ctx context.Context) (job.Facts, error) {
	facts, err := s.version(ctx, s.pool)
	if err != nil || facts.Instance != "" {
		return facts, err
	}
	var tags api.ListResponse
	if _, err := s.get(ctx, s.pool, "/api/tags", &tags); err != nil {
		return facts, err
	}
	// Not every server of this API can tell what is resident.
	var running api.ProcessResponse
	if _, err := s.get(ctx, s.pool, "/api/ps", &running); err != nil && ctx.Err() != nil {
		return facts, err
	}
	facts.Models = models(tags, running)
	return facts, nil
}

func models(tags api.ListResponse, running api.ProcessResponse) []job.Model {
	list := make([]job.Model, 0, len(tags.Models))
	for _, m := range tags.Models {
		name := m.Model
		if name == "" {
			name = m.Name
		}
		model := job.Model{Name: name, Digest: m.Digest, Size: m.Size}
		for _, r := range running.Models {
			if job.SameModel(r.Model, name) || r.Model == "" && job.SameModel(r.Name, name) {
				model.Resident, model.Until, model.VRAM, model.ContextLength = true, r.ExpiresAt, r.SizeVRAM, r.ContextLength
			}
		}
		list = append(list, model)
	}
	return list
}

func (s *Server) version(ctx context.Context, t *http.Transport) (job.Facts, error) {
	var v struct{ Version string }
	header, err := s.get(ctx, t, "/api/version", &v)
	return job.Facts{Version: v.Version, Instance: header.Get(InstanceHeader)}, err
}

// get decodes the JSON answer to a GET.
func (s *Server) get(ctx context.Context, t *http.Transport, path string, into any) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.Header, fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFacts))
	if err != nil {
		return resp.Header, fmt.Errorf("GET %s: %w", path, err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return resp.Header, fmt.Errorf("GET %s: %w", path, err)
	}
	return resp.Header, nil
}

// Do sends a request that is no job, such as one to show a model, and returns
// the answer. Of req, the path, query, body and the header are the client's.
// The caller closes the answer's body.
func (s *Server) Do(req *http.Request) (*http.Response, error) {
	out, err := http.NewRequestWithContext(req.Context(), req.Method, s.base+req.URL.RequestURI(), req.Body)
	if err != nil {
		return nil, err
	}
	out.ContentLength = req.ContentLength
	if kind := req.Header.Get("Content-Type"); kind != "" {
		out.Header.Set("Content-Type", kind)
	}
	return s.pool.RoundTrip(out)
}

// Unload tells the server to let go of a model once the jobs with it have
// ended. One that is not resident stays so.
func (s *Server) Unload(ctx context.Context, model string) error {
	whole := false
	body, err := json.Marshal(api.GenerateRequest{Model: model, Stream: &whole, KeepAlive: new(api.Duration)})
	if err != nil {
		return err
	}
	resp, err := s.post(ctx, "/api/generate", body)
	if err != nil {
		return failed(ctx, err)
	}
	defer resp.Body.Close()
	if err := refusal(job.Job{}, resp); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	return failed(ctx, err)
}

// post sends a request in JSON.
func (s *Server) post(ctx context.Context, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return s.pool.RoundTrip(req)
}

// Stream runs j. It calls begin once, when the answer begins, and emit for
// each piece of it, the last with Last set. It returns when the job ends, ctx
// is done, or one of the two fails.
//
// The error is a *job.Error: Busy, ModelNotFound or BackendFailed with the
// server's own answer, as long as begin was not called; BackendFailed, Told if
// the server said so itself, for a stream that ended early. An error of ctx,
// begin or emit is returned as it is.
func (s *Server) Stream(ctx context.Context, j job.Job, begin func(job.Head) error, emit func(job.Chunk) error) error {
	path, body, err := encode(j)
	if err != nil {
		return err
	}
	resp, err := s.post(ctx, path, body)
	if err != nil {
		return failed(ctx, err)
	}
	defer resp.Body.Close()
	if err := refusal(j, resp); err != nil {
		return failed(ctx, err)
	}
	a := answer{job: j, head: job.Head{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Length: resp.ContentLength}, begin: begin, emit: emit}
	if !a.inLines() {
		return failed(ctx, a.readBody(resp.Body))
	}
	if err := a.readLines(resp.Body); err != nil {
		return failed(ctx, err)
	}
	readOut(resp.Body)
	return nil
}

// What a server may do after the last line of a stream, before its connection
// is closed rather than used again.
const (
	lingering = 50 * time.Millisecond
	maxTail   = 4 << 10
)

// readOut reads the end of an answer that has said all, without which its
// connection could not be used again.
func readOut(body io.ReadCloser) {
	enough := time.AfterFunc(lingering, func() { _ = body.Close() })
	defer enough.Stop()
	_, _ = io.CopyN(io.Discard, body, maxTail)
}

// failed turns an error of the connection into the job's. The context's own
// error comes first, for it is the reason that the connection failed.
func failed(ctx context.Context, err error) error {
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

// clientError is what begin or emit returned, as against the server.
type clientError struct{ error }

// refusal returns the error that resp is, if it is one that another backend
// might not give, or that a job without an Original cannot pass on.
func refusal(j job.Job, resp *http.Response) error {
	code := job.BackendFailed
	switch {
	case resp.StatusCode < 400:
		return nil
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusServiceUnavailable:
		code = job.Busy
	case resp.StatusCode == http.StatusNotFound:
		code = job.ModelNotFound
	case resp.StatusCode >= 500:
	case j.Original != nil:
		return nil
	default:
		code = job.Invalid
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return &job.Error{
		Code: code, Detail: message(body, resp.Status),
		Answer: &job.Answer{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Body: body},
	}
}

// message returns what an error response says, or else its status.
func message(body []byte, status string) string {
	var e struct{ Error string }
	if json.Unmarshal(body, &e) == nil && e.Error != "" {
		return e.Error
	}
	return status
}
