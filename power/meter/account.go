package meter

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/joulemux/joulemux/power"
)

// account divides the energy of one domain among those who caused it.
type account struct {
	sensor *source
	domain power.Domain
	index  int        // in a span's parts
	parent *account   // the domain that contains this one
	rails  []*account // domains within this one

	// Guarded by the meter, as all below.
	last  power.Reading
	known bool // there is a last reading to count from
	// missed is the pause at whose end a sensor could not be read yet, and when
	// that was.
	missed   *phase
	missedAt time.Time
	// slept is how long the machine had slept, at least, by the last reading.
	slept time.Duration

	// dozes says that the device has been seen asleep, and foundAsleep that it was
	// when it was last looked at. SleptBefore says that the model that it may hold
	// now has come to a device that was asleep.
	dozes, foundAsleep, sleptBefore bool
	// worked is when the last job there ended.
	worked time.Time

	// What was counted in the phase that is on, and over how much of it.
	counted []interval
	idle    idle
	// whole is all that was ever counted, and gaps how often it could not be.
	whole   power.Energy
	gaps    int
	balance Balance
	tails   []*Span // whose tail has grown
	// untold is what was too short to be told as a tail, and how long it was.
	untold    power.Energy
	untoldFor time.Duration
}

func newAccount(s *source) *account { return &account{sensor: s, domain: s.Domain()} }

// counts reports whether jobs can be told by the domain at all. A platform's
// meter contains all of them, and the core's only a part.
func (a *account) counts() bool {
	switch a.domain.Scope {
	case power.ScopePackage, power.ScopeNPU, power.ScopeDiscreteGPU:
		return true
	default:
		return false
	}
}

// wanted reports whether any of the jobs shows in the domain.
func (a *account) wanted(jobs []*Span) bool {
	return slices.ContainsFunc(jobs, func(s *Span) bool { return a.concerns(s.work.Class) })
}

// concerns reports whether a job of that class has the domain read. A rail is
// read whenever the domain that contains it is, so that what both say is of the
// same time.
func (a *account) concerns(c power.DeviceClass) bool {
	return a.domain.Covers(c) || a.parent != nil && a.parent.domain.Covers(c)
}

// stale reports whether the last reading is too old to stand for now. So it is
// if the sensor has been let go of: it may take a while to be ready again, and
// that should not be in the middle of a job.
func (a *account) stale(now time.Time, fresh time.Duration) bool {
	return !a.known || a.sensor.rests() || now.Sub(a.last.At) >= fresh
}

// trails reports whether the phase is the tail of a job that shows in the
// domain, and may be read for it.
func (a *account) trails(p *phase) bool {
	return p.after != nil && a.concerns(p.after.work.Class) && !sleeps(a.domain)
}

// sleeps reports whether the device has to be left alone unless a job runs on
// it, or a model keeps it awake: a look at its sensor wakes it up, or keeps it from
// falling asleep.
func sleeps(d power.Domain) bool { return d.Scope == power.ScopeDiscreteGPU }

// look is what reading a sensor gave.
type look struct {
	account *account
	domain  power.Domain // what it counts may show only when it is read
	reading power.Reading
	err     error
}

func (a *account) read(ctx context.Context) look {
	r, err := a.sensor.Read(ctx)
	return look{a, a.sensor.Domain(), r, err}
}

// take counts the energy since the last reading, if that can be told. Whether
// there was a suspend in between is told by how long the machine had slept by
// then, at least, and has by now.
func (a *account) take(l look, by slept, now time.Duration, p *phase) {
	a.foundAsleep = errors.Is(l.err, power.ErrAsleep)
	if l.err != nil {
		a.dozes = a.dozes || a.foundAsleep
		a.miss(p)
		return
	}
	if a.known && !l.reading.At.After(a.last.At) {
		return // no news
	}
	from, known := a.last, a.known && !further(a.slept, now) && l.domain == a.domain
	if a.known && !known {
		a.gaps++
	}
	pause, pauseEnd := a.missed, a.missedAt
	a.domain, a.missed = l.domain, nil
	a.last, a.known = l.reading, true
	if !l.reading.At.Before(by.at) { // else it may be from before that sleep
		a.slept = by.total
	}
	if !known {
		return
	}
	if energy, ok := a.domain.Between(from, l.reading); ok {
		a.count(interval{from.At, l.reading.At, energy, l.reading.At.Sub(from.At)}, pause, pauseEnd)
		return
	}
	a.gaps++
	if !a.domain.Cumulative && p.quiet() {
		a.idle.learn(l.reading.Draw, p.calm())
	}
}

