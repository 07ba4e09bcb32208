// Package openai is a backend that speaks OpenAI's HTTP API: llama-server, vLLM,
// OpenVINO Model Server, Lemonade, or another.
//
// Jobs that came in Ollama's dialect, or in none, are translated by
// daemon/dialect; those of OpenAI's pass as they are. What such a server does not
// do of what Ollama does is among its facts.
package openai

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/backend/events"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
)

// Server is one server of OpenAI's API.
type Server struct {
	*endpoint.Endpoint
	address string
	kind    Kind   // as configured; "" has it found out
	prefix  string // as configured; "" has it found out
	// known is what the last probe found out; nil before the first.
	known atomic.Pointer[findings]
	// oneLimit tells that it refuses a limit of tokens by two names.
	oneLimit atomic.Bool
}

// New returns the server at a URL, which has a path if the API is elsewhere than
// under /v1 and /v3. The kind is "" if it has to be found out. It opens no
// connection.
func New(u *url.URL, kind Kind) *Server {
	s := &Server{Endpoint: endpoint.New(u), address: u.String(), kind: kind}
	if u.Scheme != "unix" {
		s.prefix = strings.TrimRight(u.Path, "/")
	}
	return s
}

// Ping asks for something small on a fresh connection. Whatever is answered is a
// sign of life, be it that a model is being loaded.
func (s *Server) Ping(ctx context.Context) error {
	path := "/v1/models"
	if f := s.known.Load(); f != nil {
		path = f.alive()
	}
	var answer json.RawMessage
	_, err := s.GetAnew(ctx, path, &answer)
	var status *endpoint.StatusError
	var syntax *json.SyntaxError // vLLM's is empty
	if errors.As(err, &status) || errors.As(err, &syntax) {
		return nil
	}
	return err
}

// findings returns what is known of the server, after asking it if that is
// nothing.
func (s *Server) findings(ctx context.Context) (*findings, error) {
	if f := s.known.Load(); f != nil {
		return f, nil
	}
	_, err := s.Probe(ctx)
	f := s.known.Load()
	if err == nil && f == nil {
		err = job.Errorf(job.BackendFailed, "it is a joulemux, and no backend")
	}
	return f, err
}

// Stream runs j. It calls begin once, when the answer begins, and emit for
// each piece of it, the last with Last set. It returns when the job ends, ctx
// is done, or one of the two fails.
//
// The error is a *job.Error: Unsupported or Invalid if the server cannot be asked
// for this; Busy, ModelNotFound or BackendFailed with the server's own words, as
// long as begin was not called; BackendFailed, Told if the client was told so in
// the answer, for a stream that ended early. An error of ctx, begin or emit is
// returned as it is.
func (s *Server) Stream(ctx context.Context, j job.Job, begin func(job.Head) error, emit func(job.Chunk) error) error {
	f, err := s.findings(ctx)
	if err != nil {
		return endpoint.Failed(ctx, err)
	}
	if j.Original != nil && j.Original.Dialect == job.OpenAI && !dialect.IsResponses(j.Original) {
		return endpoint.Failed(ctx, s.pass(ctx, f, j, &endpoint.Handing{Start: begin, Emit: emit}))
	}
	return endpoint.Failed(ctx, s.translate(ctx, f, j, &endpoint.Handing{Start: begin, Emit: emit}))
}

// translate runs a job of another dialect, or of none.
func (s *Server) translate(ctx context.Context, f *findings, j job.Job, to *endpoint.Handing) error {
	r, err := request(f, j)
	if err != nil {
		return err
	}
	if r.Load {
		return load(f, j.Model, &r, to)
	}
	sent := time.Now()
	resp, err := s.Post(ctx, f.prefix+r.Path, r.Body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	a := events.Translating{Handing: to, Shape: r.Shape, Original: j.Original, Sent: sent}
	return a.Answer(resp, r.Warning())
}

// request puts a job into words that the server knows.
func request(f *findings, j job.Job) (dialect.Request, error) {
	of := f.server(j.Model)
	id := f.id(j.Model)
	switch {
	case j.Original == nil:
		return dialect.ContentToOpenAI(j, id, of)
	case j.Original.Dialect == job.Ollama:
		r, err := dialect.ToOpenAI(j.Kind, j.Original.Path, j.Original.Body, id, of)
		if r.Shape.Model == "" { // it was chosen for the client
			r.Shape.Model = j.Model
		}
		if j.KeepAsked != nil {
			r.Warnings = append(r.Warnings, "keep_alive: for how long a model stays is the server's own choice")
		}
		return r, err
	default:
		r, ok, err := dialect.ToChat(j, id, of)
		if !ok {
			return r, job.Errorf(job.Invalid, "there is no translation from the dialect %q", j.Original.Dialect)
		}
		return r, err
	}
}

// load answers a client who only wants a model to be in memory. Where it is not,
// only a job would bring it there.
func load(f *findings, model string, r *dialect.Request, to *endpoint.Handing) error {
	if m := f.model(model); m == nil || !m.Resident {
		return job.Errorf(job.Unsupported, "%s loads a model only for a job", f.facts.Server)
	}
	line := dialect.Loaded(r.Shape, time.Now())
	to.Head = job.Head{Status: http.StatusOK, ContentType: events.ContentType(r.Shape), Length: -1, Warning: r.Warning()}
	if !r.Shape.Stream {
		to.Head.Length = int64(len(line))
	}
	return to.Pass(job.Chunk{Raw: line, Last: true})
}

// refusal returns the error that an error response is, in Ollama's words.
func refusal(resp *http.Response) *job.Error { return events.Refusal(resp, dialect.MannerOf(nil)) }
