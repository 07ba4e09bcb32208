package dispatch

import (
	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/power"
)

// leastSamples is how many jobs an average must be of to stand for what is
// assumed of a backend.
const leastSamples = 3

// candidates returns the backends as they look to a job for that model: with
// what the model's jobs have taken there, on battery or on line power, for what
// is assumed of the device.
func (d *Dispatcher) candidates(s *Settings, backends backend.Snapshot, model string, onBattery bool) []job.Candidate {
	list := backends.Candidates(model)
	if !s.Learn {
		return list
	}
	name := job.CanonicalModel(model)
	for i := range list {
		if l, known := d.Ledger.Learned(list[i].ID, name, onBattery); known {
			list[i].Profile = learned(list[i].Profile, l)
		}
	}
	return list
}

// learnedDraw returns what a backend took while it wrote, or zero if that was
// not learned.
func (d *Dispatcher) learnedDraw(id, model string, s *Settings, onBattery bool) power.Power {
	l, known := d.Ledger.Learned(id, job.CanonicalModel(model), onBattery)
	if !s.Learn || !known || l.TokenEnergy.Count() < leastSamples || l.TokenTime.Count() < leastSamples {
		return 0
	}
	return l.TokenEnergy.Value().Over(l.TokenTime.Value())
}

// learned returns p with every figure replaced that was learned from enough
// jobs. What a backend draws stays as it is: a cap on power is about the device
// and not about a job.
func learned(p job.Profile, l ledger.Learned) job.Profile {
	if l.TokenTime.Count() >= leastSamples {
		p.Decode = l.DecodeRate()
	}
	if l.PromptTime.Count() >= leastSamples {
		p.Prefill = l.PrefillRate()
	}
	if l.Overhead.Count() >= leastSamples {
		p.FirstToken = l.Overhead.Value()
	}
	if l.LoadTime.Count() >= leastSamples {
		p.LoadTime = l.LoadTime.Value()
	}
	if p.Quality == power.None { // what runs elsewhere takes nothing here
		return p
	}
	if l.TokenEnergy.Count() >= leastSamples {
		p.TokenEnergy, p.Quality = l.TokenEnergy.Value(), power.Derived
	}
	if l.PromptEnergy.Count() >= leastSamples {
		p.PromptEnergy = l.PromptEnergy.Value()
	}
	if l.LoadEnergy.Count() >= leastSamples {
		p.LoadEnergy = l.LoadEnergy.Value()
	}
	return p
}