// patience is how long a sensor may take to be ready after a pause.
const patience = 2 * time.Second

// miss notes that there is no reading. What passes until there is one again is
// a gap; but if a sensor is not ready when a pause ends, because the process
// that reads it has ended meanwhile, the pause is not lost.
func (a *account) miss(p *phase) {
	switch waits := a.missed != nil && time.Since(a.missedAt) < patience; {
	case !a.known || waits:
	case a.missed == nil && p.quiet() && a.domain.Cumulative && !sleeps(a.domain):
		a.missed, a.missedAt = p, time.Now()
	default:
		a.known, a.missed = false, nil
		a.gaps++
	}
}

// count adds what was counted to the phase that is on, but for the part that
// belongs to a pause before it.
func (a *account) count(i interval, pause *phase, pauseEnd time.Time) {
	a.whole += i.energy
	if pause != nil && pauseEnd.After(i.from) && pauseEnd.Before(i.to) {
		parts := split(i.energy, []float64{pauseEnd.Sub(i.from).Seconds(), i.to.Sub(pauseEnd).Seconds()})
		a.balance.Counted += parts[0]
		a.rest(parts[0], pauseEnd.Sub(i.from), pause)
		i = interval{pauseEnd, i.to, parts[1], i.to.Sub(pauseEnd)}
	}
	a.counted = with(a.counted, i)
}

// total returns what was counted, and over how much time.
func (a *account) total() (e power.Energy, covered time.Duration) {
	for _, i := range a.counted {
		e += i.energy
		covered += i.covered
	}
	return e, covered
}

// settle divides what was counted in a phase that has ended, at most most of
// it. Rails come first: their readings are of a moment of their own, so they may
// say a little more than the whole has.
func (a *account) settle(p *phase, most power.Energy) {
	energy, covered := a.total()
	energy = min(energy, most)
	own := energy
	for _, rail := range a.rails {
		own -= rail.settleWithin(p, own)
	}
	a.balance.Counted += own
	switch members := p.covered(a.domain); {
	case covered <= 0:
	case len(members) > 0:
		a.divide(p, members, own, covered)
	case p.after != nil && a.domain.Covers(p.after.work.Class):
		a.trail(p, own, covered)
	default:
		a.rest(own, covered, p)
	}
	a.counted = a.counted[:0]
}

// settleWithin settles a rail of a domain of which most is left, and returns how
// much of that was the rail's. What the rail counted while that domain was not
// counted is no part of it. What no job caused stays with the domain.
func (a *account) settleWithin(p *phase, most power.Energy) power.Energy {
	if len(p.covered(a.domain)) == 0 {
		energy, covered := a.total()
		a.learn(energy, covered, p)
		a.counted = a.counted[:0]
		return 0
	}
	inside, outside := a.within(a.parent.counted)
	inside = min(inside, most)
	a.settle(p, inside+outside)
	return inside
}

// within returns how much of what was counted is of the same time as others'
// intervals, and how much is not. Both lists are in order.
func (a *account) within(others []interval) (inside, outside power.Energy) {
	for _, i := range a.counted {
		for len(others) > 0 && !others[0].to.After(i.from) {
			others = others[1:]
		}
		var both time.Duration
		for _, o := range others {
			if !o.from.Before(i.to) {
				break
			}
			both += earlier(i.to, o.to).Sub(later(i.from, o.from))
		}
		parts := split(i.energy, []float64{both.Seconds(), (i.to.Sub(i.from) - both).Seconds()})
		inside, outside = inside+parts[0], outside+parts[1]
	}
	return inside, outside
}

// rest counts the energy of a phase without jobs. As long as nothing is known
// of the domain, it is all idle.
func (a *account) rest(e power.Energy, covered time.Duration, p *phase) {
	a.learn(e, covered, p)
	idle := e
	if draw, _, known := a.idle.draw(); known {
		idle = min(e, draw.For(covered))
	}
	a.balance.Idle += idle
	a.balance.Background += e - idle
}

// leastAwake is less than what any discrete GPU draws that is awake. One that
// drew less in a pause has slept, and its counter showed a little late what was
// before that.
const leastAwake = power.Watt

// learn learns the idle draw from a phase, if that tells of it.
func (a *account) learn(e power.Energy, covered time.Duration, p *phase) {
	least := leastPause
	if sleeps(a.domain) {
		least = leastUnread
	}
	if !p.teaches() || covered < least {
		return
	}
	draw := e.Over(covered)
	a.dozes = a.dozes || sleeps(a.domain) && draw < leastAwake
	a.idle.learn(draw, p.calm())
}

