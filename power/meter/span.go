package meter

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/joulemux/joulemux/power"
)

// Work is a job as the meter needs to know it.
type Work struct {
	ID, Backend string
	// Client is who asked for it. The meter only passes it on.
	Client string
	Class  power.DeviceClass
	// Draw is what the backend is assumed to take while it works: it divides
	// what a sensor cannot, and stands for what no sensor sees. Of one elsewhere
	// it is the radio's.
	Draw power.Power
	// Learned is what the backend was measured to take, or zero. Where no sensor
	// sees a job, it stands for Draw; what sensors see is not divided by it, or
	// an error in it would teach itself.
	Learned power.Power
	// Held tells that a model, be it another, was in the device's memory before.
	Held bool
}

// Span is the time in which a job runs on a backend.
type Span struct {
	meter  *Meter
	work   Work
	tokens atomic.Int64
	first  atomic.Bool

	// The rest belongs to the meter.
	begun, ended time.Time
	writing      bool
	worked       time.Duration // by its backend, on this job
	parts        []part        // by account
	tailSoFar    power.Energy
	tailTold     power.Energy
	claims       map[*Span]*claim // on others, as long as it shows nothing
	late         []*claim         // on those that have ended
}

// part is what a job took of one domain.
type part struct {
	*account
	energy, idled power.Energy
	covered       time.Duration
	shared        int // jobs, at most
	// lost is what it had a claim to and others have been told, and contested
	// what it was told and others had a claim to.
	lost, contested power.Energy
	// reading is energy by time, until the first token: a part of it went into
	// loading, and how long that took is told only at the end.
	reading                        []interval
	idleUnknown, backgroundUnknown bool
}

func (s *Span) open(accounts []*account) {
	s.parts = make([]part, len(accounts))
	for i, a := range accounts {
		s.parts[i].account = a
	}
}

// Tokens counts tokens that the job has written. It is called for each piece of
// the answer, and costs next to nothing but the first time.
func (s *Span) Tokens(ctx context.Context, n int) {
	s.tokens.Add(int64(n))
	if !s.first.Swap(true) {
		s.meter.first(ctx, s)
	}
}

// End closes the span and returns what the job took. By the backend's own account,
// which is zero where it gives none, it worked on the job until now for as long as
// worked, and load of that was for making the model resident.
func (s *Span) End(ctx context.Context, load, worked time.Duration) power.Cost {
	s.meter.end(ctx, s, worked)
	s.meter.mu.Lock()
	defer s.meter.mu.Unlock()
	return s.cost(load)
}

// Tail returns what the job has made its devices take after its end, as far as
// that is known by now.
func (s *Span) Tail() power.Energy {
	s.meter.mu.Lock()
	defer s.meter.mu.Unlock()
	return s.tailSoFar
}

// apart reports whether the job's device has an account of its own beside the
// one of the processor, which then sees only what the processor does for it.
func (s *Span) apart(d power.Domain) bool {
	return d.Scope == power.ScopePackage && slices.ContainsFunc(s.parts, func(p part) bool {
		return p.known && p.domain.Scope != power.ScopePackage && p.domain.Holds(s.work.Class)
	}) || !d.Holds(s.work.Class)
}

// leastWindow is the shortest time for which a measured value is told. Finer
// ones would let a program that times its requests learn what others compute
// (PLATYPUS, CVE-2020-8694), and the counters' own period blurs them.
const leastWindow = 250 * time.Millisecond

// cost adds up what the job took of every domain.
func (s *Span) cost(load time.Duration) power.Cost {
	window := s.ended.Sub(s.begun)
	if s.work.Class == power.Cloud {
		return power.Cost{Quality: power.None, Source: "remote", Radio: s.work.Draw.For(window)}
	}
	if window < leastWindow {
		return s.estimate()
	}
	var sum power.Cost
	seen := false // the device itself, and not only the processor beside it
	for _, p := range s.parts {
		if p.covered >= leastWindow {
			sum = sum.Plus(s.measured(p, window, load))
			seen = seen || p.domain.Holds(s.work.Class)
		}
	}
	if !sum.Known() {
		return s.estimate()
	}
	if !seen {
		sum = sum.Plus(s.estimate())
		sum.Coverage, sum.Uncertainty = 0, 0
	}
	return sum
}

// estimate is the draw that was learned, or else is assumed, times the time in
// which the backend worked on the job.
func (s *Span) estimate() power.Cost {
	draw, how := s.work.Draw, "assumed"
	if s.work.Learned > 0 {
		draw, how = s.work.Learned, "learned"
	}
	return power.Cost{
		Energy: draw.For(s.worked), Quality: power.Estimated,
		Source: fmt.Sprintf("%v %s x %.2f s", draw, how, s.worked.Seconds()),
	}
}

// measured is what the job took of one domain.
func (s *Span) measured(p part, window, load time.Duration) power.Cost {
	c := power.Cost{
		Energy: p.energy, Gross: p.energy + p.idled, Load: s.loaded(p, load),
		Quality: power.Measured, Scope: string(p.domain.Scope), Source: p.domain.Source,
		Uncertainty: p.uncertainty(window),
		Coverage:    min(p.covered.Seconds()/window.Seconds(), 1), Shared: p.shared,
	}
	if !p.domain.Cumulative || p.shared > 1 || p.doubt() > leastDoubt {
		c.Quality = power.Derived
	}
	return c
}

// leastDoubt is as much as two clocks that disagree make of a job.
const leastDoubt = 0.01

// doubt returns what it may have too much or too little, as a part of it.
func (p part) doubt() float64 {
	return max(p.lost, p.contested).Joules() / max(p.energy, 1).Joules()
}

// loaded returns the energy of the first moments, for so long as load. If they,
// or what comes after them, are too short to be told of, it is their part of the
// time: what they took themselves would be a finer figure than is told.
func (s *Span) loaded(p part, load time.Duration) (sum power.Energy) {
	window := s.ended.Sub(s.begun)
	if load < leastWindow || window-load < leastWindow {
		return power.Energy(float64(p.energy) * min(max(load.Seconds()/window.Seconds(), 0), 1))
	}
	until := s.begun.Add(load)
	for _, i := range p.reading {
		whole := i.to.Sub(i.from)
		within := min(until.Sub(i.from), whole)
		if within > 0 && whole > 0 {
			sum += power.Energy(float64(i.energy) * within.Seconds() / whole.Seconds())
		}
	}
	return min(sum, p.energy) // a part of it may be another's by now
}

// What is not certain about a measured figure, as parts of it: the class of
// the sensors themselves, a sum of samples, dividing among jobs, processes that
// cannot be told apart, and an idle draw that was never seen.
const (
	sensorError     = 0.05
	samplingError   = 0.10
	sharingError    = 0.20
	backgroundError = 0.10
	idleError       = 0.50
)

// uncertainty adds up the errors as independent ones.
func (p part) uncertainty(window time.Duration) float64 {
	edges := (fresh + p.domain.Period).Seconds() / window.Seconds()
	sum := sensorError*sensorError + edges*edges
	for _, e := range []struct {
		applies bool
		error   float64
	}{
		{!p.domain.Cumulative, samplingError},
		{p.shared > 1, sharingError},
		{true, p.doubt()},
		{p.backgroundUnknown && p.domain.Scope == power.ScopePackage, backgroundError},
		{p.idleUnknown, idleError},
	} {
		if e.applies {
			sum += e.error * e.error
		}
	}
	return min(math.Sqrt(sum), 1)
}
