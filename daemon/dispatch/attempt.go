package dispatch

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/route"
)

// attempt runs the job on one backend.
func (r *run) attempt(ctx context.Context, b *backend.Backend, d route.Decision) error {
	m := b.Model(r.job.Model)
	if r.job.Kind == job.Embed && r.digest == "" && m != nil {
		r.digest = m.Digest
	}
	r.source = placeOf(b, r.job.Model, m)
	ctx, cancel := context.WithCancelCause(ctx)
	took := r.take(ctx, b)
	if r.attempts++; r.attempts == 1 {
		r.queued = took.start.Sub(r.job.Arrived)
	}
	defer took.end(ctx, job.Usage{}) // if it panics
	v := keepVigil(ctx, b.Server().Ping, r.limits(b), cancel)
	r.lines.join(b.ID, v)
	defer r.lines.leave(b.ID, v)
	defer v.end()
	defer cancel(nil)

	begin := func(h job.Head) error {
		took.first, r.begun, took.refused = time.Now(), true, h.Status >= 400
		v.begun.Store(true)
		v.pause()
		defer v.heard()
		return r.sink.Begin(h)
	}
	emit := func(c job.Chunk) error {
		var report *Report
		if c.Last {
			took.end(ctx, c.Usage)
			report = r.report(d, took)
			r.told = report
		} else if r.job.Stream {
			took.span.Tokens(ctx, c.Pieces)
		}
		v.pause()
		defer v.heard()
		return r.sink.Chunk(ctx, c, report)
	}
	err := b.Server().Stream(ctx, r.job, begin, emit)
	took.end(ctx, job.Usage{})
	entry := r.entry(took, err)
	r.Ledger.Record(entry)
	r.Observer.Attempted(&entry)
	if took.cost.Known() {
		r.Spent(r.job.Client, took.cost.Energy)
	}
	r.refused = took.refused
	switch {
	case err != nil:
		r.spent = r.spent.Plus(took.cost)
		r.blame(ctx, b, err)
	case !took.refused:
		r.Backends.Served(b.ID, r.job.Model, took.first.Sub(took.start), cmp.Or(r.job.KeepAlive, r.job.KeepAsked))
	}
	r.ended(plan.Outcome{Usage: took.usage, Failed: err != nil || took.refused})
	if err == nil && !took.refused {
		r.watchHeld(b)
	}
	return err
}

// blame tells of a failure that is the backend's.
func (r *run) blame(ctx context.Context, b *backend.Backend, err error) {
	if !worthAnother(err) || errors.Is(err, job.Unsupported) {
		return
	}
	r.Backends.Failed(b.ID, err)
	if !r.begun {
		r.Log.LogAttrs(ctx, slog.LevelWarn, "backend failed before the first token",
			slog.String("job", r.job.ID), slog.String("backend", b.ID), slog.Any("err", err))
	}
}

// leastLimit is the shortest time after which a server that gives signs of
// life is taken for having a frozen runner.
const leastLimit = 10 * time.Second

// limits returns how long the backend may be silent: three times as long as it
// is predicted to be, and before that as long as a load may take.
func (r *run) limits(b *backend.Backend) limits {
	c := b.Candidate(r.job.Model)
	r.learn(r.settings, &c, job.CanonicalModel(r.job.Model), r.now.Supply.Discharging)
	e := c.Estimate(&r.job, float64(r.job.MostTokens()))
	first, whole := e.FirstToken-e.Load, e.Total-e.Load
	if !r.job.Stream || r.job.Tools {
		// The answer begins when it is complete, or when it is clear that
		// there is no call of a tool in it.
		first = whole
	}
	l := limits{headers: max(leastLimit, 3*first), stream: max(leastLimit, 3*whole), sign: pingPatience}
	if b.Remote() {
		l.sign = farPatience
	}
	// Whether a server elsewhere has to load a model, or has others to answer first,
	// nobody tells us.
	if b.Remote() || e.Load > 0 || c.Model != nil && r.job.MayReload(*c.Model) {
		l.headers += r.settings.LoadLimit
	} else {
		// Since we asked, the server may have let go of the model.
		l.headers = max(l.headers, 3*(first+c.LoadTime()))
	}
	return l
}
