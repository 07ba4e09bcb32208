package queue

import (
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// line is one backend's: who is at work there, and who waits for it.
type line struct {
	slots  int
	atWork order[*entry] // by when their work is predicted to end, which is their weight too
	// interactive goes before background.
	interactive, background turns
	promotions              order[*entry] // of those in background, by when, weighing their work
}

func newLine() *line {
	return &line{slots: 1, interactive: newTurns(), background: newTurns()}
}

// turns returns those of a class.
func (l *line) turns(class job.Class) *turns {
	if class == job.Background {
		return &l.background
	}
	return &l.interactive
}

// free reports whether a slot is.
func (l *line) free() bool { return l.atWork.len() < l.slots }

// join adds an entry to those that wait.
func (l *line) join(e *entry) {
	t := l.turns(classOf(e.Ticket))
	t.join(e)
	if t == &l.background && e.promote != never {
		l.promotions.add(key{e.promote, e.arrival}, e, e.Work)
	}
}

// withdraw removes an entry from those that wait.
func (l *line) withdraw(e *entry) {
	l.promotions.remove(key{e.promote, e.arrival})
	e.turns.withdraw(e)
}

// promote lets background jobs whose time has come count as interactive. Among
// their client's they are due at that time at the latest, since one that is
// never due would otherwise starve behind those that are.
func (l *line) promote(at time.Duration) {
	for {
		e, ok := l.promotions.first()
		if !ok || e.promote > at {
			return
		}
		l.withdraw(e)
		e.due = min(e.due, e.promote)
		l.interactive.join(e)
	}
}

// lease gives a slot to whose turn it is.
func (l *line) lease(at time.Duration) (e *entry, ok bool) {
	if e, ok = l.interactive.take(); !ok {
		if e, ok = l.background.take(); !ok {
			return nil, false
		}
	}
	l.promotions.remove(key{e.promote, e.arrival})
	e.leased, e.began = true, at
	l.atWork.add(key{at + e.Work, e.arrival}, e, at+e.Work)
	return e, true
}

// end takes a slot back.
func (l *line) end(at time.Duration, e *entry) {
	l.atWork.remove(key{e.began + e.Work, e.arrival})
	e.turns.end(e, max(0, at-e.began))
}

// remains returns the work left to do for those who are at work. Who takes
// longer than was predicted is taken to end now.
func (l *line) remains(at time.Duration) time.Duration {
	over, ended := l.atWork.upTo(at)
	return l.atWork.sum() - ended - time.Duration(l.atWork.len()-over)*at
}

// firstFree returns when a slot is predicted to be free, but no less than a
// second.
func (l *line) firstFree(at time.Duration) time.Duration {
	first := time.Second
	if e, ok := l.atWork.first(); ok {
		first = max(first, e.began+e.Work-at)
	}
	return first
}

// place is where in a line a job would stand, or does.
type place struct {
	client string
	class  job.Class // that it counts as
	due    time.Duration
	// promote and work are of a job that stands there, which does not wait for
	// itself.
	promote, work time.Duration
}

// placeOf returns the place of an entry that waits.
func (l *line) placeOf(e *entry) place {
	class := job.Interactive
	if e.turns == &l.background {
		class = job.Background
	}
	return place{e.Client, class, e.due, e.promote, e.Work}
}

// promotionRounds is how often ahead looks for background jobs that will be
// promoted while it waits for those it has found, before it counts them all.
const promotionRounds = 4

// ahead returns for how long a job in some place has to wait, or somewhat more.
//
// While it waits, every slot is busy with jobs that go before it, so it waits
// no longer than their work over the slots. Jobs that are promoted meanwhile
// may be among them.
func (l *line) ahead(at time.Duration, p place) time.Duration {
	if l.free() {
		return 0
	}
	slots := time.Duration(l.slots)
	remains := l.remains(at) + slots - 1 // rounds up
	wait := (remains + l.before(p, 0)) / slots
	for round, promoted := 0, time.Duration(0); ; round++ {
		work := l.promotedBy(at+wait, p)
		if work == promoted {
			return wait
		}
		if round == promotionRounds {
			work = l.promotedBy(never-1, p)
		}
		promoted = work
		wait = (remains + l.before(p, work)) / slots
	}
}

// promotedBy returns the work of the jobs that are promoted until then, but
// for the one in a place.
func (l *line) promotedBy(at time.Duration, p place) time.Duration {
	_, work := l.promotions.upTo(at)
	if p.class == job.Background && p.promote <= at {
		work -= p.work
	}
	return work
}

// before returns the work of those that wait and go before a job in a place,
// or somewhat more, if background jobs with so much work are promoted.
func (l *line) before(p place, promoted time.Duration) time.Duration {
	if p.class == job.Background {
		return l.interactive.work + min(l.background.work-p.work, l.background.before(p, promoted))
	}
	return min(l.interactive.work-p.work+promoted, l.interactive.before(p, promoted))
}
