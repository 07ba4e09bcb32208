// Package ollama is a backend that speaks Ollama's API, and OpenAI's beside it.
//
// It owns the connections to one server. Which servers there are, and whether
// they are well, is daemon/backend's; when to give up on one is
// daemon/dispatch's.
package ollama

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/ollama/ollama/api"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
)

// InstanceHeader marks the answers of every joulemux.
const InstanceHeader = endpoint.InstanceHeader

// Server is one server of Ollama's API, or of a part of it.
type Server struct {
	*endpoint.Endpoint
	address string
	// subset tells that it has a part of the API only, as FastFlowLM.
	subset atomic.Bool
	told   atomic.Pointer[told] // nil if nothing is known of that
}

// New returns the server at a URL such as http://127.0.0.1:11434 or
// unix:///run/user/1000/ollama.sock. It opens no connection.
func New(u *url.URL) *Server {
	return &Server{Endpoint: endpoint.New(u), address: u.String()}
}

// Ping asks for the version on a fresh connection.
func (s *Server) Ping(ctx context.Context) error {
	_, err := version(ctx, s.GetAnew)
	return err
}

// Probe asks the server what it is and what models it has. None of the requests
// makes Ollama touch a GPU.
func (s *Server) Probe(ctx context.Context) (job.Facts, error) {
	facts, err := version(ctx, s.Get)
	if err != nil || facts.Instance != "" {
		return facts, err
	}
	var tags api.ListResponse
	if _, err := s.Get(ctx, "/api/tags", &tags); err != nil {
		return facts, err
	}
	// Not every server of this API can tell what is resident.
	var running api.ProcessResponse
	if _, err := s.Get(ctx, "/api/ps", &running); err != nil && ctx.Err() != nil {
		return facts, err
	}
	facts.Models = models(tags, running)
	for i, m := range facts.Models {
		if m.Digest == "" { // of which weights it is nobody can tell
			facts.Models[i].Digest, facts.Models[i].Assumed = s.own(m), true
		}
	}
	facts.Server = "ollama " + facts.Version
	if s.subset.Load() {
		s.qualify(&facts)
	}
	return facts, nil
}

// models returns what a server has. A model that it would only send to somebody
// else's server is not there: jobs leave this machine by remote backends alone, for
// which the user has said who may.
func models(tags api.ListResponse, running api.ProcessResponse) []job.Model {
	list := make([]job.Model, 0, len(tags.Models))
	for _, m := range tags.Models {
		if m.RemoteHost != "" {
			continue
		}
		name := m.Model
		if name == "" {
			name = m.Name
		}
		model := job.Model{Name: name, Digest: m.Digest, Size: m.Size, Created: m.ModifiedAt, Owner: owner(name), Description: described(m.Details)}
		for _, r := range running.Models {
			if job.SameModel(r.Model, name) || r.Model == "" && job.SameModel(r.Name, name) {
				model.Resident, model.Until, model.VRAM, model.ContextLength = true, r.ExpiresAt, r.SizeVRAM, r.ContextLength
			}
		}
		list = append(list, model)
	}
	return list
}

// owner returns whose a model is, as Ollama tells clients of OpenAI's API: the
// part of its name that says where it is from.
func owner(name string) string {
	if parts := strings.Split(job.CanonicalModel(name), "/"); len(parts) > 1 {
		return parts[len(parts)-2]
	}
	return "library"
}

func version(ctx context.Context, get func(context.Context, string, any) (http.Header, error)) (job.Facts, error) {
	var v struct{ Version string }
	header, err := get(ctx, "/api/version", &v)
	return job.Facts{Version: v.Version, Instance: header.Get(InstanceHeader)}, err
}

// Do sends a request that is no job, such as one to show a model, and returns
// the answer. Of req, the path, query, body and the header are the client's.
// The caller closes the answer's body.
func (s *Server) Do(req *http.Request) (*http.Response, error) {
	return s.Forward(req, req.URL.RequestURI())
}

// Unload tells the server to let go of a model once the jobs with it have
// ended. One that is not resident stays so. The error is errors.ErrUnsupported of
// a server that cannot be told.
func (s *Server) Unload(ctx context.Context, model string) error {
	if s.subset.Load() {
		return errors.ErrUnsupported
	}
	s.told.Store(nil)
	whole := false
	body, err := json.Marshal(api.GenerateRequest{Model: model, Stream: &whole, KeepAlive: new(api.Duration)})
	if err != nil {
		return err
	}
	resp, err := s.Post(ctx, "/api/generate", body)
	if err != nil {
		return endpoint.Failed(ctx, err)
	}
	defer resp.Body.Close()
	if err := refusal(job.Job{}, resp); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, endpoint.MaxError))
	return endpoint.Failed(ctx, err)
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
	if s.subset.Load() {
		j.KeepAlive = nil // it has none
		if j.Kind == job.Embed && (j.Original == nil || j.Original.Dialect == job.Ollama) {
			return endpoint.Failed(ctx, s.embed(ctx, j, &endpoint.Handing{Start: begin, Emit: emit}))
		}
		if r, ok, err := dialect.ToChat(j, j.Model, dialect.Server{}); err != nil {
			return err
		} else if ok {
			return endpoint.Failed(ctx, s.translate(ctx, j, &r, &endpoint.Handing{Start: begin, Emit: emit}))
		}
	}
	if j.Original != nil && j.Original.Dialect != job.Ollama {
		return endpoint.Failed(ctx, s.pass(ctx, j, &endpoint.Handing{Start: begin, Emit: emit}))
	}
	path, body, err := encode(j)
	if err != nil {
		return err
	}
	s.tells(&j)
	resp, err := s.Post(ctx, path, body)
	if err != nil {
		return endpoint.Failed(ctx, err)
	}
	defer resp.Body.Close()
	if err := refusal(j, resp); err != nil {
		return endpoint.Failed(ctx, err)
	}
	head := job.Head{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Length: resp.ContentLength}
	a := answer{job: j, Handing: endpoint.Handing{Head: head, Start: begin, Emit: emit}}
	if !a.inLines() {
		return endpoint.Failed(ctx, a.readBody(resp.Body))
	}
	if err := a.readLines(resp.Body); err != nil {
		return endpoint.Failed(ctx, err)
	}
	endpoint.ReadOut(resp.Body)
	return nil
}

// refusal returns the error that resp is, if it is one that another backend
// might not give, or that a job without an Original cannot pass on.
func refusal(j job.Job, resp *http.Response) error {
	code := endpoint.CodeOf(resp.StatusCode)
	if code == "" || code == job.Invalid && j.Original != nil {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, endpoint.MaxError))
	return &job.Error{
		Code: code, Detail: message(body, resp.Status), RetryAfter: endpoint.RetryAfter(resp),
		Answer: &job.Answer{Dialect: job.Ollama, Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Body: body},
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
