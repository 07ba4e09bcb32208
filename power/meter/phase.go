package meter

import (
	"time"
)

// phase is a stretch of time in which the same jobs run, each of them either
// reading its prompt or writing.
type phase struct {
	start, end time.Time // no end: it is still on
	members    []member
	// after is the job that has just ended, if none runs: the phase is its
	// tail.
	after *Span
	// busy is the part of the processors that worked in the mean, and foreign
	// the part of that which was other processes'.
	busy, foreign float64
	looked, known bool
}

// member is a job in a phase.
type member struct {
	span    *Span
	writing bool
	// before and tokens are how many the job had written when the phase began,
	// and how many it wrote in it.
	before, tokens int64
	// part is the job's of what its backend takes in the phase.
	part float64
}

func newPhase(now time.Time, jobs []*Span) *phase {
	p := &phase{start: now}
	for _, s := range jobs {
		p.members = append(p.members, member{span: s, writing: s.writing, before: s.tokens.Load()})
	}
	return p
}

// close ends the phase, between two looks at the processors.
func (p *phase) close(now time.Time, from, to processors) {
	p.end = now
	for i := range p.members {
		m := &p.members[i]
		m.tokens = m.span.tokens.Load() - m.before
	}
	shareBackends(p.members)
	for _, m := range p.members {
		m.span.worked += time.Duration(m.part * float64(now.Sub(p.start)))
	}
	elapsed, busy := to.at.Sub(from.at), to.busy-from.busy
	if !from.known || !to.known || elapsed <= 0 {
		return
	}
	p.looked, p.busy = true, min(busy.Seconds()/elapsed.Seconds()/float64(to.count), 1)
	if busy <= 0 {
		return
	}
	var ours time.Duration
	for group := range p.groups() {
		used, before := to.used[group], from.used[group]
		if group == "" || used == nil || before == nil {
			return // somebody's time cannot be told from others'
		}
		ours += *used - *before
	}
	p.known = true
	p.foreign = min(max(1-ours.Seconds()/busy.Seconds(), 0), 1)
}

// groups returns the control groups of the backends at work.
func (p *phase) groups() map[string]bool {
	groups := make(map[string]bool)
	for _, m := range p.members {
		groups[m.span.work.Group] = true
	}
	if p.after != nil {
		groups[p.after.work.Group] = true
	}
	return groups
}

// processors is one look at the time that processors have worked.
type processors struct {
	at    time.Time
	known bool
	count int
	busy  time.Duration
	// used is by control group; a group that cannot be read has none.
	used map[string]*time.Duration
}

// processors looks, unless the last look is fresh.
func (m *Meter) processors(now time.Time) processors {
	if m.cpu == nil {
		return processors{at: now}
	}
	groups := make(map[string]bool)
	if m.now != nil { // there is none yet when a meter is made
		groups = m.now.groups()
	}
	for _, s := range m.jobs {
		groups[s.work.Group] = true
	}
	delete(groups, "")
	if m.cpuNow.known && now.Sub(m.cpuNow.at) < m.fresh && sees(m.cpuNow, groups) {
		return m.cpuNow
	}
	busy, err := m.cpu.Busy()
	look := processors{at: now, known: err == nil, count: max(m.cpu.Count(), 1), busy: busy, used: make(map[string]*time.Duration)}
	for group := range groups {
		if used, err := m.cpu.Used(group); err == nil {
			look.used[group] = &used
		}
	}
	return look
}

// sees reports whether a look has all those groups.
func sees(p processors, groups map[string]bool) bool {
	for group := range groups {
		if p.used[group] == nil {
			return false
		}
	}
	return true
}
