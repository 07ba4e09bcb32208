package meter

import (
	"time"

	"github.com/joulemux/joulemux/power"
)

// claim is what a job that shows no token has to claim of what another one of
// its backend was given meanwhile: a fair part.
//
// Such a job stands in line, reads its prompt, or writes an answer that comes
// undivided. If it shows a token, it is taken to have stood in line. If it ends
// without one, it was worked on all the same, and has what it claims of those
// that are still under way. What the others have been told stays: then it is not
// certain what either took. Of the time before its backend began to work on it,
// if that tells, the job has nothing to claim.
type claim struct {
	energy       []power.Energy // by account
	worked       time.Duration
	among        int       // jobs, at most
	since, until time.Time // it is about
}

// begin leaves of the claim what is of the time from then on.
func (c *claim) begin(from time.Time) {
	if !from.After(c.since) {
		return
	}
	part := 0.0
	if from.Before(c.until) {
		part = c.until.Sub(from).Seconds() / c.until.Sub(c.since).Seconds()
	}
	for i := range c.energy {
		c.energy[i] = power.Energy(part * float64(c.energy[i]))
	}
	c.worked = time.Duration(part * float64(c.worked))
}

// waiting returns how many jobs divide what the member's backend takes, and
// which others of that backend show nothing.
func (m *member) waiting(members []member) (working int, silent []*Span) {
	for _, other := range members {
		switch {
		case other.span.work.Backend != m.span.work.Backend:
		case other.part > 0:
			working++
		case !other.writing:
			silent = append(silent, other.span)
		}
	}
	return working, silent
}

// claimable calls note for each part of a phase that is given to one job and
// that another has a claim to, which is one of so many equal parts.
func claimable(members []member, note func(holder int, c *claim, parts int)) {
	for i := range members {
		if members[i].part <= 0 {
			continue
		}
		working, silent := members[i].waiting(members)
		for _, s := range silent {
			c := s.claimOn(members[i].span)
			c.among = max(c.among, working+len(silent))
			note(i, c, working+len(silent))
		}
	}
}

// claimOn returns what the job claims of another's.
func (s *Span) claimOn(other *Span) *claim {
	if s.claims == nil {
		s.claims = make(map[*Span]*claim)
	}
	if s.claims[other] == nil {
		s.claims[other] = &claim{energy: make([]power.Energy, len(s.parts))}
	}
	return s.claims[other]
}

// renounce gives up all claims: the job has begun to write.
func (s *Span) renounce() { s.claims, s.late = nil, nil }

// enforce takes what the job claims, from jobs that are under way.
func (s *Span) enforce(from time.Time) {
	for other, c := range s.claims {
		c.begin(from)
		for i, e := range c.energy {
			if e <= 0 {
				continue
			}
			mine, theirs := &s.parts[i], &other.parts[i]
			mine.energy, theirs.energy = mine.energy+e, theirs.energy-e
			mine.shared, theirs.shared = max(mine.shared, c.among), max(theirs.shared, c.among)
		}
		s.worked, other.worked = s.worked+c.worked, other.worked-c.worked
	}
	s.claims = nil
}

// lose notes that what the job claims of one that ends comes too late.
func (s *Span) lose(other *Span) {
	c := s.claims[other]
	if c == nil {
		return
	}
	for i, e := range c.energy {
		other.parts[i].contested += e
	}
	s.late = append(s.late, c)
	delete(s.claims, other)
}

// conclude ends a job's claims and those of others on it. One of which nobody waits
// for the answer any more enforces none: it may have left the line.
func (m *Meter) conclude(s *Span, answered bool, worked time.Duration) {
	from := s.begun
	if worked > 0 {
		from = later(from, s.ended.Add(-worked))
	}
	if answered {
		s.enforce(from)
	}
	for other := range s.claims {
		s.lose(other)
	}
	for _, c := range s.late {
		c.begin(from)
		for i, e := range c.energy {
			s.parts[i].lost += e
		}
	}
	s.late = nil
	for _, other := range m.jobs {
		other.lose(s)
	}
}
