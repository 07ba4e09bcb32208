package dispatch

import (
	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/power"
)

// candidates returns the backends as they look to a job for that model: with
// what the model's jobs have taken there, on battery or on line power, for what
// is assumed of the device.
func (d *Dispatcher) candidates(s *Settings, backends backend.Snapshot, model string, onBattery bool) []job.Candidate {
	list := backends.Candidates(model)
	name := job.CanonicalModel(model)
	for i := range list {
		d.learn(s, &list[i], name, onBattery)
	}
	return list
}

// learn puts what was learned of a candidate, with the model of that canonical name,
// in the place of what is assumed.
func (d *Dispatcher) learn(s *Settings, c *job.Candidate, name string, onBattery bool) {
	if !s.Learn {
		return
	}
	c.Profile = plan.Known(c.Profile, onBattery, func(onBattery bool) (ledger.Learned, bool) {
		return d.Ledger.Learned(c.ID, name, onBattery)
	})
	d.learnHeld(c, onBattery)
	if c.Class == power.Cloud { // the joules were those of a backend that had its id
		p := &c.Profile
		p.TokenEnergy, p.PromptEnergy, p.LoadEnergy, p.Quality = 0, 0, 0, power.Estimated
	}
}

// learnedDraw returns what a backend took while it wrote, or zero if that was
// not learned.
func (d *Dispatcher) learnedDraw(id, model string, s *Settings, onBattery bool) power.Power {
	l, known := d.Ledger.Learned(id, job.CanonicalModel(model), onBattery)
	if !s.Learn || !known {
		return 0
	}
	return plan.LearnedDraw(l)
}
