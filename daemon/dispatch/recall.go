package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/cache"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// answer gives the job the answer that was given before or is being given to
// another, or else has it run.
func (r *run) answer(ctx context.Context) error {
	if err := r.admit(); err != nil {
		return err
	}
	key, may := r.Cache.Key(&r.job)
	if !may {
		return r.run(ctx)
	}
	places := r.places(ctx)
	given, from, flight := r.flights.board(ctx, r, key, places)
	if flight != nil {
		return r.fly(ctx, flight)
	}
	return r.recall(ctx, given, from)
}

// places returns where an answer may be from to do for the job: the weights and
// device of every backend that it may mean, be it down.
func (r *run) places(ctx context.Context) (places []cache.Place) {
	r.now = r.Tiers.Look(ctx)
	var backends backend.Snapshot
	if r.mustWait() {
		backends = r.Backends.Current() // nobody need be asked for it
	} else {
		backends = r.Backends.Wanted(ctx)
	}
	r.flights.forget(backends)
	names := r.settings.names(r.job.Model, r.job.Target, r.now.Tier, backends)
	if len(names) == 0 {
		return nil
	}
	for i := range backends {
		b := &backends[i]
		c := b.Candidate(names[0])
		if !r.job.AnyTarget() && !c.Named(r.job.Target) {
			continue
		}
		if p := placeOf(b, names[0], c.Model); p.Digest != "" {
			places = append(places, p)
		}
	}
	return places
}

// placeOf returns where an answer of that backend is from. Its digest is "" if
// nobody would know when the weights change.
func placeOf(b *backend.Backend, name string, m *job.Model) cache.Place {
	p := cache.Place{Model: name, Class: b.Class}
	if m != nil && !m.Assumed {
		p.Digest = m.Digest
	}
	return p
}

// recall gives the client an answer that was given before: the pieces of a
// stream all at once, but for the last.
func (r *run) recall(ctx context.Context, a *cache.Answer, from cache.Place) error {
	r.job.Model = from.Model
	r.decision = route.Borrow(a.Backend, from.Class, r.now.Tier, fmt.Sprintf("answered before, %.0f s ago", time.Since(a.Made).Seconds()))
	r.sink.Routed(r.decision)
	if err := r.sink.Begin(a.Head); err != nil {
		return err
	}
	if a.Last > 0 {
		if err := r.sink.Chunk(ctx, r.piece(a.Data[:a.Last]), nil); err != nil {
			return err
		}
	}
	waited := time.Since(r.job.Arrived)
	report := &Report{
		ID: r.job.ID, Model: from.Model, Decision: r.decision, TierReason: r.now.Reason, Usage: a.Usage,
		Queued: waited, FirstToken: waited, Total: waited, Cost: power.Cost{Quality: power.None},
	}
	r.told = report
	last := r.piece(a.Data[a.Last:])
	last.Vectors, last.Last, last.Usage = a.Vectors, true, a.Usage
	if err := r.sink.Chunk(ctx, last, report); err != nil {
		return err
	}
	r.Ledger.Record(r.borrowed(report))
	return nil
}

// piece returns a piece of an answer as the job wants it. Whoever adds something
// to it makes a copy.
func (r *run) piece(data []byte) job.Chunk {
	if r.job.Original == nil {
		return job.Chunk{Text: string(data)}
	}
	return job.Chunk{Raw: data[:len(data):len(data)]}
}

// borrowed is what the ledger is to keep of a job that got the answer to another.
func (r *run) borrowed(report *Report) ledger.Entry {
	e := ledger.Entry{
		ID: r.job.ID, Arrived: r.job.Arrived, Ended: time.Now(),
		Backend: ledger.Cache, Model: job.CanonicalModel(report.Model), Hardware: report.Decision.Class,
		Kind: r.job.Kind, Client: r.job.Client, Class: r.job.Class, Completion: r.job.Completion,
		Tier: r.now.Tier, OnBattery: r.now.Supply.Discharging,
		PromptTokens: report.Usage.PromptTokens, Tokens: report.Usage.Tokens, MaxTokens: r.job.MaxTokens,
		FirstToken: report.FirstToken, Total: report.Total, Cost: report.Cost,
	}
	if r.refused {
		e.Failed = job.Invalid
	}
	return e
}
