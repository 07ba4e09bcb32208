package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"net/http"

	"github.com/ollama/ollama/api"

	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/pull"
)

// errMayNotPull refuses a client, and says who may.
func errMayNotPull() error {
	return job.Errorf(job.Forbidden, "clients fetch no models here unless server.allow_admin, or models.auto_pull: on, is in the configuration, or they show a token with the right \"admin\"; the user's own \"joulemux pull\" does")
}

// asks reports whether it is the user who has a model fetched: somebody who may
// administer, or in our own dialect, and not in Ollama's which any program speaks,
// who comes by the socket that only the user can open. Otherwise it is a client,
// if those may.
func (s *Server) asks(r *http.Request, own bool) (user bool, err error) {
	switch {
	case s.mayAdminister(r), own && door.Here(r.Context()):
		return true, nil
	case s.settings.Load().AutoPull:
		return false, nil
	default:
		return false, errMayNotPull()
	}
}

// pull fetches a model, and tells how that gets on.
func (s *Server) pull(w http.ResponseWriter, r *http.Request) {
	var q wire.PullOrder
	if !s.read(w, r, &q) {
		return
	}
	user, err := s.asks(r, true)
	if err != nil {
		fail(w, err)
		return
	}
	o, err := s.order(r, q.Model, q.Backend)
	if err != nil {
		fail(w, err)
		return
	}
	o.Anyway, o.Insecure, o.ByClient = q.Anyway, q.Insecure, !user
	out, fetched := s.lines(w), int64(0)
	err = s.Puller.Pull(r.Context(), o, func(p pull.Progress) error {
		fetched = p.Completed
		return out.pull(r.Context(), p)
	})
	if err != nil {
		out.fail(r.Context(), err, inEvent)
		return
	}
	_ = out.put(r.Context(), wire.Event{End: map[string]any{"model": o.Model, "backend": o.Backend, "bytes": fetched}})
}

// order is a pull by the backend that is meant: named in the request, or in a
// header.
func (s *Server) order(r *http.Request, model, target string) (o pull.Order, err error) {
	if model == "" {
		return o, job.InvalidField("model", "name the model to fetch")
	}
	id, err := s.Runner.Home(r.Context(), model, cmp.Or(target, r.Header.Get("X-Target-Backend")))
	return pull.Order{Backend: id, Model: model}, err
}

// pull writes how a pull is getting on, but for its end, of which there is more to
// tell. The first that is heard of it may be the last.
func (l *lines) pull(ctx context.Context, p pull.Progress) error {
	if p.Ended() || p.State == pull.Starting {
		return nil
	}
	return l.put(ctx, wire.Event{Pull: describePull(p)})
}

// describePull returns how a pull is getting on as our JSON.
func describePull(p pull.Progress) *wire.Pull {
	return &wire.Pull{
		Model: p.Model, Backend: p.Backend, State: string(p.State), Note: p.Note, Status: p.Step.Status, Network: string(p.Network),
		CompletedBytes: p.Completed, TotalBytes: p.Total, BytesPerSecond: math.Round(p.Rate), SecondsLeft: math.Round(p.Left.Seconds()*10) / 10,
	}
}

// ollamaPull fetches a model in Ollama's dialect.
func (s *Server) ollamaPull(w http.ResponseWriter, r *http.Request) {
	user, err := s.asks(r, false)
	if err != nil {
		fail(w, err)
		return
	}
	o, whole, err := s.ollamaOrder(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	o.ByClient = !user
	w.Header().Set("X-Backend-Used", o.Backend)
	out := &ollamaLines{lines: s.lines(w), whole: whole}
	err = s.Puller.Pull(r.Context(), o, func(p pull.Progress) error { return out.tell(r.Context(), p) })
	switch {
	case err != nil:
		out.fail(r.Context(), err, func(e *wire.Error) any { return e })
	case whole:
		reply(w, http.StatusOK, api.ProgressResponse{Status: success})
	default:
		_ = out.put(r.Context(), api.ProgressResponse{Status: success})
	}
}

// ollamaOrder reads what a client asks for in Ollama's dialect, and whether it
// wants to hear of the end alone.
func (s *Server) ollamaOrder(w http.ResponseWriter, r *http.Request) (o pull.Order, whole bool, err error) {
	body, err := s.readBody(w, r)
	if err != nil {
		return o, false, err
	}
	var q struct {
		Model, Name string
		Insecure    bool
		Stream      *bool
	}
	if err := decode(body, &q); err != nil {
		return o, false, err
	}
	var ours struct {
		Anyway bool `json:"anyway"`
	}
	_, own, err := takeOwn(body)
	if err == nil && bytes.HasPrefix(own, []byte("{")) {
		err = decodeStrictly(own, &ours)
	}
	if err != nil {
		return o, false, err
	}
	o, err = s.order(r, cmp.Or(q.Model, q.Name), "")
	o.Insecure, o.Anyway = q.Insecure, ours.Anyway
	return o, q.Stream != nil && !*q.Stream, err
}

// success is Ollama's word for a model that is there.
const success = "success"

// ollamaLines tells how a pull is getting on in Ollama's words.
type ollamaLines struct {
	*lines
	whole bool // nothing is to be told before the end
	told  api.ProgressResponse
}

func (l *ollamaLines) tell(ctx context.Context, p pull.Progress) error {
	now := api.ProgressResponse{Status: p.Step.Status, Digest: p.Step.Digest, Total: p.Step.Total, Completed: p.Step.Completed}
	if p.State == pull.Paused || p.State == pull.Retrying {
		now = api.ProgressResponse{Status: string(p.State) + ": " + p.Note}
	}
	if l.whole || p.Ended() || now == l.told || now.Status == "" || now.Status == success {
		return nil
	}
	l.told = now
	return l.put(ctx, now)
}
