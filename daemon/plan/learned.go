package plan

import (
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/power"
)

// LeastSamples is how many jobs an average must be of to stand for what is
// assumed of a backend.
const LeastSamples = 3

// leastLoads is the same for making the model resident. That is always as much
// work, of which one sample tells enough; and it is rare, so that with three of
// a discrete GPU half a day was predicted by assumptions.
const leastLoads = 1

// Known returns p with what was learned of a machine that is powered so, or
// where that is too little, as it is not: clocks differ between battery and line
// power, but assumptions are farther off.
func Known(p job.Profile, onBattery bool, learned func(onBattery bool) (ledger.Learned, bool)) job.Profile {
	for _, so := range []bool{!onBattery, onBattery} {
		if l, known := learned(so); known {
			p = Learned(p, l)
		}
	}
	return p
}

// Learned returns p with every figure replaced that was learned from enough
// jobs. What a backend draws stays as it is: a cap on power is about the device
// and not about a job.
func Learned(p job.Profile, l ledger.Learned) job.Profile {
	p.Samples = max(p.Samples, l.TokenTime.Count())
	if l.TokenTime.Count() >= LeastSamples {
		p.Decode = l.DecodeRate()
	}
	if l.PromptTime.Count() >= LeastSamples {
		p.Prefill = l.PrefillRate()
	}
	if l.Overhead.Count() >= LeastSamples {
		p.FirstToken = l.Overhead.Value()
	}
	if l.LoadTime.Count() >= leastLoads {
		p.LoadTime = l.LoadTime.Value()
	}
	if l.TokenEnergy.Count() >= LeastSamples {
		p.TokenEnergy, p.Quality = l.TokenEnergy.Value(), power.Derived
	}
	if l.PromptEnergy.Count() >= LeastSamples {
		p.PromptEnergy = l.PromptEnergy.Value()
	}
	if l.LoadEnergy.Count() >= leastLoads {
		p.LoadEnergy = l.LoadEnergy.Value()
	}
	return p
}

// LearnedDraw returns what a backend took while it wrote, or zero if that was
// not learned.
func LearnedDraw(l ledger.Learned) power.Power {
	if l.TokenEnergy.Count() < LeastSamples || l.TokenTime.Count() < LeastSamples {
		return 0
	}
	return l.TokenEnergy.Value().Over(l.TokenTime.Value())
}