// trail counts the energy of the phase after a job, as long as its devices
// have not calmed down. A tail that the next job cuts off at once is told with
// the next one: on its own it would be a finer figure than is told of anything.
func (a *account) trail(p *phase, e power.Energy, covered time.Duration) {
	idle, background := e, power.Energy(0)
	if draw, calm, known := a.idleDraw(); known {
		idle = min(e, draw.For(covered))
		if calm {
			background = p.background(a.domain, e-idle)
		}
	}
	tail := e - idle - background
	a.balance.Idle += idle
	a.balance.Background += background
	a.balance.Jobs += tail
	a.untold, a.untoldFor = a.untold+tail, a.untoldFor+covered
	if a.untoldFor < leastWindow {
		return
	}
	if a.untold > 0 {
		p.after.tailSoFar += a.untold
		a.tails = append(a.tails, p.after)
	}
	a.untold, a.untoldFor = 0, 0
}

// idleDraw is what the domain draws without jobs. A discrete GPU that sleeps
// without them draws nothing, so all that it takes is theirs. Not every one does,
// a desktop's never: as long as it was not seen asleep, it is what it drew
// between a job's end and the begin of the next, when it is read anyway.
func (a *account) idleDraw() (draw power.Power, calm, known bool) {
	if sleeps(a.domain) && a.dozes {
		return 0, true, true
	}
	return a.idle.draw()
}

// divide divides the energy of a phase with jobs.
func (a *account) divide(p *phase, members []member, e power.Energy, covered time.Duration) {
	draw, calm, idleKnown := a.idleDraw()
	idle, background := min(e, draw.For(covered)), power.Energy(0)
	if calm { // else what others do is in the idle draw already
		background = p.background(a.domain, e-idle)
	}
	a.balance.Idle += idle
	a.balance.Background += background
	a.balance.Jobs += e - idle - background

	shares := split(e-idle-background, weights(a.domain, members))
	evenly := split(idle, make([]float64, len(members)))
	sharing := 0
	for _, m := range members {
		if m.part > 0 {
			sharing++
		}
	}
	for i, m := range members {
		part := &m.span.parts[a.index]
		part.energy += shares[i]
		part.idled += evenly[i]
		part.covered += covered
		if m.part > 0 {
			part.shared = max(part.shared, sharing)
		}
		part.idleUnknown = part.idleUnknown || !idleKnown
		part.backgroundUnknown = part.backgroundUnknown || !p.known || !calm
		if !m.writing {
			for _, traced := range a.trace(shares[i], draw) {
				part.reading = with(part.reading, traced)
			}
		}
	}
	claimable(members, func(holder int, c *claim, parts int) {
		c.energy[a.index] += shares[holder] / power.Energy(parts)
	})
}

// trace spreads a share of the phase over the intervals that it was counted in,
// by what each had above the idle draw.
func (a *account) trace(share power.Energy, idle power.Power) []interval {
	rates := make([]float64, len(a.counted))
	for i, c := range a.counted {
		rates[i] = max(float64(c.energy-idle.For(c.covered)), 0)
	}
	list := make([]interval, len(a.counted))
	for i, e := range split(share, rates) {
		list[i] = a.counted[i]
		list[i].energy = e
	}
	return list
}

// quiet reports whether nothing of ours goes on in the phase.
func (p *phase) quiet() bool { return len(p.members) == 0 && p.after == nil }

// teaches reports whether the phase tells what is drawn without jobs.
func (p *phase) teaches() bool { return p.quiet() && !p.mixed }

// calm reports whether the processors had little to do.
func (p *phase) calm() bool { return p.looked && p.busy < calmBusy }

// covered returns the members that show in a domain.
func (p *phase) covered(d power.Domain) []member {
	var list []member
	for _, m := range p.members {
		if d.Covers(m.span.work.Class) {
			list = append(list, m)
		}
	}
	return list
}

// background returns how much of a domain's active energy other processes
// caused: their part of the processors' time, of what the processors took. If a
// model runs on the processors, or none runs, that is all; else it is as much
// as they were busy, for the devices beside them take the rest.
func (p *phase) background(d power.Domain, active power.Energy) power.Energy {
	if !p.known || d.Scope != power.ScopePackage {
		return 0
	}
	part := p.busy
	if len(p.members) == 0 {
		part = 1
	}
	for _, m := range p.members {
		if m.span.work.Class == power.CPU {
			part = 1
		}
	}
	return min(max(power.Energy(float64(active)*part*p.foreign), 0), active)
}
