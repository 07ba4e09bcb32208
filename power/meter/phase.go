package meter

import (
	"slices"
	"time"
)

// phase is a stretch of time in which the same jobs run, each of them either
// reading its prompt or writing.
type phase struct {
	start   time.Time
	members []member
	// after is the job that has just ended, if none runs: the phase is its
	// tail.
	after *Span
	// mixed says that the conditions changed during it.
	mixed bool
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
	p := &phase{start: now, members: make([]member, 0, len(jobs))}
	for _, s := range jobs {
		p.members = append(p.members, member{span: s, writing: s.writing, before: s.tokens.Load()})
	}
	return p
}

// close ends the phase, between two looks at the processors.
func (p *phase) close(now time.Time, from, to processors) {
	for i := range p.members {
		m := &p.members[i]
		m.tokens = m.span.tokens.Load() - m.before
	}
	shareBackends(p.members)
	worked := func(m member) time.Duration { return time.Duration(m.part * float64(now.Sub(p.start))) }
	for _, m := range p.members {
		m.span.worked += worked(m)
	}
	claimable(p.members, func(holder int, c *claim, parts int) {
		c.worked += worked(p.members[holder]) / time.Duration(parts)
		if c.until = now; c.since.IsZero() {
			c.since = p.start
		}
	})
	elapsed, busy := to.at.Sub(from.at), to.busy-from.busy
	if !from.known || !to.known || elapsed <= 0 || busy < 0 {
		return
	}
	p.looked, p.busy = true, min(busy.Seconds()/elapsed.Seconds()/float64(to.count), 1)
	if busy <= 0 {
		return
	}
	var ours time.Duration
	for _, backend := range p.backends(nil) {
		used, before := to.used[backend], from.used[backend]
		// A counter that went back is another's: the server was started anew, and
		// what it used before that nobody knows.
		if used == nil || before == nil || *used < *before {
			return // somebody's time cannot be told from others'
		}
		ours += *used - *before
	}
	p.known = true
	p.foreign = min(max(1-ours.Seconds()/busy.Seconds(), 0), 1)
}

// backends adds those at work, or that have just been, to a list.
func (p *phase) backends(list []string) []string {
	for _, m := range p.members {
		list = and(list, m.span)
	}
	if p.after != nil {
		list = and(list, p.after)
	}
	return list
}

// and returns a list of backends that has the one of a job in it, once.
func and(list []string, s *Span) []string {
	if slices.Contains(list, s.work.Backend) {
		return list
	}
	return append(list, s.work.Backend)
}

// processors is one look at the time that processors have worked.
type processors struct {
	at    time.Time
	known bool
	count int
	busy  time.Duration
	// used is by backend; one whose processes are not known has none.
	used map[string]*time.Duration
}

// processors looks, unless the last look is fresh.
func (m *Meter) processors(now time.Time) processors {
	if m.cpu == nil || len(m.accounts) == 0 {
		return processors{at: now}
	}
	backends := make([]string, 0, 4)
	if m.now != nil { // there is none yet when a meter is made
		backends = m.now.backends(backends)
	}
	for _, s := range m.jobs {
		backends = and(backends, s)
	}
	if m.cpuNow.known && now.Sub(m.cpuNow.at) < m.fresh && sees(m.cpuNow, backends) {
		return m.cpuNow
	}
	busy, err := m.cpu.Busy()
	look := processors{at: now, known: err == nil, count: max(m.cpu.Count(), 1), busy: busy, used: make(map[string]*time.Duration)}
	for _, backend := range backends {
		used, err := m.cpu.Used(backend)
		look.used[backend] = nil
		if err == nil {
			look.used[backend] = &used
		}
	}
	return look
}

// sees reports whether a look was at all those backends.
func sees(p processors, backends []string) bool {
	for _, backend := range backends {
		if _, looked := p.used[backend]; !looked {
			return false
		}
	}
	return true
}
