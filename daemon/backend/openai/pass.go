package openai

import (
	"context"
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
	resp, err := s.Post(ctx, f.prefix+strings.TrimPrefix(j.Original.Path, "/v1"), body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return p.Answer(resp, j.Stream)
}
