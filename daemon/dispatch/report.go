package dispatch

import (
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// Report is what there is to say of a job that was answered.
type Report struct {
	ID         string
	Model      string
	Decision   route.Decision
	TierReason power.Reason
	Usage      job.Usage
	// FirstToken and Total count from the job's arrival, and so does Queued: until
	// it was given to the backend that answered.
	Queued, FirstToken, Total time.Duration
	// Cost includes what failed attempts took.
	Cost power.Cost
	// Price is what a remote server charges for the answer; zero of one that has no
	// price, as those of this machine.
	Price job.Money
	// Failures are the attempts before the one that answered.
	Failures []Failure
}

// FromCache reports whether the answer is that to another job.
func (r Report) FromCache() bool { return r.Decision.Borrowed != "" }

// report returns the report of a job that d answers, with its last chunk.
func (r *run) report(d route.Decision, t *taken) *Report {
	return &Report{
		ID: r.job.ID, Model: r.job.Model, Decision: d, TierReason: r.now.Reason, Usage: t.usage,
		Queued: t.start.Sub(r.job.Arrived), FirstToken: t.first.Sub(r.job.Arrived), Total: t.ended.Sub(r.job.Arrived),
		Cost: r.spent.Plus(t.cost), Price: t.price(), Failures: r.failures,
	}
}

// TokensPerSecond returns the rate at which the backend wrote the answer, by
// its own count and clock, or zero if it told neither.
func (r Report) TokensPerSecond() float64 {
	if r.Usage.Decode <= 0 {
		return 0
	}
	return float64(r.Usage.Tokens) / r.Usage.Decode.Seconds()
}
