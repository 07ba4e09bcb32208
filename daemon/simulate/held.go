package simulate

import (
	"math"
	"slices"
	"time"

	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// HeldBound returns a bound like that of LowerBound, that it is no less than:
// it counts what one device takes for being loaded and kept ready, the one for
// which that is most. Requests are in order of time, on a clock that stands
// still while the machine is suspended.
//
// On that device, a request that is in time is answered between its arrival and
// the moment when it is due. So the device is idle wherever no request that it
// is given spans the time, and takes at least what Optimal has it take then.
// Nobody is in the way of another, so that this is found for as many requests
// as there are, unlike the optimum.
func HeldBound(m *Machine, rules *route.Rules, requests []Request) power.Energy {
	bound := LowerBound(m, rules, requests).Energy
	for i := range m.Devices {
		others := Machine{Devices: slices.Concat(m.Devices[:i], m.Devices[i+1:])}
		bound = max(bound, heldBound(&m.Devices[i], &others, rules, requests))
	}
	return bound
}

func heldBound(d *Device, others *Machine, rules *route.Rules, requests []Request) power.Energy {
	alone := Machine{Devices: []Device{*d}}
	ways := []holding{{}}
	for i := range requests {
		r := &requests[i]
		here, there := alone.least(rules, r), others.least(rules, r)
		var next []holding
		for _, w := range ways {
			if there.InTime || there.Device >= 0 && !here.InTime {
				elsewhere := w
				elsewhere.energy += there.Energy
				next = unbeaten(next, elsewhere, holding.beats)
			}
			if here.InTime || !there.InTime {
				next = unbeaten(next, w.with(d, r.At, r.At+r.Due(rules), here), holding.beats)
			}
		}
		ways = next
	}
	least := ways[0].energy
	for _, w := range ways {
		least = min(least, w.energy)
	}
	return least
}

// holding is how things may stand with the device: whether it has been loaded,
// until when a request spans the time, and what was taken on all devices.
type holding struct {
	loaded bool
	until  time.Duration
	energy power.Energy
}

// with gives the device a request that comes and is due then.
func (h holding) with(d *Device, comes, due time.Duration, l Least) holding {
	h.energy += l.Energy
	if h.loaded {
		h.energy += d.Idle(max(0, comes-h.until))
	} else {
		h.energy += d.Restart()
		h.loaded, h.until = true, due
	}
	if !l.InTime {
		due = math.MaxInt64 // it may be answered at any time
	}
	h.until = max(h.until, due)
	return h
}

func (h holding) beats(g holding) bool {
	return h.energy <= g.energy && (!g.loaded || h.loaded && h.until >= g.until)
}
