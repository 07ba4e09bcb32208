package meter

import (
	"context"
	"errors"
	"time"

	"github.com/joulemux/joulemux/power"
)

const (
	// Calm is how long after its last job a GPU has lowered its clocks. HeldDraw
	// tells nothing before.
	Calm = 10 * time.Second
	// heldWindow is over how long is measured what holding takes: twenty times as
	// long as a GPU's counter takes to be renewed.
	heldWindow = 2 * time.Second
	// mostTries is how often a sensor is asked that is not ready.
	mostTries = 8
)

// SeesHeld reports whether HeldDraw could tell of a device of that class. One
// sensor has to see it, and it must have been asleep before the model came that it
// holds: what it draws without a model, as where it shows a picture, it does not
// draw for holding one.
func (m *Meter) SeesHeld(c power.DeviceClass) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holder(c) != nil
}

// holder returns the only account that jobs of a class run on, if it is of a
// device that was asleep before, and else nil.
func (m *Meter) holder(c power.DeviceClass) (only *account) {
	for _, a := range m.accounts {
		if !a.domain.Holds(c) {
			continue
		}
		if only != nil || !a.sleptBefore {
			return nil
		}
		only = a
	}
	return only
}

// found notes of a device that a job begins on whether it slept, if it held no
// model.
func (m *Meter) found(w Work) {
	for _, a := range m.accounts {
		switch {
		case !sleeps(a.domain) || !a.domain.Holds(w.Class):
		case a.foundAsleep:
			a.sleptBefore = true
		case !w.Held && !m.runs(a.domain):
			a.sleptBefore = false
		}
	}
}

// HeldDraw returns what a device of that class draws while a model is in its
// memory and no job runs, as the mean of two seconds, if that can be told. It
// wakes nobody, and tells nothing where a job has not long ended there, one begins
// anywhere meanwhile, or the device turns out to be asleep. That a model is there
// all the time is the caller's to know.
func (m *Meter) HeldDraw(ctx context.Context, c power.DeviceClass) (power.Power, bool) {
	m.mu.Lock()
	a, begun, before := m.holder(c), m.begun, m.suspended()
	restless := a != nil && (m.runs(a.domain) || time.Since(a.worked) < Calm)
	m.mu.Unlock()
	if a == nil || restless {
		return 0, false
	}
	s := a.sensor
	defer m.letGo([]*source{s})
	s.hold() // until both readings are made, or whoever has read another would let go of it
	defer s.release()
	first, ok := s.await(ctx)
	domain := s.Domain()
	if !ok || !wait(ctx, heldWindow) {
		return 0, false
	}
	last, err := s.Read(ctx)
	if err != nil || s.Domain() != domain {
		return 0, false
	}
	energy, ok := domain.Between(first, last)
	window := last.At.Sub(first.At)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !ok || window < leastWindow || m.begun != begun || further(before, m.suspended()) {
		return 0, false
	}
	draw := energy.Told().Over(window)
	return draw, draw >= leastAwake
}

// await reads a sensor, which may take a moment to be ready.
func (s *source) await(ctx context.Context) (power.Reading, bool) {
	for range mostTries {
		r, err := s.Read(ctx)
		if err == nil {
			return r, true
		}
		if errors.Is(err, power.ErrAsleep) || !wait(ctx, leastWindow) {
			break
		}
	}
	return power.Reading{}, false
}
