package meter

import (
	"slices"
	"sync"
	"sync/atomic"
)

// source is a sensor, and whether somebody has it in hand.
type source struct {
	Sensor
	rester Rester // the same, if it holds something
	// hand is held by all who read the sensor, for as long as they need what it
	// holds; and by who lets go of that, alone.
	hand sync.RWMutex
	// holds says that it was read and not let go of since.
	holds atomic.Bool
}

func newSource(s Sensor) *source {
	r, _ := s.(Rester)
	return &source{Sensor: s, rester: r}
}

// hold takes the sensor in hand, to read it.
func (s *source) hold() {
	s.hand.RLock()
	s.holds.Store(true)
}

func (s *source) release() { s.hand.RUnlock() }

// rests reports whether the sensor has let go of what it needs to be read.
func (s *source) rests() bool { return s.rester != nil && !s.holds.Load() }

// idle takes in hand those sensors that hold something and will not be read for a
// while, for rest. Of one that somebody reads just now he lets go himself, even if
// it was replaced meanwhile, or else has a job that needs it.
func (m *Meter) idle(lists ...[]*source) (list []*source) {
	for _, sources := range lists {
		for _, s := range sources {
			reads := func(a *account) bool { return a.sensor == s && (a.wanted(m.jobs) || a.trails(m.now)) }
			if s.rester == nil || s.rests() || slices.ContainsFunc(m.accounts, reads) || !s.hand.TryLock() {
				continue
			}
			s.holds.Store(false)
			list = append(list, s)
		}
	}
	return list
}

// letGo has those sensors rest that nobody needs.
func (m *Meter) letGo(sensors []*source) {
	m.mu.Lock()
	idle := m.idle(sensors)
	m.mu.Unlock()
	rest(idle)
}

// rest lets go of what those sensors hold. It may take a moment, so nothing else
// must wait for it than who wants to read them again.
func rest(list []*source) {
	for _, s := range list {
		s.rester.Rest()
		s.hand.Unlock()
	}
}
