// Package route decides where a job runs: from the tier, the job and the
// candidates to a decision with its reason. It is pure.
//
// The choice is the candidate with the least cost, which is predicted joules
// plus w times predicted seconds, among those that meet every constraint. What
// a second is worth, w, is the tier's. Because candidates are weighed one by
// one and never against each other, removing a loser never changes the choice.
// How costs are predicted, and what the outcome hangs on, is in design.md.
package route

import (
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// DiscreteGPU says which jobs a tier lets run on a discrete GPU. Waking one,
// and the seconds for which it then stays awake, can cost more than the job.
type DiscreteGPU string

// The rules for discrete GPUs.
const (
	Always          DiscreteGPU = "always"
	InTime          DiscreteGPU = "in-time"          // jobs that are in time nowhere else, and the following
	LatencyCritical DiscreteGPU = "latency-critical" // those jobs, and named
	Named           DiscreteGPU = "named"            // jobs whose target it is
	Never           DiscreteGPU = "never"
)

// Background says what becomes of background jobs on a tier.
type Background string

// The rules for background jobs.
const (
	Run    Background = "run"
	Wait   Background = "wait" // until the tier is better
	Refuse Background = "refuse"
)

// Rule is what a tier asks of routing.
type Rule struct {
	// Worth is what a second of waiting is worth, as a power: joules that may
	// be spent to save it.
	Worth       power.Power
	DiscreteGPU DiscreteGPU
	Background  Background
}

// Rules are the user's choices about routing.
type Rules struct {
	Tiers map[power.Tier]Rule
	// PowerAware false takes every tier for mains, and the default backend
	// for everything that asks for nothing else.
	PowerAware bool
	// OptimizeLatency false ignores that a job is latency-critical.
	OptimizeLatency bool
	// DefaultBackend goes first among equals.
	DefaultBackend string
	// Chat, Completion and Background are when the last token is due of jobs
	// that name no deadline.
	Chat, Completion, Background Due
	// MayMiss is how probable it may be that an answer comes too late, where
	// another backend is likelier to be in time; InTime is what it is worth,
	// within that, that an answer is in time. Both were chosen by simulation
	// ("joulemux simulate"): so 1 in 100 answers of a generated day is late.
	MayMiss float64
	InTime  power.Energy
	// Samples is from how many jobs a backend must be known to be judged by
	// what is known alone, and Curiosity by which part one of which nothing is
	// known is taken to be cheaper than is assumed.
	Samples   int
	Curiosity float64
}

// Due is when the last token of an answer is due, from the job's arrival: so
// late, and so much later for each token of it.
type Due struct{ After, PerToken time.Duration }

// due returns when j's last token is; the zero Due is never.
func (r *Rules) due(j *job.Job) Due {
	switch {
	case j.Deadline > 0:
		return Due{After: j.Deadline}
	case j.Kind == job.Embed && j.Class != job.Background:
		return Due{After: r.Completion.After}
	case j.Class == job.Background:
		return r.Background
	case j.Completion:
		return r.Completion
	default:
		return r.Chat
	}
}

// DueAt returns when j's last token is due if its answer has the expected
// length; zero is never.
func (r *Rules) DueAt(j *job.Job) time.Time {
	due := r.due(j)
	if due == (Due{}) {
		return time.Time{}
	}
	after := due.After
	if due.PerToken > 0 {
		after += time.Duration(j.Expected().Mean() * float64(due.PerToken))
	}
	return j.Arrived.Add(after)
}

// DefaultRules returns the rules in force without configuration.
func DefaultRules() Rules {
	return Rules{
		Tiers: map[power.Tier]Rule{
			power.Mains:       {100 * power.Watt, Always, Run},
			power.Battery:     {15 * power.Watt, InTime, Run},
			power.Saver:       {6 * power.Watt, Named, Run},
			power.Low:         {0, Named, Wait},
			power.Critical:    {0, Never, Refuse},
			power.TierUnknown: {100 * power.Watt, Always, Run},
		},
		PowerAware:      true,
		OptimizeLatency: true,
		DefaultBackend:  "ollama-igpu",
		Chat:            Due{8 * time.Second, 100 * time.Millisecond},
		Completion:      Due{6 * time.Second, 300 * time.Millisecond},
		Background:      Due{5 * time.Minute, 2 * time.Second},
		MayMiss:         0.37,
		InTime:          800 * power.Joule,
		Samples:         3,
		Curiosity:       0.1,
	}
}

// For returns the rule of a tier.
func (r *Rules) For(t power.Tier) Rule {
	if !r.PowerAware {
		t = power.Mains
	}
	return r.Tiers[t]
}
