package dispatch

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
)

// taken is what an attempt takes.
type taken struct {
	id      string
	backend *backend.Backend
	span    *meter.Span
	start   time.Time
	// resident tells that the model was in memory before, as far as is known.
	resident bool
	first    time.Time // when the answer began; zero if it did not
	refused  bool      // the answer is a refusal of the request

	// The rest is known when it is over.
	over  bool
	ended time.Time
	usage job.Usage
	cost  power.Cost
}

// take begins to meter an attempt. The first has the job's id, and those after
// it a number behind it.
func (r *run) take(ctx context.Context, b *backend.Backend) *taken {
	id := r.job.ID
	if n := len(r.failures); n > 0 {
		id += "." + strconv.Itoa(n+1)
	}
	work := meter.Work{
		ID: id, Backend: b.ID, Client: r.job.Client, Class: b.Class, Draw: b.Profile.Draw,
		Learned: r.learnedDraw(b.ID, r.job.Model, r.settings, r.now.Supply.Discharging),
		Held:    b.Holds(),
	}
	m := b.Model(r.job.Model)
	return &taken{
		id: id, backend: b, start: time.Now(), resident: m != nil && m.Resident,
		span: r.Meter.Begin(ctx, work),
	}
}

// end ends the metering, once.
func (t *taken) end(ctx context.Context, u job.Usage) {
	if t.over {
		return
	}
	t.over, t.usage = true, u
	worked := u.Load + u.Prefill + u.Decode
	if u.Decode == 0 { // it does not tell
		worked = 0
	}
	t.cost, t.ended = t.span.End(ctx, u.Load, worked), time.Now()
}

// price is what a remote server charges for the attempt: nothing for what it has
// refused.
func (t *taken) price() job.Money {
	if t.refused || t.first.IsZero() {
		return job.Money{Currency: t.backend.Price.Currency}
	}
	return t.backend.Price.Of(t.usage)
}

// entry is what the ledger is to keep of an attempt that ended with err.
func (r *run) entry(t *taken, err error) ledger.Entry {
	e := ledger.Entry{
		ID: t.id, Arrived: r.job.Arrived, Ended: t.ended,
		Backend: t.backend.ID, Model: job.CanonicalModel(r.job.Model), Hardware: t.backend.Class,
		Kind: r.job.Kind, Client: r.job.Client, Class: r.job.Class, Completion: r.job.Completion,
		Tier: r.now.Tier, OnBattery: r.now.Supply.Discharging,
		PromptTokens: t.usage.PromptTokens, Cached: t.usage.Cached, Tokens: t.usage.Tokens, MaxTokens: r.job.MaxTokens,
		Load: t.usage.Load, Prefill: t.usage.Prefill, Decode: t.usage.Decode,
		Total: t.ended.Sub(t.start), Cost: t.cost, Price: t.price(), Failed: failure(t, err),
	}
	if !t.resident && e.Load == 0 {
		// The server does not tell what it took to load the model, and so the time
		// until it wrote is not of reading alone.
		e.Prefill = 0
	}
	if e.Cached == 0 && 2*r.decision.Options[0].Held > r.job.PromptBytes {
		e.Cached = e.PromptTokens // An Ollama does not tell. Who read it all would seem as fast as who read the end of it.
	}
	e.Cost.Tail = t.span.Tail() // Where the client reads the end late, it has been told already.
	if !t.first.IsZero() {
		e.FirstToken = t.first.Sub(t.start)
	}
	return e
}

// failure is why an attempt gave no whole answer, or "".
func failure(t *taken, err error) job.Code {
	var e *job.Error
	switch {
	case err == nil && t.refused:
		return job.Invalid
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	default:
		return job.Cancelled // the client's end, or the daemon's
	}
}
