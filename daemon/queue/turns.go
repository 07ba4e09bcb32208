package queue

import "time"

// turns is who waits of one class in one line, and which client's turn it is.
//
// It is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with a
// client for a flow and predicted work for a length, corrected to the time
// that was really had. In one thing virtual time differs: see attach.
type turns struct {
	clients map[string]*client // forgotten once it makes no difference
	waiting order[*client]     // those who have jobs that wait, by what they have had
	idle    order[*client]     // those who have no jobs, by what they have had
	// now is virtual time: what a client has had who had its share.
	now  time.Duration
	jobs int
	work time.Duration
	// largest is the most work of any job since last none waited.
	largest time.Duration
	serial  uint64 // of the last client
}

// client is what a client has had of a backend's time, and what it waits for.
type client struct {
	name   string
	serial uint64
	had    time.Duration // in virtual time; work in progress counts as done
	jobs   order[*entry] // by when they are due, weighing their work
	leases int
}

func newTurns() turns { return turns{clients: make(map[string]*client)} }

// join adds an entry.
func (t *turns) join(e *entry) {
	c, ok := t.clients[e.Client]
	if !ok {
		t.serial++
		c = &client{name: e.Client, serial: t.serial}
		t.clients[c.name] = c
	}
	e.turns, e.client = t, c
	t.detach(c)
	if c.jobs.len() == 0 {
		c.had = max(c.had, t.now) // no credit for having been idle
	}
	c.jobs.add(key{e.due, e.arrival}, e, e.Work)
	t.attach(c)
	t.jobs++
	t.work += e.Work
	t.largest = max(t.largest, e.Work)
}

// withdraw removes an entry.
func (t *turns) withdraw(e *entry) {
	t.detach(e.client)
	t.drop(e)
	t.attach(e.client)
	t.forget()
}

// take removes the entry whose turn it is and charges its client.
func (t *turns) take() (e *entry, ok bool) {
	c, ok := t.waiting.first()
	if !ok {
		return nil, false
	}
	e, _ = c.jobs.first()
	t.detach(c)
	t.drop(e)
	t.now = max(t.now, c.had)
	c.had += e.Work
	c.leases++
	t.attach(c)
	t.forget()
	return e, true
}

// end corrects what the client of an entry that was taken was charged.
func (t *turns) end(e *entry, had time.Duration) {
	t.detach(e.client)
	e.client.had += had - e.Work
	e.client.leases--
	t.attach(e.client)
	t.forget()
}

// drop takes an entry from its client, which is detached.
func (t *turns) drop(e *entry) {
	e.client.jobs.remove(key{e.due, e.arrival})
	t.jobs--
	t.work -= e.Work
	if t.jobs == 0 {
		t.largest = 0
	}
}

// detach takes a client out of the orders that go by what it has.
func (t *turns) detach(c *client) {
	if e, ok := c.jobs.first(); ok {
		t.waiting.remove(key{c.had, e.arrival})
	} else if c.leases == 0 {
		t.idle.remove(key{c.had, c.serial})
	}
}

// attach puts a client where it belongs. Of two that have had the same, the
// one goes first whose job came first.
//
// If it has nothing left to do, what it has had beyond its share is spread over
// virtual time. It may never come back under this name, and an endless sequence
// of newcomers, who enter at virtual time, would starve everyone who is ahead
// of it if it stood still.
func (t *turns) attach(c *client) {
	if e, ok := c.jobs.first(); ok {
		t.waiting.add(key{c.had, e.arrival}, c, 0)
	} else if c.leases == 0 {
		t.now += max(0, c.had-t.now) / time.Duration(t.active())
		t.idle.add(key{c.had, c.serial}, c, 0)
	}
}

// active returns how many clients have jobs, waiting or at work.
func (t *turns) active() int { return len(t.clients) - t.idle.len() }

// forget drops clients that would be newcomers again if they came back: those
// who have had no more than their share, and all once there is no contention.
func (t *turns) forget() {
	for {
		c, ok := t.idle.first()
		if !ok || c.had > t.now && t.active() > 0 {
			return
		}
		t.idle.remove(key{c.had, c.serial})
		delete(t.clients, c.name)
	}
}

// before returns the work that may go before a job in some place.
//
// When its turn comes, its client has had as much as now and what that client
// wanted sooner. Each other client has had no more then, but for its last job;
// and no less now than who has had least. Promoted jobs may all go before, and
// may all be its client's.
func (t *turns) before(p place, promoted time.Duration) time.Duration {
	others, had, own := t.waiting.len(), t.now, promoted-p.work
	if c, ok := t.clients[p.client]; ok {
		had = c.had
		if c.jobs.len() > 0 {
			others--
		} else {
			had = max(had, t.now)
		}
		_, sooner := c.jobs.upTo(p.due)
		own += sooner
	}
	least := t.now
	if c, ok := t.waiting.first(); ok {
		least = min(least, c.had)
	}
	return own + times(others, had+own-least+t.largest)
}

// times returns n × d, or for ever if that is longer than can be told.
func times(n int, d time.Duration) time.Duration {
	const most = never / 4 // leaves room to add to it
	if n > 0 && d > most/time.Duration(n) {
		return most
	}
	return time.Duration(n) * d
}
