package meter

import (
	"context"
	"slices"
	"time"

	"github.com/joulemux/joulemux/power"
)

// Adopt replaces the sensors by those that there are now, and reports whether it
// did: while a job is under way its energy is told by the ones that saw it begin.
//
// What a domain has taken, and what is known of its idle draw, stays with the
// domain whoever reads it. A counter goes on, and no time between is lost.
func (m *Meter) Adopt(ctx context.Context, sensors []Sensor) (adopted bool) {
	m.update(ctx, m.due(time.Now(), true), func(now time.Time) {
		if adopted = len(m.jobs) == 0; adopted {
			m.turn(now) // A tail or a lull ends here.
			m.replace(sensors)
		}
	})
	return adopted
}

// replace begins anew whatever goes over all sensors.
func (m *Meter) replace(sensors []Sensor) {
	m.sum, m.gaps = m.counted()
	m.gaps++
	before := slices.Concat(m.accounts, m.gone)
	m.sensors = m.sources(sensors)
	m.accounts = accountsOf(m.sensors)
	for _, a := range m.accounts {
		if i := slices.IndexFunc(before, a.follows); i >= 0 {
			a.inherit(before[i])
			before = slices.Delete(before, i, i+1)
		}
		a.idle.conditions(m.condition) // They may have changed while it was gone.
	}
	for _, a := range before {
		a.known = false // If it comes back, nobody knows what its counter did meanwhile.
	}
	m.gone = before
	m.adopted++
	m.glance, m.told, m.glanced = glance{}, nil, time.Time{}
}

// sources returns those of sensors: the ones in use, of those that are.
func (m *Meter) sources(sensors []Sensor) []*source {
	list := make([]*source, len(sensors))
	for n, sensor := range sensors {
		if i := slices.IndexFunc(m.sensors, func(s *source) bool { return s.Sensor == sensor }); i >= 0 {
			list[n] = m.sensors[i]
		} else {
			list[n] = newSource(sensor)
		}
	}
	return list
}

// accountsOf opens an account for each domain that tells of jobs.
func accountsOf(sensors []*source) (accounts []*account) {
	for _, s := range sensors {
		accounts = append(accounts, newAccount(s))
	}
	for _, a := range accounts {
		i := slices.IndexFunc(accounts, func(b *account) bool { return b.domain.Name == a.domain.Within })
		if i >= 0 && a.counts() && accounts[i].counts() {
			a.parent, accounts[i].rails = accounts[i], append(accounts[i].rails, a)
		}
	}
	accounts = slices.DeleteFunc(accounts, func(a *account) bool { return !a.counts() })
	for i, a := range accounts {
		a.index = i
	}
	return accounts
}

// follows reports whether the account is of the same sensor as another.
func (a *account) follows(b *account) bool {
	return a.domain.Name == b.domain.Name && a.domain.Source == b.domain.Source
}

// inherit goes on with another account, and from its last reading if that counts
// in the same way, as it does if the next one is late.
func (a *account) inherit(from *account) {
	a.idle, a.balance, a.worked = from.idle, from.balance, from.worked
	a.dozes, a.foundAsleep, a.sleptBefore = from.dozes, from.foundAsleep, from.sleptBefore
	a.tails, a.untold, a.untoldFor = from.tails, from.untold, from.untoldFor
	domain := from.domain
	if domain.Within = a.domain.Within; domain == a.domain && from.known {
		a.last, a.known, a.slept = from.last, true, from.slept
		a.missed, a.missedAt = from.missed, from.missedAt
	}
}

// counted returns all that was ever counted, and how often a counter failed to
// tell.
func (m *Meter) counted() (sum power.Energy, gaps int) {
	sum, gaps = m.sum, m.gaps
	for _, a := range m.accounts {
		if a.parent == nil {
			sum += a.whole
		}
		if a.parent == nil && !sleeps(a.domain) {
			gaps += a.gaps
		}
	}
	return sum, gaps
}
