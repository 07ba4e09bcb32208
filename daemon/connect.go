package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/backend/ollama"
	"github.com/joulemux/joulemux/daemon/backend/openai"
	"github.com/joulemux/joulemux/daemon/job"
)

// connect returns how to talk to a server that is configured, or looked for.
func connect(s backend.Spec) backend.Server {
	ofOllama := func(server *ollama.Server) *ollama.Server { server.Use(access(s)); return server }
	ofOpenAI := func(kind openai.Kind) *openai.Server {
		server := openai.New(&s.Endpoint, kind)
		server.Use(access(s))
		return server
	}
	switch s.Type {
	case "ollama":
		return ofOllama(ollama.New(&s.Endpoint))
	case ollama.FastFlowLM:
		return ofOllama(ollama.NewFastFlowLM(&s.Endpoint))
	case "openai":
		return ofOpenAI("")
	case "auto":
		return &asked{
			ollama: ofOllama(ollama.New(&s.Endpoint)), openai: ofOpenAI(""),
			below: s.Endpoint.Scheme != "unix" && s.Endpoint.Path != "",
		}
	default:
		return ofOpenAI(openai.Kind(s.Type))
	}
}

// access is what a server wants of whoever comes.
func access(s backend.Spec) endpoint.Access {
	key := endpoint.Key{File: s.KeyFile, Credential: s.KeyCredential}
	return endpoint.Access{
		Key: key, CA: s.CA,
		Private: s.Endpoint.Scheme == "http" && (s.Remote() || key != endpoint.Key{}),
	}
}

// unloading is what servers of either API are.
type unloading interface {
	backend.Server
	backend.Unloader
}

// asked is a server which is asked what API it speaks. Of two it is Ollama's, in
// which more can be said, but for Lemonade, which in OpenAI's says more of itself.
type asked struct {
	ollama *ollama.Server
	openai *openai.Server
	// below tells that the API is below a path, which Ollama's never is.
	below bool
	// speaks is what it was found to speak; nil before it was found.
	speaks atomic.Pointer[spoken]
}

// spoken is a server in the API that it speaks, at that version.
type spoken struct {
	unloading
	version string
}

// Probe asks the server what it is and has, and first of all in which API. One
// with another version than before may be another server.
func (a *asked) Probe(ctx context.Context) (job.Facts, error) {
	if s := a.speaks.Load(); s != nil {
		facts, err := s.Probe(ctx)
		if err == nil && facts.Version == s.version || err != nil && !answered(ctx, err) {
			return facts, err
		}
		a.speaks.Store(nil)
	}
	if a.below {
		return a.found(ctx, a.openai)
	}
	facts, err := a.probeOllama(ctx)
	if err == nil || !answered(ctx, err) {
		return facts, err
	}
	facts, other := a.found(ctx, a.openai)
	if other != nil {
		other = fmt.Errorf("it speaks neither Ollama's API (%w) nor OpenAI's (%w)", err, other)
	}
	return facts, other
}

// probeOllama probes a server as one of Ollama's API, and finds out which.
func (a *asked) probeOllama(ctx context.Context) (job.Facts, error) {
	facts, err := a.ollama.Probe(ctx)
	if err != nil || facts.Instance != "" {
		return facts, err
	}
	if other, err := a.openai.Probe(ctx); err == nil && strings.HasPrefix(other.Server, string(openai.Lemonade)) {
		a.speaks.Store(&spoken{a.openai, other.Version})
		return other, nil
	}
	if err := a.ollama.Learn(ctx); err != nil {
		return facts, err
	}
	return a.found(ctx, a.ollama)
}

// found probes a server, and keeps to its API if it answers.
func (a *asked) found(ctx context.Context, s unloading) (job.Facts, error) {
	facts, err := s.Probe(ctx)
	if err == nil && facts.Instance == "" {
		a.speaks.Store(&spoken{s, facts.Version})
	}
	return facts, err
}

// answered reports whether there was somebody who gave a wrong answer, as against
// nobody, or somebody who gives us none.
func answered(ctx context.Context, err error) bool {
	var none *net.OpError
	return ctx.Err() == nil && !errors.As(err, &none) && !errors.Is(err, job.BackendFailed)
}

// server returns the server by what it speaks, which is asked for if that is not
// known.
func (a *asked) server(ctx context.Context) (unloading, error) {
	if a.speaks.Load() == nil {
		if _, err := a.Probe(ctx); err != nil {
			return nil, &job.Error{Code: job.BackendFailed, Err: err}
		}
	}
	if s := a.speaks.Load(); s != nil {
		return s, nil
	}
	return nil, job.Errorf(job.BackendFailed, "it is a joulemux, and no backend")
}

// Stream runs a job.
func (a *asked) Stream(ctx context.Context, j job.Job, begin func(job.Head) error, emit func(job.Chunk) error) error {
	s, err := a.server(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	}
	return s.Stream(ctx, j, begin, emit)
}

// Ping asks for a sign of life on a fresh connection.
func (a *asked) Ping(ctx context.Context) error {
	if s := a.speaks.Load(); s != nil {
		return s.Ping(ctx)
	}
	return a.openai.Ping(ctx) // for which any answer will do
}

// Do sends a request that is no job.
func (a *asked) Do(req *http.Request) (*http.Response, error) {
	s, err := a.server(req.Context())
	if err != nil {
		return nil, err
	}
	return s.Do(req)
}

// Unload tells the server to let go of a model, if it can be told.
func (a *asked) Unload(ctx context.Context, model string) error {
	s, err := a.server(ctx)
	if err != nil {
		return err
	}
	return s.Unload(ctx, model)
}

// Close drops the idle connections.
func (a *asked) Close() {
	a.ollama.Close()
	a.openai.Close()
}
