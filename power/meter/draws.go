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
// takes as long as the shortest span with a measured value.
func (m *Meter) Draws(ctx context.Context) []Draw {
	if len(m.sensors) == 0 {
		return nil
	}
	m.mu.Lock()
	before, looked := m.glance, m.glanced
	m.mu.Unlock()
	if list := m.toldLately(); list != nil {
		return list
	}
	if age := time.Since(looked); age < leastWindow || age > together {
		before = m.look(ctx)
		select {
		case <-time.After(leastWindow):
		case <-ctx.Done():
			return nil
		}
		if list := m.toldLately(); list != nil {
			return list
		}
	}
	now := m.look(ctx)
	list := []Draw{}
	for i, s := range m.sensors {
		if d, ok := drawOf(s.Domain(), before[i], now[i]); ok {
			list = append(list, d)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.glance, m.glanced, m.told = now, time.Now(), list
	m.rest()
	return slices.Clone(list)
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
	return slices.ContainsFunc(m.sensors, func(s Sensor) bool { return s.Domain().Name == name })
}

// look reads every sensor whose device does not have to be left alone.
func (m *Meter) look(ctx context.Context) []look {
	looks := make([]look, len(m.sensors))
	for i, s := range m.sensors {
		if sleeps(s.Domain()) && !m.atWork(s.Domain()) {
			looks[i].err = power.ErrUnavailable
			continue
		}
		looks[i].reading, looks[i].err = s.Read(ctx)
	}
	return looks
}

// atWork reports whether a job runs that shows in a domain.
func (m *Meter) atWork(d power.Domain) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.jobs {
		if d.Holds(s.work.Class) {
			return true
		}
	}
	return false
}

// drawOf returns what two looks tell, if that is anything. Of a counter it is as
// fine as the energy of jobs, and no finer: see power.Cost.Told.
func drawOf(d power.Domain, before, now look) (Draw, bool) {
	switch {
	case errors.Is(now.err, power.ErrAsleep):
		return Draw{Domain: d, Asleep: true}, true
	case now.err != nil:
		return Draw{}, false
	case !d.Cumulative:
		return Draw{Domain: d, Draw: now.reading.Draw}, true
	}
	energy, ok := d.Between(before.reading, now.reading)
	return Draw{Domain: d, Draw: energy.Told().Over(now.reading.At.Sub(before.reading.At))}, ok && before.err == nil
}
