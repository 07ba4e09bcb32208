package dispatch

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/tracker"
)

// run is one job under way.
type run struct {
	*Dispatcher
	settings *Settings
	job      job.Job
	sink     Sink

	now      tracker.Snapshot // the tier that the job is decided by
	decision route.Decision   // the latest
	digest   string           // of the model, for embeddings
	failures []Failure
	spent    power.Cost // by attempts that failed
	begun    bool
}

// Failure is an attempt that did not answer.
type Failure struct {
	Backend string
	Err     error
}

// run takes the job from admission to its end.
func (r *run) run(ctx context.Context) error {
	if refusal := r.settings.Refusal; refusal != nil {
		return refusal
	}
	if most := r.settings.MaxPrompt; most > 0 && r.job.PromptBytes > most {
		return job.Errorf(job.PromptTooLarge, "%d bytes of text, the limit is %d", r.job.PromptBytes, most)
	}
	if err := r.admit(ctx); err != nil {
		return err
	}
	backends := r.Backends.Wanted(ctx)
	for searched := false; ; {
		d, err := r.decide(ctx, backends)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !searched:
			backends, searched = r.Backends.Search(ctx), true
			continue
		case len(r.failures) > 0:
			return r.failed(err)
		default:
			return err
		}
		b, _ := backends.Find(d.Backend)
		r.decision = d
		r.sink.Routed(d)
		err = r.attempt(ctx, b, d)
		switch {
		case err == nil || !worthAnother(err):
			return err
		case r.begun:
			return of(d.Backend, err)
		}
		r.failures = append(r.failures, Failure{d.Backend, err})
		backends = r.Backends.Current()
	}
}

// maxWaiting bounds how many background jobs wait for a better tier.
const maxWaiting = 256

// admit returns when the tier lets the job run. Only background jobs wait.
func (r *run) admit(ctx context.Context) error {
	r.now = r.Tiers.Look(ctx)
	if !r.mustWait() {
		return nil
	}
	defer r.waiting.Add(-1)
	if r.waiting.Add(1) > maxWaiting {
		return job.Errorf(job.Busy, "%d background jobs already wait for a better tier than %v", maxWaiting, r.now.Tier)
	}
	if r.await(ctx) {
		return nil
	}
	var passed *job.Error
	if errors.As(context.Cause(ctx), &passed) && passed.Code == job.DeadlinePassed {
		return job.Errorf(job.DeadlinePassed, "%s, waiting for a better tier than %v", passed.Detail, r.now.Tier)
	}
	return context.Cause(ctx)
}

// lookAgain is how often a job that waits looks how the machine is powered,
// where nobody reports that.
const lookAgain = time.Minute

// await reports whether the job may run before ctx ends: because the tier has
// changed, or what the user wants of it.
func (r *run) await(ctx context.Context) bool {
	ctx, stop := context.WithCancel(ctx)
	changed := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	watching.Go(func() { signal(changed, r.Tiers.Watch(ctx)) })
	watching.Go(func() { signal(changed, r.Dispatcher.settings.Watch(ctx)) })
	for r.mustWait() {
		var look <-chan time.Time
		if !r.now.Reported {
			look = time.After(lookAgain)
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		case <-look:
		}
		r.settings, r.now = r.Dispatcher.settings.Current(), r.Tiers.Look(ctx)
	}
	return true
}

