// Package residency decides for how long a model stays in memory once a job
// with it has ended, and when the server that held it is to stop. It is pure.
//
// Holding costs more than generating: a GPU that draws 8 W for as long as a
// model is in its memory takes 2.4 kJ in Ollama's five minutes, and an answer
// takes a few hundred joules. Letting go costs as well, if the model is loaded
// again. Whoever holds until that has taken what loading takes, the break-even,
// never spends more than twice what he had to. Whoever knows when people mostly
// come back spends less: so that is learned, and with every gap between two jobs
// it may lead farther from the break-even (as in Purohit et al., Improving
// Online Algorithms via ML Predictions, 2018).
//
// A model is loaded when a job needs it, and not before. To tell servers what
// was decided is daemon/dispatch's.
package residency

import (
	"fmt"
	"math"
	"time"

	"github.com/joulemux/joulemux/power"
)

// Rule bounds on one tier for how long a model stays, whatever its client asks.
type Rule struct {
	// Free is the bound on a device that takes nothing for it, and Costly the
	// one on a device that does.
	Free, Costly time.Duration
}

// Prior is what is assumed of a device until it has been learned.
type Prior struct {
	HoldDraw   power.Power
	LoadEnergy power.Energy
	SleepAfter time.Duration
}

// Rules are the user's choices about what stays in memory.
type Rules struct {
	Tiers map[power.Tier]Rule
	// HoldOnBattery lets discrete GPUs hold on battery what nobody waits for.
	HoldOnBattery bool
	// Samples is how many gaps between jobs must be known to go by them.
	Samples int
	// Discrete is assumed of discrete GPUs, and Other of all else.
	Discrete, Other Prior
}

// ServerDefault is for how long a server keeps a model of which nobody says
// for how long (OLLAMA_KEEP_ALIVE in Ollama's envconfig).
const ServerDefault = 5 * time.Minute

// DefaultRules returns the rules in force without configuration.
//
// What costs nothing to hold stays longer than servers keep it by themselves:
// to load it again takes joules, and the seconds that send the next job to a
// faster device, which takes more of them. A machine that runs out of power may
// hibernate, and what is in memory then has to be written: so on the last tiers
// it goes sooner.
//
// The hold draw of a discrete GPU is what one user has found: a laptop with an
// RTX 4070 draws 14 W at rest while Ollama holds it, and 6 W without
// (github.com/ollama/ollama/issues/8591). Others report 5 to 8 W. To load a
// model is assumed to take 5 s at 30 W there, and 4 s at 6 W elsewhere; and a
// GPU to stay awake for 10 s more, of which drivers have 6 to 15 s.
func DefaultRules() Rules {
	return Rules{
		Tiers: map[power.Tier]Rule{
			power.TierUnknown: {time.Hour, ServerDefault},
			power.Mains:       {time.Hour, ServerDefault},
			power.Battery:     {time.Hour, 2 * time.Minute},
			power.Saver:       {time.Hour, time.Minute},
			power.Low:         {10 * time.Minute, 30 * time.Second},
			power.Critical:    {time.Minute, 10 * time.Second},
		},
		Samples:  8,
		Discrete: Prior{8 * power.Watt, 150 * power.Joule, 10 * time.Second},
		Other:    Prior{0, 24 * power.Joule, 0},
	}
}

// Holding is what it takes to hold a model on a device, or to load it again.
type Holding struct {
	Class power.DeviceClass
	// HoldDraw is what the device draws for as long as the model is resident,
	// and LoadEnergy is of making it so; zero is not known.
	HoldDraw   power.Power
	LoadEnergy power.Energy
	// SleepAfter is how long the device stays awake, drawing as much, once it
	// holds nothing; zero is not known.
	SleepAfter time.Duration
	// Waiting is how many jobs wait for the model there.
	Waiting int
	// Gaps are those between jobs for the model there.
	Gaps Gaps
}

// Reason is the rule that produced a verdict: a stable string that programs
// may compare and people may read.
type Reason string

// The reasons.
const (
	ReasonFree      Reason = "holding it takes nothing here"
	ReasonWaiting   Reason = "jobs wait for it"
	ReasonOnBattery Reason = "on battery a discrete GPU holds nothing"
	ReasonBreakEven Reason = "holding it longer takes more than loading it"
	ReasonLearned   Reason = "the next job is mostly there by then, or long after"
	ReasonTier      Reason = "the tier permits no more"
)

// Keep is for how long a model stays after its last job, and why.
type Keep struct {
	For    time.Duration
	Reason Reason
	// HoldDraw and LoadEnergy are what was weighed, and Assumed tells that one
	// of them was not learned.
	HoldDraw   power.Power
	LoadEnergy power.Energy
	Assumed    bool
	// Stop tells that the server is to stop then, and not only to let go of the
	// model: a GPU stays awake for as long as a process has it open.
	Stop bool

	sleepAfter time.Duration
	onBattery  bool
}

