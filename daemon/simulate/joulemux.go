package simulate

import (
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/residency"
)

// Joulemux is the daemon's own policy: its plan, driven with the events and the
// clock of the simulation.
func Joulemux() Policy {
	return Policy{
		Name: "joulemux", Says: "the daemon's own: the cheapest place that is fast enough", PutsOff: true,
		New: func(_ *Machine, o *Options) Scheduler {
			return plan.New(&plan.Settings{
				Rules: o.Rules, Residency: residency.DefaultRules(), Predict: o.Lengths != LengthsAssumed,
			})
		},
	}
}
