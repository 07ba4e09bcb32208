package ollama

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/ollama/ollama/api"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/backend/events"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
)

// pass runs a job of OpenAI's or Anthropic's dialect, which Ollama speaks too: the
// bytes pass as they are.
func (s *Server) pass(ctx context.Context, j job.Job, to *endpoint.Handing) error {
	body := j.Original.Body
	var err error
	if j.Chosen {
		if body, err = job.SetModel(body, j.Model); err != nil {
			return err
		}
	}
	if body, err = job.NameLimit(body); err != nil {
		return err
	}
	p := &events.Passing{Handing: to, Manner: dialect.MannerOf(j.Original), Sent: time.Now(), Warning: dialect.Warning(dialect.LeftOut(j.Original))}
	if j.Stream && p.AskUsage {
		if body, p.Hide, err = job.AskUsage(body); err != nil {
			return err
		}
	}
	resp, err := s.Post(ctx, j.Original.Path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if lacks(resp) {
		return s.instead(ctx, j, to)
	}
	defer s.keeping(ctx, j, resp)()
	return p.Answer(resp, j.Stream)
}

// keeping begins to tell the server for how long the model of a job stays that it
// answers, and returns what waits until it has been told.
func (s *Server) keeping(ctx context.Context, j job.Job, resp *http.Response) (wait func()) {
	var telling sync.WaitGroup
	if j.KeepAlive != nil && resp.StatusCode < http.StatusBadRequest && !s.knows(&j) {
		telling.Go(func() { s.keep(ctx, j) })
	}
	return telling.Wait
}

// keepTimeout is how long the server may take to hear for how long a model stays.
const keepTimeout = 2 * time.Second

// told is for how long a model stays after each job, as the server was last told:
// a request that says nothing of it leaves it so, until the model is loaded anew.
type told struct {
	model string
	keep  time.Duration
	at    time.Time
}

// toldFresh is for how long nobody else is supposed to have told the server
// otherwise, or to have taken the model's place. So old may be what is known of
// servers in general.
const toldFresh = 10 * time.Second

// tells takes note of what a job's own request tells the server.
func (s *Server) tells(j *job.Job) {
	switch {
	case j.KeepAlive != nil:
		s.told.Store(&told{job.CanonicalModel(j.Model), j.KeepAlive.Truncate(time.Second), time.Now()})
	case j.KeepAsked != nil:
		s.told.Store(nil)
	}
}

// knows reports whether the server was told that already, and the model cannot
// have gone since by itself.
func (s *Server) knows(j *job.Job) bool {
	t := s.told.Load()
	return t != nil && t.model == job.CanonicalModel(j.Model) && t.keep == j.KeepAlive.Truncate(time.Second) &&
		time.Since(t.at) < min(t.keep, toldFresh)
}

// keep tells the server for how long the model of a job stays, for which its
// request has no words. That is as good while the answer is written as after it.
// A model that has gone, or is going, is not loaded again to be told so. The job
// may be over, and what was decided for it stays true.
func (s *Server) keep(ctx context.Context, j job.Job) {
	s.told.Store(nil)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTimeout)
	defer cancel()
	if *j.KeepAlive < time.Second {
		_ = s.Unload(ctx, j.Model)
		return
	}
	var running api.ProcessResponse
	if _, err := s.Get(ctx, "/api/ps", &running); err != nil || !holds(running, j) {
		return
	}
	path := "/api/generate"
	if j.Kind == job.Embed {
		path = "/api/embed" // the other is not for models that only embed
	}
	body, err := job.SetKeepAlive(job.Line(map[string]any{"model": j.Model, "stream": false}), *j.KeepAlive)
	if err != nil {
		return
	}
	if resp, err := s.Post(ctx, path, body); err == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, endpoint.MaxError))
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			s.tells(&j)
		}
	}
}

// holds reports whether the model of a job is in memory, and is to stay there.
func holds(running api.ProcessResponse, j job.Job) bool {
	for _, r := range running.Models {
		if job.SameModel(r.Model, j.Model) || r.Model == "" && job.SameModel(r.Name, j.Model) {
			// A stream is being written by it, whatever comes afterwards.
			return j.Stream || time.Until(r.ExpiresAt) > 0
		}
	}
	return false
}
