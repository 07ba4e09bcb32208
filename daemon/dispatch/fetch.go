package dispatch

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/pull"
	"github.com/joulemux/joulemux/power"
)

// Fetcher gets models. *pull.Puller does.
type Fetcher interface {
	Pull(ctx context.Context, o pull.Order, each func(pull.Progress) error) error
}

// AutoPull is what becomes of a job whose model no backend has.
type AutoPull string

// It fails, or fails with how to fetch the model, or waits until it is fetched.
const (
	NeverPull AutoPull = "never"
	AskToPull AutoPull = "ask"
	PullOn    AutoPull = "on"
)

// A Waiter is a Sink whose client is told how the model gets on for which its job
// waits. An error means that the client is gone.
type Waiter interface {
	Fetching(pull.Progress) error
}

// howToFetch says how a model is fetched, if the user wants that said.
func (s *Settings) howToFetch(model string) string {
	if s.AutoPull != AskToPull || model == "" {
		return ""
	}
	return "; to fetch it: joulemux pull " + model
}

// mayFetch reports whether a job that failed with err can be helped by fetching
// its model. Vectors of one job are all by one model, which there was.
func (r *run) mayFetch(err error) bool {
	return r.settings.AutoPull == PullOn && r.Fetcher != nil && r.job.Model != "" && !r.fetched &&
		r.digest == "" && len(r.failures) == 0 && errors.Is(err, job.ModelNotFound)
}

// fetch has the model fetched by the backend on which the job would run.
func (r *run) fetch(ctx context.Context, backends backend.Snapshot) error {
	r.fetched = true
	id, err := r.home(r.job, r.settings, backends, r.now.Tier, r.now.Supply.Discharging)
	if err != nil {
		return notFetched(r.job.Model, err)
	}
	waiter, tells := r.sink.(Waiter)
	err = r.Fetcher.Pull(ctx, pull.Order{Backend: id, Model: r.job.Model, ByClient: true}, func(p pull.Progress) error {
		if tells {
			return waiter.Fetching(p)
		}
		return nil
	})
	if errors.Is(err, job.PowerPolicy) || errors.Is(err, job.Forbidden) {
		return notFetched(r.job.Model, err)
	}
	return err
}

// notFetched is the error for a model that could be fetched at another time, or by
// another.
func notFetched(model string, why error) error {
	e := &job.Error{Code: job.ModelNotFound, Field: "model", Detail: model + " is on no backend, and is not fetched now", Err: why}
	if cause := (*job.Error)(nil); errors.As(why, &cause) {
		e.Refused = cause.Refused
	}
	return e
}

// Home returns the backend that is to fetch a model: the target if one is named,
// or else where an ordinary job for that model would go now, did all have it that
// can fetch it.
func (d *Dispatcher) Home(ctx context.Context, model, target string) (id string, err error) {
	j := job.Job{Kind: job.Chat, Model: model}
	j.Class, j.Target, j.Arrived = job.Interactive, target, time.Now()
	s := d.settings.Current()
	if s.Refusal != nil {
		return "", s.Refusal
	}
	now := d.Tiers.Look(ctx)
	return d.home(j, s, d.Backends.Search(ctx), now.Tier, now.Supply.Discharging)
}

func (d *Dispatcher) home(j job.Job, s *Settings, backends backend.Snapshot, tier power.Tier, onBattery bool) (string, error) {
	candidates := d.candidates(s, backends, j.Model, onBattery)
	able, healthy := false, false
	for i := range candidates {
		c := &candidates[i]
		c.Model = nil
		healthy = healthy || c.Healthy
		if b := backends[i]; !b.Remote() && !slices.Contains(b.Facts.Lacks, "pull") {
			c.Model = &job.Model{Name: j.Model}
			able = able || c.Healthy
		}
	}
	if j.AnyTarget() && healthy && !able {
		return "", job.Errorf(job.Unsupported, "no backend that answers can fetch a model")
	}
	found, err := d.weigh(plan.Ask{Job: j, Candidates: candidates, Tier: tier, OnBattery: onBattery})
	if errors.Is(err, job.ModelNotFound) {
		return "", job.Errorf(job.Unsupported, "no backend that may run %s can fetch a model", j.Model)
	}
	return found.Backend, err
}
