package route

import (
	"math"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// Job returns the job as it was weighed: with the model that was chosen for it,
// and the lengths that answers to its like had. Of the zero Decision it is the
// zero Job.
func (d Decision) Job() job.Job {
	if d.weigher == nil {
		return job.Job{}
	}
	return d.weigher.job
}

// Worth returns what a second is worth to the job, in watts: nothing where
// joules alone count, and infinitely much where seconds alone do.
func (d Decision) Worth() float64 {
	switch w := d.weigher; {
	case w == nil || w.by == byEnergy:
		return 0
	case w.by == byTime:
		return math.Inf(1)
	default:
		return w.rule.Worth.Watts()
	}
}

// Waits reports whether the job is not run on this tier, but waits for a better
// one, where it is decided anew.
func (d Decision) Waits() bool {
	return d.weigher != nil && d.weigher.job.Class == job.Background && d.weigher.rule.Background == Wait
}

// Reckoned reports whether the estimate says anything: what a backend that has
// not got the model would need is not known.
func (o *Option) Reckoned() bool { return o.Model != nil }

// Work is what of the estimate is for reading the prompt and writing the answer.
func (o *Option) Work() power.Energy {
	return o.Estimate.Energy - o.Estimate.LoadEnergy - o.Estimate.Tail
}
