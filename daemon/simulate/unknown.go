package simulate

import (
	"math"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// Foresight is what is known of answers before they are written.
type Foresight struct {
	// Lengths is how long those of a class are.
	Lengths map[Class]job.Lengths
	// MayMiss is which share of them may be expected to be late.
	MayMiss float64
}

// Unaware is what requests take where nobody knows how long their answers get.
type Unaware struct {
	// Energy is what they took, and Late how many were, with the lengths that
	// came.
	Energy power.Energy
	Late   int
	// Expected are the same before it was known.
	Expected     power.Energy
	ExpectedLate float64
	// Price is what it was worth to prevent that one is late.
	Price power.Energy
}

// LengthUnknown returns what requests take if each runs on the device with the
// fewest joules to be expected, as if it were alone there and the model always
// resident, knowing its prompt and how long answers of its class are; with a
// price on being late that is as low as keeps to f.MayMiss, or if nothing does,
// so high that it alone counts.
//
// It is a reference and no bound. Compared with LowerBound it tells what not
// knowing the length costs, before there is any contention, load or hold; a
// scheduler that knows more of a client than the class, moves a job once its
// answer proves long, or is lucky with the lengths that come, takes less.
func LengthUnknown(m *Machine, rules *route.Rules, f Foresight, requests []Request) Unaware {
	all := make([]bets, len(requests))
	for i := range requests {
		all[i] = f.bets(m, rules, &requests[i])
	}
	price := f.price(all)
	u := Unaware{Price: power.Joules(price)}
	for i := range requests {
		best := all[i].cheapest(price)
		u.Expected += power.Joules(all[i][best].joules)
		u.ExpectedLate += all[i][best].late
		takes, energy := m.Devices[best].Service(&requests[i])
		u.Energy += energy
		if takes > requests[i].Due(rules) {
			u.Late++
		}
	}
	return u
}

// bet is what is expected of a request on a device: what it takes, and how
// probable it is that it is late.
type bet struct{ joules, late float64 }

// bets are those on all devices, in their order.
type bets []bet

func (f *Foresight) bets(m *Machine, rules *route.Rules, r *Request) bets {
	lengths := f.Lengths[r.Class]
	list := make(bets, len(m.Devices))
	for i := range m.Devices {
		d := &m.Devices[i]
		reading := d.Prefilling(r.Prompt)
		list[i] = bet{
			joules: d.PrefillDraw.For(reading).Joules() + lengths.Mean()/d.Decode*d.DecodeDraw.Watts(),
			late:   lateness(lengths, r.Class.due(rules), reading, 1/d.Decode),
		}
	}
	return list
}

// lateness returns how probable it is that an answer is late that begins so
// long after its request and takes so many seconds for each token.
func lateness(lengths job.Lengths, due route.Due, begins time.Duration, each float64) float64 {
	slack := (due.After - begins).Seconds()
	behind := each - due.PerToken.Seconds() // it falls by each token
	switch {
	case behind > 0 && slack >= 0:
		return 1 - lengths.Share(slack/behind)
	case behind < 0 && slack < 0:
		return lengths.Share(slack / behind)
	case slack < 0:
		return 1
	default:
		return 0
	}
}

// price returns the lowest price of being late, in joules, at which as few are
// late as may be. The higher it is, the fewer are.
func (f *Foresight) price(all []bets) float64 {
	kept := func(price float64) bool {
		sum := 0.0
		for _, b := range all {
			sum += b[b.cheapest(price)].late
		}
		return sum <= f.MayMiss*float64(len(all))
	}
	const highest = 1e9 // above what a battery holds
	low, high := 0.0, highest
	if kept(low) {
		return low
	}
	for kept(highest) && high-low > 1e-3 {
		if middle := (low + high) / 2; kept(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	return high
}

// cheapest returns the device with the least to be expected at that price.
func (b bets) cheapest(price float64) int {
	best, least := 0, math.Inf(1)
	for i, bet := range b {
		if cost := bet.joules + price*bet.late; cost < least {
			best, least = i, cost
		}
	}
	return best
}
