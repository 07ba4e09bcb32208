package meter

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/joulemux/joulemux/power"
)

// Draw is what a domain draws now, for people to look at.
type Draw struct {
	Domain power.Domain
	Draw   power.Power
	// Asleep domains draw next to nothing, and are not woken up to be asked.
	Asleep bool
}

// together is how soon somebody who keeps looking comes again: two looks not
// further apart make one figure.
const together = 5 * time.Second

// Draws returns what every domain draws that can be read without disturbing
// it. Counters have to be read twice: unless somebody has looked lately, this
// takes as long as the shortest span with a measured value, or a little longer.
func (m *Meter) Draws(ctx context.Context) []Draw {
	m.mu.Lock()
	sensors, adopted, before, looked := m.sensors, m.adopted, m.glance, m.glanced
	m.mu.Unlock()
	if len(sensors) == 0 {
		return nil
	}
	if list := m.toldLately(); list != nil {
		return list
	}
	defer m.letGo(sensors)
	if age := time.Since(looked); age < leastWindow || age > together {
		before = m.look(ctx, sensors)
		if !wait(ctx, leastWindow) {
			return nil
		}
		if list := m.toldLately(); list != nil {
			return list
		}
	}
	now, ok := m.lookAfter(ctx, sensors, before)
	if !ok {
		return nil
	}
	list := []Draw{}
	for i := range sensors {
		if d, ok := drawOf(before, now, i); ok {
			list = append(list, d)
		}
	}
	m.mu.Lock()
	if adopted == m.adopted {
		m.glance, m.glanced, m.told = now, time.Now(), list
	}
	m.mu.Unlock()
	return slices.Clone(list)
}

// wait waits, unless ctx ends sooner.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

const (
	// mostLooks is how often sensors are looked at for a reading that is late
	// enough.
	mostLooks = 3
	// shared is for how long a reading stands that was made for somebody else:
	// power/energyd reads the hardware ten times a second at most.
	shared = 100 * time.Millisecond
)

// lookAfter reads every sensor again. Readings may be older than the look, so it
// looks again as long as one of a counter is not far enough from the one before:
// twice, for there may be none.
func (m *Meter) lookAfter(ctx context.Context, sensors []*source, before glance) (now glance, ok bool) {
	now = m.look(ctx, sensors)
	for range mostLooks - 1 {
		lacking := now.lacks(before)
		if lacking <= 0 {
			break
		}
		if !wait(ctx, max(lacking, shared)) {
			return now, false
		}
		now = m.look(ctx, sensors)
	}
	return now, true
}

// toldLately returns what somebody else was told within the shortest span with a
// measured value: looks that overlap would tell of less.
func (m *Meter) toldLately() []Draw {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.glanced) >= leastWindow {
		return nil
	}
	return slices.Clone(m.told)
}

// Reads reports whether there is a sensor for the domain of that name.
func (m *Meter) Reads(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.sensors, func(s *source) bool { return s.Domain().Name == name })
}

// glance is what all sensors said, and how long the machine had slept before
// they were read and after.
type glance struct {
	looks         []look
	before, after time.Duration
}

// look reads every sensor whose device does not have to be left alone.
func (m *Meter) look(ctx context.Context, sensors []*source) glance {
	g := glance{looks: make([]look, len(sensors)), before: m.suspended()}
	for i, s := range sensors {
		l := &g.looks[i]
		if l.domain = s.Domain(); sleeps(l.domain) && !m.atWork(l.domain) {
			l.err = power.ErrUnavailable
			continue
		}
		s.hold()
		l.reading, l.err = s.Read(ctx)
		l.domain = s.Domain()
		s.release()
	}
	g.after = m.suspended()
	return g
}

// lacks returns how much time a counter's readings still need between them to
// be told.
func (g glance) lacks(before glance) (most time.Duration) {
	for i, l := range g.looks {
		if l.domain.Cumulative && l.err == nil && before.looks[i].err == nil {
			most = max(most, leastWindow-l.reading.At.Sub(before.looks[i].reading.At))
		}
	}
	return most
}

// atWork reports whether a job runs that shows in a domain.
func (m *Meter) atWork(d power.Domain) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.runs(d)
}

// runs is atWork for whoever has the meter locked.
func (m *Meter) runs(d power.Domain) bool {
	return slices.ContainsFunc(m.jobs, func(s *Span) bool { return d.Holds(s.work.Class) })
}

// drawOf returns what two looks tell of a sensor, if that is anything. Of a
// counter it is as fine as the energy of jobs, and no finer: see power.Cost.Told.
func drawOf(before, now glance, sensor int) (Draw, bool) {
	first, l := before.looks[sensor], now.looks[sensor]
	switch {
	case errors.Is(l.err, power.ErrAsleep):
		return Draw{Domain: l.domain, Asleep: true}, true
	case l.err != nil:
		return Draw{}, false
	case !l.domain.Cumulative:
		return Draw{Domain: l.domain, Draw: l.reading.Draw}, true
	}
	window := l.reading.At.Sub(first.reading.At)
	if first.err != nil || first.domain != l.domain || window < leastWindow || further(before.before, now.after) {
		return Draw{}, false
	}
	energy, ok := l.domain.Between(first.reading, l.reading)
	return Draw{Domain: l.domain, Draw: energy.Told().Over(window)}, ok
}