// Keep decides for how long a model stays. More careful tiers keep it no
// longer, and none keeps it longer than its bound.
func (r *Rules) Keep(tier power.Tier, onBattery bool, h Holding) Keep {
	k := r.weigh(h)
	k.onBattery = onBattery
	rule := r.Tiers[tier]
	even := min(rule.Costly, BreakEven(k.LoadEnergy, k.HoldDraw))
	switch {
	case k.HoldDraw == 0:
		k.For, k.Reason = rule.Free, ReasonFree
		return k
	case h.Waiting > 0:
		k.For, k.Reason = even, ReasonWaiting
	case onBattery && h.Class.Discrete() && !r.HoldOnBattery:
		k.For, k.Reason = 0, ReasonOnBattery
	case h.Gaps.Count() >= r.Samples:
		k.For, k.Reason = h.best(k, rule.Costly), ReasonLearned
	default:
		k.For, k.Reason = even, ReasonBreakEven
	}
	if h.Waiting == 0 && k.For > 0 && k.For == rule.Costly {
		k.Reason = ReasonTier
	}
	return k
}

// weigh returns a verdict with what is known and what has to be assumed.
func (r *Rules) weigh(h Holding) Keep {
	k := Keep{HoldDraw: h.HoldDraw, LoadEnergy: h.LoadEnergy, sleepAfter: h.SleepAfter}
	prior := r.Other
	if h.Class.Discrete() {
		prior, k.Stop = r.Discrete, true
	}
	if k.HoldDraw <= 0 {
		k.HoldDraw, k.Assumed = prior.HoldDraw, true
	}
	if k.sleepAfter <= 0 {
		k.sleepAfter = prior.SleepAfter
	}
	if k.LoadEnergy <= 0 {
		k.LoadEnergy, k.Assumed = prior.LoadEnergy, true
	}
	return k
}

// BreakEven returns for how long a draw takes what loading takes. Letting go
// then takes at most twice what it has to, whatever comes: if the next job comes
// before, no more; if it comes after, a load for holding and one for loading,
// where either would have done (the ski rental problem: Karlin et al.,
// Competitive Snoopy Caching, 1988). That remains so where a device sleeps only
// some time after it was let go.
func BreakEven(load power.Energy, hold power.Power) time.Duration {
	if hold <= 0 {
		return longest
	}
	return seconds(load.Joules() / hold.Watts())
}

// longest keeps absurd figures from overflowing a duration: a month.
const longest = 30 * 24 * time.Hour

func seconds(s float64) time.Duration {
	return time.Duration(math.Round(min(s, longest.Seconds()) * float64(time.Second)))
}

// trust is how far from the break-even each gap that is known lets a time be: by
// so much of a factor. Few gaps mislead, and this bounds what that can take: of
// whatever comes, no more than once plus that factor times what it has to.
const trust = 0.5

// best returns the time within a bound after which letting go is expected to
// take the least, by the gaps that are known. Within a bin the expectation is
// concave, so it is least at an end of one; no other time that is trusted does
// better, the break-even included.
func (h *Holding) best(k Keep, bound time.Duration) time.Duration {
	gaps := h.Gaps.curve()
	load, hold, sleep := k.LoadEnergy.Joules(), k.HoldDraw.Watts(), k.sleepAfter.Seconds()
	joules := func(t float64) float64 {
		longer, _ := gaps.at(t)
		_, awake := gaps.at(t + sleep)
		return load*longer + hold*awake
	}
	factor := max(1, trust*float64(h.Gaps.Count()))
	first, last := min(bound.Seconds(), load/hold/factor), min(bound.Seconds(), load/hold*factor)
	best, least := first, joules(first)
	try := func(t float64) {
		// What differs by rounding alone is equal, and then the shorter is better.
		if e := joules(t); e < least*(1-1e-9) {
			best, least = t, e
		}
	}
	for _, t := range edges {
		if t > first && t < last {
			try(t)
		}
	}
	try(last)
	return min(bound, seconds(best))
}

// Tail returns what keeping a model for so long is expected to take after a
// job, until the next begins or the device sleeps. As long as little is known
// of the gaps that is all of it, and where jobs wait it is theirs.
func (r *Rules) Tail(h Holding, keep time.Duration) power.Energy {
	k := r.weigh(h)
	if k.HoldDraw == 0 || h.Waiting > 0 {
		return 0
	}
	awake := min(max(0, keep), longest) + k.sleepAfter
	if h.Gaps.Count() >= r.Samples {
		awake = h.Gaps.Until(awake)
	}
	return k.HoldDraw.For(awake)
}

// Within returns for how long a model stays that a client asks to stay for so
// long: never longer than the verdict says. Nil asks for nothing, and a
// negative time for ever, as with Ollama.
func (k Keep) Within(asked *time.Duration) time.Duration {
	if asked == nil || *asked < 0 {
		return k.For
	}
	return min(*asked, k.For)
}

// Edit returns the time to set in the client's request, or nil if that can
// stay as it is: where it asks for no more than it may have, and where it asks
// for nothing and holding takes nothing. Only on battery a server is then told
// to keep the model for longer than it does by itself.
func (k Keep) Edit(asked *time.Duration) *time.Duration {
	switch {
	case asked == nil && k.HoldDraw == 0 && (k.For == ServerDefault || k.For > ServerDefault && !k.onBattery):
		return nil
	case asked != nil && *asked >= 0 && *asked <= k.For:
		return nil
	default:
		return &k.For
	}
}

// String says for how long and why, in numbers.
func (k Keep) String() string {
	why := string(k.Reason)
	if k.HoldDraw > 0 {
		why += fmt.Sprintf(" (%v held, %v to load", k.HoldDraw, k.LoadEnergy)
		if k.Assumed {
			why += ", assumed"
		}
		why += ")"
	}
	return fmt.Sprintf("stays %v: %s", k.For.Round(100*time.Millisecond), why)
}
