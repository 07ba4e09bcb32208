package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/cache"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/quota"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/tracker"
)

// run is one job under way.
type run struct {
	*Dispatcher
	settings *Settings
	job      job.Job
	account  *quota.Account // on which it is counted
	sink     Sink

	now      tracker.Snapshot // the tier that the job is decided by
	decision route.Decision   // the latest
	digest   string           // of the model, for embeddings
	source   cache.Place      // where the answer is from
	reader   *reader          // of a flight
	failures []Failure
	spent    power.Cost // by attempts that failed
	begun    bool
	attempts int
	queued   time.Duration    // until the first attempt
	refused  bool             // by a backend, as malformed
	told     *Report          // with the last chunk
	code     job.Code         // why there is none
	over     bool             // and not by a panic
	fetched  bool             // that its model was fetched, for it or for others
	turn     chan plan.Effect // what the plan has to say while the job waits
	// seat is the job's name in the plan; "" while it has no place there.
	seat string
}

// Failure is an attempt that did not answer.
type Failure struct {
	Backend string
	Err     error
}

// admit returns why the job is not to be answered, if it is not.
func (r *run) admit() error {
	if refusal := r.settings.Refusal; refusal != nil {
		return refusal
	}
	if most := r.settings.MaxPrompt; most > 0 && r.job.PromptBytes > most {
		return job.Errorf(job.PromptTooLarge, "%d bytes of text, the limit is %d", r.job.PromptBytes, most)
	}
	return nil
}

// run takes the job from where it has been admitted to its end.
func (r *run) run(ctx context.Context) error {
	// A sink or a server may panic, and whoever called may live on.
	defer func() { r.ended(plan.Outcome{Failed: true}) }()
	for {
		b, err := r.slot(ctx)
		if err != nil {
			return err
		}
		r.sink.Routed(r.decision)
		err = r.attempt(ctx, b, r.decision)
		switch {
		case err == nil || !worthAnother(err):
			return err
		case r.begun:
			return of(b.ID, err)
		}
		r.failures = append(r.failures, Failure{b.ID, err})
	}
}

// slot returns the backend that the job may begin on now, which may take until
// its turn comes, or the tier lets it run.
func (r *run) slot(ctx context.Context) (*backend.Backend, error) {
	for searched, told := false, plan.Reconsider; ; {
		r.now = r.Tiers.Look(ctx)
		var backends backend.Snapshot
		switch {
		case r.mustWait(): // nobody need be asked for it
		case searched:
			backends = r.Backends.Search(ctx)
		case told == plan.Start || len(r.failures) > 0:
			backends = r.Backends.Current()
		default:
			backends = r.Backends.Wanted(ctx)
		}
		p, err := r.decide(ctx, backends)
		switch {
		case err == nil && p.Started:
			if b := r.begin(backends, p); b != nil {
				return b, nil
			}
		case err == nil:
			if told, err = r.wait(ctx, p); err != nil {
				return nil, err
			}
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case !searched && !errors.Is(err, job.Busy):
			searched = true
		case r.mayFetch(err):
			if err := r.fetch(ctx, backends); err != nil {
				return nil, err
			}
		case len(r.failures) > 0:
			return nil, r.failed(err)
		default:
			return nil, err
		}
	}
}

// begin takes the slot that the plan gave, unless its backend went while the job
// stood in the line.
func (r *run) begin(backends backend.Snapshot, p plan.Placement) *backend.Backend {
	b := backends.Find(p.Decision.Backend)
	if b == nil {
		r.ended(plan.Outcome{Failed: true})
		return nil
	}
	r.decision, r.job.KeepAlive = p.Decision, p.KeepAlive
	return b
}

// wait returns when the job is to be placed again, and why.
func (r *run) wait(ctx context.Context, p plan.Placement) (told plan.EffectKind, err error) {
	select {
	case e := <-r.turn:
		r.settings = r.Dispatcher.settings.Current()
		return e.Kind, nil
	case <-r.desk.closed:
		return told, errClosed()
	case <-ctx.Done():
	}
	why := context.Cause(ctx)
	var passed *job.Error
	if !errors.As(why, &passed) || passed.Code != job.DeadlinePassed {
		return told, why
	}
	if p.Decision.Backend == "" {
		return told, job.Errorf(job.DeadlinePassed, "%s, waiting for a better tier than %v", passed.Detail, r.now.Tier)
	}
	return told, job.Errorf(job.DeadlinePassed, "%s, waiting in line for %s", passed.Detail, p.Decision.Backend)
}

func (r *run) mustWait() bool {
	return r.job.Class == job.Background && r.settings.Rules.For(r.now.Tier).Background == route.Wait
}

// decide has the job placed among the backends that have not failed it yet, with
// the first model that will do if it names none.
func (r *run) decide(ctx context.Context, backends backend.Snapshot) (p plan.Placement, err error) {
	names := r.settings.names(r.job.Model, r.job.Target, r.now.Tier, backends)
	err = errNoModel()
	for i, name := range names {
		j := r.job
		j.Model = name
		found, why := r.place(ctx, j, r.candidates(backends, name))
		if why == nil {
			if r.job.Model == "" && !r.mustWait() {
				r.job.Model, r.job.Chosen = name, true
			}
			return found, nil
		}
		if i == 0 {
			err = why
		}
	}
	if e := (*job.Error)(nil); errors.As(err, &e) && e.Code == job.ModelNotFound {
		e.Detail += list(backends) + r.settings.howToFetch(r.job.Model)
	}
	return p, err
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
	return errors.Is(err, job.BackendFailed) || errors.Is(err, job.Busy) || errors.Is(err, job.ModelNotFound) || errors.Is(err, job.Unsupported)
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
	busy, unsupported := true, true
	for _, f := range r.failures {
		all.Refused[f.Backend] = f.Err.Error()
		busy = busy && errors.Is(f.Err, job.Busy)
		unsupported = unsupported && errors.Is(f.Err, job.Unsupported)
	}
	switch {
	case busy:
		all.Code = job.Busy
	case unsupported:
		all.Code = job.Unsupported
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
	r.over = true
	var e *job.Error
	switch {
	case err == nil:
		if r.refused {
			r.code = job.Invalid
		}
		if r.Log.Enabled(ctx, slog.LevelDebug) { // the reason takes a while to put into words
			r.Log.LogAttrs(ctx, slog.LevelDebug, "job done",
				slog.String("job", r.job.ID), slog.String("backend", r.decision.Backend), slog.String("model", r.job.Model),
				slog.String("reason", r.decision.Reason()), slog.Duration("after", time.Since(r.job.Arrived)))
		}
		return nil
	case errors.As(err, &e), errors.As(context.Cause(ctx), &e):
	case errors.Is(err, context.Canceled), ctx.Err() != nil:
		e = &job.Error{Code: job.Cancelled, Detail: "the client is gone"}
	default:
		// Neither ours nor the context's: the sink could not take a chunk.
		e = &job.Error{Code: job.Cancelled, Detail: "the answer cannot be delivered", Err: err}
	}
	r.code = e.Code
	r.Log.LogAttrs(ctx, slog.LevelInfo, "job failed",
		slog.String("job", r.job.ID), slog.String("code", string(e.Code)), slog.Any("err", e), slog.Duration("after", time.Since(r.job.Arrived)))
	return e
}