// signal puts a token into changed for each version, unless one is there.
func signal[T any](changed chan<- struct{}, versions iter.Seq[T]) {
	for range versions {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

func (r *run) mustWait() bool {
	return r.job.Class == job.Background && r.settings.Rules.For(r.now.Tier).Background == route.Wait
}

// decide chooses among the backends that have not failed the job yet.
func (r *run) decide(ctx context.Context, backends backend.Snapshot) (route.Decision, error) {
	if len(r.failures) > 0 {
		r.now = r.Tiers.Look(ctx) // a fallback is decided by the tier of its own moment
	}
	j := r.job
	j.Waited = time.Since(j.Arrived)
	d, model, err := r.settings.decide(r.now.Tier, j, backends, r.candidates)
	switch e := (*job.Error)(nil); {
	case err == nil && r.job.Model == "":
		r.job.Model, r.job.Chosen = model, true
	case errors.As(err, &e) && e.Code == job.ModelNotFound:
		e.Detail += list(backends)
	}
	return d, err
}

// candidates returns the backends as they look to the job, with those that
// failed it left out.
func (r *run) candidates(backends backend.Snapshot, model string) []job.Candidate {
	candidates := r.Dispatcher.candidates(r.settings, backends, model, r.now.Supply.Discharging)
	for i := range candidates {
		c := &candidates[i]
		for _, f := range r.failures {
			if f.Backend == c.ID || slices.Contains(c.Aliases, f.Backend) { // the id may have changed since
				c.Healthy, c.Problem = false, f.Err.Error()
			}
		}
		// Vectors of different weights cannot be compared, even if the models
		// have the same name.
		if r.digest != "" && c.Model != nil && c.Model.Digest != r.digest {
			c.Model = nil
		}
	}
	return candidates
}

// list says which models there are.
func list(backends backend.Snapshot) string {
	models := backends.Models()
	if len(models) == 0 {
		return "; no backend has any"
	}
	return "; there are " + strings.Join(models, ", ")
}

// worthAnother reports whether another backend might do better.
func worthAnother(err error) bool {
	return errors.Is(err, job.BackendFailed) || errors.Is(err, job.Busy) || errors.Is(err, job.ModelNotFound)
}

// of returns an error with the name of the backend that it is of.
func of(id string, err error) *job.Error {
	var e *job.Error
	if !errors.As(err, &e) {
		return &job.Error{Code: job.BackendFailed, Detail: id, Err: err}
	}
	named := *e
	named.Detail = id
	if e.Detail != "" {
		named.Detail += ": " + e.Detail
	}
	return &named
}

// failed returns the error of a job that every candidate has failed; refusal
// tells why there is no other. If there is no other backend, the words of the
// one are the best there are.
func (r *run) failed(refusal error) error {
	all := &job.Error{Code: job.BackendFailed, Detail: "every candidate failed", Refused: make(map[string]string)}
	if e := (*job.Error)(nil); errors.As(refusal, &e) {
		maps.Copy(all.Refused, e.Refused)
	}
	busy := true
	for _, f := range r.failures {
		all.Refused[f.Backend] = f.Err.Error()
		busy = busy && errors.Is(f.Err, job.Busy)
	}
	if busy {
		all.Code = job.Busy
	}
	if len(r.failures) > 1 {
		return all
	}
	only := of(r.failures[0].Backend, r.failures[0].Err)
	if len(all.Refused) > 1 {
		only.Detail, only.Refused, only.Err = "the only candidate failed", all.Refused, nil
	}
	return only
}

// finish turns whatever ended the job into a *job.Error, and logs it.
func (r *run) finish(ctx context.Context, err error) error {
	var e *job.Error
	switch {
	case err == nil:
		r.Log.LogAttrs(ctx, slog.LevelDebug, "job done",
			slog.String("job", r.job.ID), slog.String("backend", r.decision.Backend), slog.String("model", r.job.Model),
			slog.String("reason", r.decision.Reason()), slog.Duration("after", time.Since(r.job.Arrived)))
		return nil
	case errors.As(err, &e), errors.As(context.Cause(ctx), &e):
	case errors.Is(err, context.Canceled), ctx.Err() != nil:
		e = &job.Error{Code: job.Cancelled, Detail: "the client is gone"}
	default:
		// Neither ours nor the context's: the sink could not take a chunk.
		e = &job.Error{Code: job.Cancelled, Detail: "the answer cannot be delivered", Err: err}
	}
	r.Log.LogAttrs(ctx, slog.LevelInfo, "job failed",
		slog.String("job", r.job.ID), slog.String("code", string(e.Code)), slog.Any("err", e), slog.Duration("after", time.Since(r.job.Arrived)))
	return e
}
