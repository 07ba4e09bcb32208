// Package queue knows who waits, who is next, and whose slot it is.
//
// Each backend has slots, and a line before them. In it interactive jobs go
// before background jobs; in a class the client goes first that has had least
// of the backend's time; and of a client's jobs the one that is due first.
// A slot that is free is given away in the same call, so nobody waits before
// one. What a job is, where it should run and when to think again is for
// others to say: a Queue is told, and does no I/O, has no clock and no
// goroutine. The same calls with the same times have the same outcome.
//
// No call takes longer than the logarithm of how many wait, save for Line and
// Parked, which list them.
package queue

import (
	"fmt"
	"math"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// Ticket is a job's place in the queue.
type Ticket struct {
	ID, Client string
	Class      job.Class
	// Backend is in whose line the job stands; none is parked, in no line
	// until it is moved to one.
	Backend string
	// Due is when its last token is due; zero is never.
	Due time.Time
	// Work is for how long it is predicted to occupy a slot.
	Work time.Duration
	// Review is when to think again about whether it should wait here; zero
	// is never.
	Review time.Time
	// Promote is from when on a background job counts as interactive, so that
	// it does not starve; zero is never.
	Promote time.Time
}

// Queue holds every job from when it enters until it leaves. It belongs to one
// goroutine.
type Queue struct {
	most int
	// epoch is the first moment that the queue was told of: times are kept as
	// spans since then, which a step of the wall clock does not touch.
	epoch    time.Time
	arrivals uint64
	jobs     map[string]*entry
	lines    map[string]*line
	parked   order[*entry] // by arrival
	reviews  order[*entry] // of those that wait
	waiting  map[job.Class]int
}

// entry is a job in the queue.
type entry struct {
	Ticket
	arrival uint64
	// due, review and promote are the ticket's as spans since the epoch.
	due, review, promote time.Duration
	line                 *line // nil where it is parked
	// turns and client are where in the line it stands, and to whose account
	// its work goes.
	turns  *turns
	client *client
	leased bool
	began  time.Duration
}

// never is the span of what does not come.
const never = time.Duration(math.MaxInt64)

// mostWork bounds what a job is believed to take, so that the work of a
// hundred thousand can be added up.
const mostWork = 12 * time.Hour

// New returns a queue in which at most so many jobs of each class wait. One
// class does not use up the places of the other.
func New(most int) *Queue {
	return &Queue{
		most:    most,
		jobs:    make(map[string]*entry),
		lines:   make(map[string]*line),
		waiting: make(map[job.Class]int),
	}
}

// Slots says how many jobs a backend may have at work; fewer than one is one,
// and so is not having been told. It returns the jobs that got a slot by it.
// Where there are fewer than before, who is at work stays.
func (q *Queue) Slots(now time.Time, backend string, n int) (next []string) {
	l := q.line(backend)
	l.slots = max(1, n)
	return q.fill(l, q.since(now))
}

// Enter lets a job in, and reports whether it got a slot at once. Where it
// would have to wait and too many do, the error is a *job.Error with the code
// Busy, which says when to try again.
func (q *Queue) Enter(now time.Time, t Ticket) (leased bool, err error) {
	if _, ok := q.jobs[t.ID]; ok {
		return false, fmt.Errorf("job %s is in the queue already", t.ID)
	}
	at := q.since(now)
	if err := q.full(at, t); err != nil {
		return false, err
	}
	q.arrivals++
	e := &entry{arrival: q.arrivals}
	q.jobs[t.ID] = e
	return q.place(at, e, t), nil
}

// full returns the error for a job that would be one too many.
func (q *Queue) full(at time.Duration, t Ticket) error {
	class := classOf(t)
	if q.waiting[class] < q.most || t.Backend != "" && q.line(t.Backend).free() {
		return nil
	}
	e := job.Errorf(job.Busy, "%d %s jobs wait already", q.waiting[class], class)
	e.RetryAfter = retryParked
	if t.Backend != "" {
		e.RetryAfter = q.line(t.Backend).firstFree(at)
	}
	return e
}

// retryParked is when to try again to wait for a better tier. Nobody knows
// when that comes; this only spares both sides from asking all the time.
const retryParked = time.Minute

// Move puts a job that waits into another line, or parks it, with its new
// ticket, and reports whether it got a slot there. It keeps its place in order
// of arrival, and is never refused. Who is at work or unknown is not moved.
func (q *Queue) Move(now time.Time, t Ticket) (leased bool) {
	e, ok := q.jobs[t.ID]
	if !ok || e.leased {
		return false
	}
	q.withdraw(e)
	return q.place(q.since(now), e, t)
}

// Leave ends a job's wait or its lease, and returns the jobs that got a slot
// by it. A job that is not in the queue, or not any more, is left alone.
func (q *Queue) Leave(now time.Time, id string) (next []string) {
	e, ok := q.jobs[id]
	if !ok {
		return nil
	}
	delete(q.jobs, id)
	if !e.leased {
		q.withdraw(e)
		return nil
	}
	at := q.since(now)
	e.line.end(at, e)
	return q.fill(e.line, at)
}

// Ahead returns for how long a job with such a ticket would wait if it entered
// now, or has yet to wait if it is the one with this ID that waits there: what
// remains to do for those at work, and the work of those that go before it,
// spread over the slots. It is never less than the true wait if work takes as
// long as was predicted and nobody comes later who goes first. It may be more:
// of other clients it counts all that their turns may bring before this job's.
func (q *Queue) Ahead(now time.Time, t Ticket) time.Duration {
	l, ok := q.lines[t.Backend]
	if !ok {
		return 0
	}
	at := q.since(now)
	l.promote(at)
	if e, ok := q.jobs[t.ID]; ok && e.line == l && !e.leased {
		return l.ahead(at, l.placeOf(e))
	}
	return l.ahead(at, place{client: t.Client, class: classOf(t), due: q.due(t), promote: never})
}

// Review returns the jobs whose wait should be thought over now. Each is named
// once, until it is moved.
func (q *Queue) Review(now time.Time) (ids []string) {
	at := q.since(now)
	for {
		e, ok := q.reviews.first()
		if !ok || e.review > at {
			return ids
		}
		q.reviews.remove(key{e.review, e.arrival})
		ids = append(ids, e.ID)
	}
}

// Next returns when Review has something to say; zero is never. Nothing else
// depends on the time alone: that a job is promoted matters once a slot is free.
func (q *Queue) Next() time.Time {
	e, ok := q.reviews.first()
	if !ok {
		return time.Time{}
	}
	return e.Review
}

// Waiting returns how many jobs of a class wait in a backend's line. One that
// was promoted is of the class that it counts as.
func (q *Queue) Waiting(backend string, class job.Class) int {
	l, ok := q.lines[backend]
	if !ok {
		return 0
	}
	return l.turns(class).jobs
}

// AllWaiting returns how many jobs of a class wait, in whatever line or in none.
// A class is what jobs count as, as with Waiting.
func (q *Queue) AllWaiting(class job.Class) int { return q.waiting[class] }

// AtWork returns how many jobs have slots of a backend.
func (q *Queue) AtWork(backend string) int {
	l, ok := q.lines[backend]
	if !ok {
		return 0
	}
	return l.atWork.len()
}

// Parked returns who waits in no line, in order of arrival.
func (q *Queue) Parked() (ids []string) {
	for e := range q.parked.all {
		ids = append(ids, e.ID)
	}
	return ids
}

// place puts an entry where its new ticket says, and reports whether it got a
// slot there.
func (q *Queue) place(at time.Duration, e *entry, t Ticket) (leased bool) {
	t.Work = min(max(0, t.Work), mostWork)
	e.Ticket, e.due, e.line = t, q.due(t), nil
	q.waiting[classOf(t)]++
	if !t.Review.IsZero() {
		e.review = q.since(t.Review)
		q.reviews.add(key{e.review, e.arrival}, e, 0)
	}
	if t.Backend == "" {
		q.parked.add(key{0, e.arrival}, e, 0)
		return false
	}
	e.promote = never
	if !t.Promote.IsZero() {
		e.promote = q.since(t.Promote)
	}
	e.line = q.line(t.Backend)
	e.line.join(e)
	q.fill(e.line, at)
	return e.leased
}

// withdraw takes an entry out of where it waits.
func (q *Queue) withdraw(e *entry) {
	q.waited(e)
	if e.line == nil {
		q.parked.remove(key{0, e.arrival})
		return
	}
	e.line.withdraw(e)
}

// waited takes note that an entry does not wait any more.
func (q *Queue) waited(e *entry) {
	q.waiting[classOf(e.Ticket)]--
	q.reviews.remove(key{e.review, e.arrival})
}

// fill gives the free slots of a line away, and returns to whom.
func (q *Queue) fill(l *line, at time.Duration) (ids []string) {
	l.promote(at)
	for l.free() {
		e, ok := l.lease(at)
		if !ok {
			break
		}
		q.waited(e)
		ids = append(ids, e.ID)
	}
	return ids
}

// line returns a backend's line, which is there from when it is first named.
func (q *Queue) line(backend string) *line {
	l, ok := q.lines[backend]
	if !ok {
		l = newLine()
		q.lines[backend] = l
	}
	return l
}

// since returns the span from the epoch to t.
func (q *Queue) since(t time.Time) time.Duration {
	if q.epoch.IsZero() {
		q.epoch = t
	}
	return t.Sub(q.epoch)
}

// due returns when a ticket's job is due.
func (q *Queue) due(t Ticket) time.Duration {
	if t.Due.IsZero() {
		return never
	}
	return q.since(t.Due)
}

// classOf returns a ticket's class. Who did not say is waited for.
func classOf(t Ticket) job.Class {
	if t.Class == job.Background {
		return job.Background
	}
	return job.Interactive
}
