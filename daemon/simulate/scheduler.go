package simulate

import (
	"time"

	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// Scheduler decides in a simulation. The daemon's plan is one, and so are the
// policies that it is compared with.
//
// Its times are those of a clock that stands still while the machine is
// suspended, as Go's does.
type Scheduler interface {
	Place(now time.Time, ask *plan.Ask) (plan.Placement, error)
	Ended(now time.Time, id string, o plan.Outcome) []plan.Effect
	Tier(now time.Time, tier power.Tier, onBattery bool) []plan.Effect
	// Next is when to call Tick; the zero time is never.
	Next() time.Time
	Tick(now time.Time) []plan.Effect
}

// Policy is a way to decide that can be simulated.
type Policy struct {
	Name string
	// Says tells people what it does, in a line.
	Says string
	// PutsOff tells that it has background jobs wait, or refuses them, where
	// the tier's rule says so. Such jobs do not count as missed.
	PutsOff bool
	New     func(m *Machine, o *Options) Scheduler
}

// Options are how a trace is run.
type Options struct {
	// Rules have the deadlines, which are what a policy is judged by, and
	// whatever else the policy makes of them.
	Rules route.Rules
	// Power is what makes tiers of the supply.
	Power power.Policy
	// Figures are where a policy's figures about the machine are from.
	Figures Figures
	// Lengths are where its figures about the lengths of answers are from.
	Lengths Lengths
	// Watts has every device told to be as fast as any other, so that joules
	// are as watts: what a policy is worth that knows only them.
	Watts bool
	// Noise is by how much a measurement of joules is off: the standard
	// deviation of its logarithm. Seed is of that noise.
	Noise float64
	Seed  uint64
	// Timeline asks for what a plot is made of.
	Timeline bool
}

// DefaultOptions are the daemon's defaults on a machine that has been used for
// a while.
func DefaultOptions() Options {
	return Options{
		Rules: route.DefaultRules(), Power: power.DefaultPolicy(),
		Figures: FiguresKnown, Lengths: LengthsLearned,
	}
}

// Figures are where what a policy knows of a machine's devices comes from.
type Figures string

// The origins of figures.
const (
	// FiguresKnown are those of the machine, as if it had been used for long.
	FiguresKnown Figures = "known"
	// FiguresLearned are assumed of the class of a device until three jobs
	// have shown better.
	FiguresLearned Figures = "learned"
)

// Lengths are where what a policy knows of the lengths of answers comes from.
type Lengths string

// The origins of lengths.
const (
	// LengthsLearned are those of earlier answers, as far as the policy learns
	// from them.
	LengthsLearned Lengths = "learned"
	// LengthsAssumed are the same for all jobs of a kind, and for ever.
	LengthsAssumed Lengths = "assumed"
	// LengthsKnown are those of the answers to come.
	LengthsKnown Lengths = "known"
)
