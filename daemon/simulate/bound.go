package simulate

import (
	"slices"

	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// Bound is the least energy that requests can take where none is late, even if
// everything is known in advance: each on its cheapest device that is in time,
// as if it were alone there and the model always resident.
//
// Who comes late may take less. What the machine draws beside its devices is
// left out, as it is drawn whatever is decided.
type Bound struct {
	Energy power.Energy
	// Each is the part of each request, in their order, to tell where a
	// scheduler spends more.
	Each []Least
	// Infeasible is how many requests no device answers in time. They count
	// with what they take on the cheapest of all, so that it stays a bound.
	Infeasible int
}

// Least is the least energy that a request can take.
type Least struct {
	Energy power.Energy
	// Device is the index of the machine's device where it takes that.
	Device int
	// InTime tells whether the last token can be there when it is due.
	InTime bool
}

// LowerBound returns the bound of requests on a machine that has devices, by
// the deadlines of rules.
func LowerBound(m *Machine, rules *route.Rules, requests []Request) Bound {
	b := Bound{Each: make([]Least, len(requests))}
	for i := range requests {
		least := m.least(rules, &requests[i])
		b.Each[i] = least
		b.Energy += least.Energy
		if !least.InTime {
			b.Infeasible++
		}
	}
	return b
}

// least returns the cheapest device for r among those that are in time, or
// among all if none is.
func (m *Machine) least(rules *route.Rules, r *Request) Least {
	best := Least{Device: -1}
	for i := range m.Devices {
		takes, energy := m.Devices[i].Service(r)
		l := Least{Energy: energy, Device: i, InTime: takes <= r.Due(rules)}
		switch {
		case best.Device < 0,
			l.InTime && !best.InTime,
			l.InTime == best.InTime && l.Energy < best.Energy:
			best = l
		}
	}
	return best
}

// AlwaysReady returns m with the model resident everywhere at all times, for
// nothing: what is left to decide is who works when.
func (m *Machine) AlwaysReady() Machine {
	return m.with(func(d *Device) { d.Hold, d.Load, d.LoadDraw, d.SleepAfter = 0, 0, 0, 0 })
}

// ReadyWhereFree returns m with the model resident already where keeping it so
// takes nothing, as it is some time after the start.
func (m *Machine) ReadyWhereFree() Machine {
	return m.with(func(d *Device) {
		if d.Hold == 0 {
			d.Load, d.LoadDraw = 0, 0
		}
	})
}

func (m *Machine) with(change func(*Device)) Machine {
	changed := *m
	changed.Devices = slices.Clone(m.Devices)
	for i := range changed.Devices {
		change(&changed.Devices[i])
	}
	return changed
}
