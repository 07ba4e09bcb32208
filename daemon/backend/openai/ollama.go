package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
)

// Do answers a request that is no job. One of OpenAI's API goes to the server;
// one of Ollama's is answered from what the server says of itself, and those for
// which there is nothing are refused. The caller closes the answer's body.
func (s *Server) Do(req *http.Request) (*http.Response, error) {
	f, err := s.findings(req.Context())
	if err != nil {
		return nil, err
	}
	if rest, ok := strings.CutPrefix(req.URL.RequestURI(), "/v1/"); ok {
		return s.Forward(req, f.prefix+"/"+rest)
	}
	status, body := http.StatusOK, []byte(nil)
	switch req.Method + " " + req.URL.Path {
	case "GET /api/version":
		body = job.Line(map[string]string{"version": dialect.OllamaVersion})
	case "GET /api/tags":
		body = f.tags(false)
	case "GET /api/ps":
		body = f.tags(true)
	case "POST /api/show":
		status, body, err = f.show(req)
	case "POST /api/generate", "POST /api/chat":
		status, body, err = s.unloaded(f, req)
	default:
		status, body = http.StatusNotImplemented, dialect.OllamaError(fmt.Sprintf("%s does nothing like %s", f.facts.Server, req.URL.Path))
	}
	if err != nil {
		return nil, err
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status, Request: req,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body)),
		Header: http.Header{"Content-Type": {"application/json; charset=utf-8"}}, Body: io.NopCloser(bytes.NewReader(body)),
	}, nil
}

// tagged is a model in a listing of Ollama's.
type tagged struct {
	Name     string    `json:"name"`
	Model    string    `json:"model"`
	Modified time.Time `json:"modified_at"`
	Size     int64     `json:"size"`
	Digest   string    `json:"digest"`
	Details  details   `json:"details"`
	*running
}

// running is what is added for a model in memory.
type running struct {
	Expires time.Time `json:"expires_at"`
	VRAM    int64     `json:"size_vram"`
	Context int       `json:"context_length"`
}

// details are those that Ollama's clients look for. Nobody tells them here.
type details struct {
	Format       string   `json:"format"`
	Family       string   `json:"family"`
	Families     []string `json:"families"`
	Parameters   string   `json:"parameter_size"`
	Quantization string   `json:"quantization_level"`
}

// never is when a model goes of which nobody says when it does.
func never() time.Time { return time.Now().AddDate(100, 0, 0) }

// tags lists the models, or those in memory.
func (f *findings) tags(resident bool) []byte {
	list := []tagged{}
	for _, m := range f.facts.Models {
		t := tagged{Name: m.Name, Model: m.Name, Size: m.Size, Digest: m.Digest}
		switch {
		case !resident:
		case !m.Resident:
			continue
		default:
			t.running = &running{Expires: never(), Context: m.ContextLength}
		}
		list = append(list, t)
	}
	return job.Line(map[string]any{"models": list})
}

// show describes a model.
func (f *findings) show(req *http.Request) (status int, body []byte, err error) {
	m, name, err := f.asked(req)
	if err != nil {
		return 0, nil, err
	}
	if m == nil {
		return http.StatusNotFound, dialect.OllamaError(fmt.Sprintf("model '%s' not found", name)), nil
	}
	info := map[string]any{"general.architecture": "unknown"}
	if m.ContextLength > 0 {
		info["unknown.context_length"] = m.ContextLength
	}
	return http.StatusOK, job.Line(map[string]any{
		"license": "", "modelfile": "", "parameters": "", "template": "", "modified_at": time.Time{},
		"details": details{}, "model_info": info, "capabilities": []string{"completion"},
	}), nil
}

// asked returns the model that a request is about, by the name that it has there,
// or nil.
func (f *findings) asked(req *http.Request) (*job.Model, string, error) {
	body, err := io.ReadAll(io.LimitReader(req.Body, endpoint.MaxBody))
	if err != nil {
		return nil, "", err
	}
	var q struct{ Model, Name string }
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, "", &job.Error{Code: job.Invalid, Err: err}
	}
	if q.Model == "" {
		q.Model = q.Name
	}
	return f.model(q.Model), q.Model, nil
}

// unloaded answers a request to let go of a model: of those for text it alone is
// no job.
func (s *Server) unloaded(f *findings, req *http.Request) (status int, body []byte, err error) {
	_, name, err := f.asked(req)
	if err != nil {
		return 0, nil, err
	}
	err = s.Unload(req.Context(), name)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return http.StatusNotImplemented, dialect.OllamaError(f.facts.Server + " cannot be told to let go of a model"), nil
	case err != nil:
		return http.StatusBadGateway, dialect.OllamaError(err.Error()), nil
	}
	return http.StatusOK, job.Line(map[string]any{"model": name, "created_at": time.Now().UTC(), "response": "", "done": true, "done_reason": "unload"}), nil
}

// Unload tells the server to let go of a model, or returns errors.ErrUnsupported
// if servers of its kind cannot be told. One that is not resident stays so.
func (s *Server) Unload(ctx context.Context, model string) error {
	f, err := s.findings(ctx)
	if err != nil {
		return endpoint.Failed(ctx, err)
	}
	var path, member string
	switch {
	case f.kind == Lemonade:
		path, member = f.prefix+"/unload", "model_name"
	case f.router:
		path, member = "/models/unload", "model"
	default:
		return fmt.Errorf("%s: letting go of a model: %w", f.facts.Server, errors.ErrUnsupported)
	}
	resp, err := s.Post(ctx, path, job.Line(map[string]string{member: f.id(model)}))
	if err != nil {
		return endpoint.Failed(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		refused := refusal(resp)
		// A llama-server does not let go of what it does not have.
		if _, err := s.Probe(ctx); err == nil {
			if m := s.known.Load().model(model); m != nil && !m.Resident {
				return nil
			}
		}
		return refused
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, endpoint.MaxError))
	return endpoint.Failed(ctx, err)
}
