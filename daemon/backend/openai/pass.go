package openai

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/backend/events"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
)

// pass runs a job of OpenAI's dialect, whose bytes are passed as they are.
func (s *Server) pass(ctx context.Context, f *findings, j job.Job, to *endpoint.Handing) error {
	body := j.Original.Body
	var err error
	if id := f.id(j.Model); j.Chosen || id != j.Model {
		if body, err = job.SetModel(body, id); err != nil {
			return err
		}
	}
	p := &events.Passing{Handing: to, Manner: dialect.MannerOf(j.Original), Sent: time.Now()}
	if j.Stream && p.AskUsage {
		if body, p.Hide, err = job.AskUsage(body); err != nil {
			return err
		}
	}
	resp, err := s.limited(ctx, f, f.prefix+strings.TrimPrefix(j.Original.Path, "/v1"), body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return p.Answer(resp, j.Stream)
}

// limited asks for a job with its limit of tokens by both names: a server that does
// not know the newer one writes on. One that refuses both, as OpenAI's own does, is
// asked again as the client asked, and from then on at once if that was all.
func (s *Server) limited(ctx context.Context, f *findings, path string, body []byte) (*http.Response, error) {
	named := body
	if !f.kind.knowsLimit() && !s.oneLimit.Load() {
		var err error
		if named, err = job.NameLimit(body); err != nil {
			return nil, err
		}
	}
	resp, err := s.Post(ctx, path, named)
	if err != nil || bytes.Equal(named, body) || endpoint.CodeOf(resp.StatusCode) != job.Invalid {
		return resp, err
	}
	_ = resp.Body.Close()
	resp, err = s.Post(ctx, path, body)
	if err == nil && resp.StatusCode < http.StatusBadRequest {
		s.oneLimit.Store(true)
	}
	return resp, err
}
