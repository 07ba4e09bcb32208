package simulate

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// MostRequests is for how many requests the optimum is looked for: the work
// grows as 3 to their power.
const MostRequests = 8

// Optimum is the best that can be done with requests if all of them are known
// in advance.
type Optimum struct {
	// Late is how many are answered after they are due: as few as can be.
	Late int
	// Energy is the least that this takes: prefill, decode, load and hold.
	Energy power.Energy
}

// Optimal returns the optimum of at most MostRequests requests, given in order
// of time, on a machine that has devices.
//
// A device answers one request after the other, each without a break and none
// before it has arrived; a request may be made to wait although its device is
// idle. Between two requests the model is kept resident, or let go of and
// loaded again while the device is idle: who knows the future has loaded it in
// time, also before the first request. After the last it is let go of at once.
// It is supposed that loading draws no less than keeping resident.
//
// Every choice of devices, orders and times that could be the best is looked
// at. Devices do not depend on each other, so the best for every set of
// requests on each of them is all that there is to combine.
func Optimal(m *Machine, rules *route.Rules, requests []Request) (Optimum, error) {
	switch {
	case len(requests) > MostRequests:
		return Optimum{}, fmt.Errorf("simulate: the optimum of %d requests would take too long; at most %d", len(requests), MostRequests)
	case len(m.Devices) == 0:
		return Optimum{}, fmt.Errorf("simulate: machine %q has no devices", m.Name)
	}
	var best []Optimum // of each set of requests, on the devices so far
	for i := range m.Devices {
		alone := newLane(&m.Devices[i], rules, requests).optima()
		if i == 0 {
			best = alone
			continue
		}
		spread(best, alone)
	}
	return best[len(best)-1], nil
}

// spread adds a device with these optima to the others: it takes the part of
// each set that makes the whole the best.
func spread(best, alone []Optimum) {
	for set := len(best) - 1; set > 0; set-- { // from above, as smaller ones go into it
		for part := set; part > 0; part = (part - 1) & set {
			best[set] = best[set].orBetter(best[set&^part].plus(alone[part]))
		}
	}
}

// orBetter returns p if it is better than o, and else o.
func (o Optimum) orBetter(p Optimum) Optimum {
	if cmp.Or(cmp.Compare(o.Late, p.Late), cmp.Compare(o.Energy, p.Energy)) > 0 {
		return p
	}
	return o
}

func (o Optimum) plus(p Optimum) Optimum { return Optimum{o.Late + p.Late, o.Energy + p.Energy} }

// Idle returns the least that d takes while idle for so long between two
// requests: for being kept ready, or for falling asleep and being made ready
// again. The latter is less only if there is time for both.
func (d *Device) Idle(gap time.Duration) power.Energy { return min(d.Hold.For(gap), d.Restart()) }

// Restart returns what it takes to let go of the model, from then until the
// device sleeps, and to load it again.
func (d *Device) Restart() power.Energy { return d.Hold.For(d.SleepAfter) + d.LoadEnergy() }

// lane is one device, with what the requests take there. Sets of requests are
// numbers, with a bit for each.
type lane struct {
	device *Device
	come   []time.Duration
	due    []time.Duration // from the begin of the trace
	take   []time.Duration
	energy []power.Energy
}

func newLane(d *Device, rules *route.Rules, requests []Request) *lane {
	l := &lane{device: d}
	for i := range requests {
		r := &requests[i]
		take, energy := d.Service(r)
		l.come = append(l.come, r.At)
		l.due = append(l.due, r.At+r.Due(rules))
		l.take = append(l.take, take)
		l.energy = append(l.energy, energy)
	}
	return l
}

// optima returns the optimum of each set of requests on the device alone.
func (l *lane) optima() []Optimum {
	stretches := l.stretches()
	all := len(stretches) - 1
	ends := make([][]end, len(stretches)) // ways for each set to have been answered
	optima := make([]Optimum, len(stretches))
	ends[0] = []end{{}}
	for set := range ends {
		if set > 0 {
			optima[set] = l.optimum(set, ends[set])
		}
		rest := all &^ set
		for more := rest; more > 0; more = (more - 1) & rest {
			l.follow(ends, set, more, stretches[more])
		}
	}
	return optima
}

// optimum is the best of the ways to answer a set, with what they have in
// common.
func (l *lane) optimum(set int, ways []end) Optimum {
	best := ways[0].Optimum
	for _, w := range ways[1:] {
		best = best.orBetter(w.Optimum)
	}
	best.Energy += l.device.Restart()
	for i := range members(set) {
		best.Energy += l.energy[i]
	}
	return best
}

// A stretch is some requests answered without a break between them: begun from
// first to last, so many of them are late.
//
// As what is taken while idle grows ever more slowly, a stretch that is moved
// between two others takes the least at an end of its way: when it cannot begin
// earlier, when it cannot begin later, or when it touches another and becomes
// one with it. So there is no need to look at other times.
type stretch struct {
	first, last time.Duration
	late        int
}

// stretches returns for each set of requests those that it can be answered in.
func (l *lane) stretches() [][]stretch {
	all := make([][]stretch, 1<<len(l.come))
	all[0] = []stretch{{first: math.MinInt64, last: math.MaxInt64}}
	for set := range all {
		for i := range members((len(all) - 1) &^ set) {
			with := set | 1<<i
			for _, s := range all[set] {
				all[with] = l.lengthen(all[with], s, i, l.takes(set))
			}
		}
	}
	return all
}

// lengthen adds to the list what comes of request i being answered after those
// of s, which take that long: in time, or late.
func (l *lane) lengthen(list []stretch, s stretch, i int, takes time.Duration) []stretch {
	first := max(s.first, l.come[i]-takes)
	last := min(s.last, l.due[i]-takes-l.take[i])
	if first <= last {
		list = unbeaten(list, stretch{first, last, s.late}, stretch.covers)
	}
	if first <= s.last {
		list = unbeaten(list, stretch{first, s.last, s.late + 1}, stretch.covers)
	}
	return list
}

// covers reports whether whatever can be done with q can be done with s.
func (s stretch) covers(q stretch) bool {
	return s.first <= q.first && s.last >= q.last && s.late <= q.late
}

// end is how a set of requests can have been answered: until then, with so many
// late, and with so much energy taken while idle.
type end struct {
	at time.Duration
	Optimum
}

// follow adds to ends what comes of answering more after set, in one of those
// stretches.
func (l *lane) follow(ends [][]end, set, more int, stretches []stretch) {
	takes, with := l.takes(more), set|more
	for _, e := range ends[set] {
		for _, s := range stretches {
			for _, begin := range l.begins(s) {
				next := end{begin + takes, e.plus(Optimum{Late: s.late})}
				switch {
				case set == 0: // loaded just in time
				case begin < e.at:
					continue
				default:
					next.Energy += l.device.Idle(begin - e.at)
				}
				ends[with] = unbeaten(ends[with], next, l.beats)
			}
		}
	}
}

// begins returns when s may have to begin for the best.
func (l *lane) begins(s stretch) []time.Duration {
	if l.device.Hold == 0 || s.last == s.first || s.last == math.MaxInt64 {
		return []time.Duration{s.first} // nothing is saved by waiting
	}
	return []time.Duration{s.first, s.last}
}

// beats reports whether nothing better can come of f than of e: what is done
// after f can be done after e, which at most has to wait until then.
func (l *lane) beats(e, f end) bool {
	switch {
	case e.at > f.at || e.Late > f.Late:
		return false
	default:
		return e.Late < f.Late || e.Energy+l.device.Idle(f.at-e.at) <= f.Energy
	}
}

// unbeaten adds one to the list unless another there beats it, and takes out
// those that it beats.
func unbeaten[T any](list []T, one T, beats func(a, b T) bool) []T {
	for _, other := range list {
		if beats(other, one) {
			return list
		}
	}
	return append(slices.DeleteFunc(list, func(other T) bool { return beats(one, other) }), one)
}

// takes returns how long answering a set takes.
func (l *lane) takes(set int) (sum time.Duration) {
	for i := range members(set) {
		sum += l.take[i]
	}
	return sum
}

// members yields the requests of a set.
func members(set int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for rest := uint(set); rest > 0; rest &= rest - 1 {
			if !yield(bits.TrailingZeros(rest)) {
				return
			}
		}
	}
}
