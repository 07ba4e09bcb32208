package backend

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// circuitMost is after how many failures in a row a backend is given a rest.
const circuitMost = 3

// circuit says whether jobs may be sent to a backend that answers, from how the
// last ones did there. It is a value: every event makes another one of it.
//
// A failure makes the backend suspect for a while, and several in a row open the
// circuit: no job goes there during a pause, which is twice as long each time.
// Then one job at a time may try. The first that is served closes the circuit.
type circuit struct {
	// failures is how many jobs failed in a row, and last why the latest did.
	failures int
	last     string
	// until is when the pause is over that the latest failure began.
	until time.Time
	// trying says that a job is under way to see whether the backend works.
	trying bool
}

// standing is what a circuit says at one moment.
type standing int

const (
	sound    standing = iota
	suspect           // a job has failed just now
	open              // no job may be sent
	halfOpen          // one job may
	onTrial           // one is
)

func (c circuit) standing(now time.Time) standing {
	switch pausing := now.Before(c.until); {
	case c.failures == 0:
		return sound
	case c.failures < circuitMost && pausing:
		return suspect
	case c.failures < circuitMost:
		return sound
	case pausing:
		return open
	case c.trying:
		return onTrial
	default:
		return halfOpen
	}
}

// admit reports whether a job may be sent now, and whether it is the trial: the
// end of one has to be told.
func (c circuit) admit(now time.Time) (next circuit, trial, ok bool) {
	switch c.standing(now) {
	case halfOpen:
		c.trying = true
		return c, true, true
	case open, onTrial:
		return c, false, false
	default:
		return c, false, true
	}
}

// tried ends a trial. What came of it is told by served and failed, or by
// nobody: then another job may try.
func (c circuit) tried() circuit {
	c.trying = false
	return c
}

// served closes the circuit. It is no trial's alone: of a job that began before
// the failures, too, it shows that the backend works.
func (c circuit) served() circuit { return circuit{trying: c.trying} }

// failed counts a failure, and begins a pause. While the circuit is open every
// failure is of the same outage, which all jobs under way notice.
func (c circuit) failed(now time.Time, why string) circuit {
	if c.standing(now) == open {
		return c
	}
	c.failures++
	c.last, c.until = why, now.Add(c.pause())
	return c
}

// pause is how long the latest failure makes the backend rest.
func (c circuit) pause() time.Duration { return pause(c.failures - circuitMost) }

// retryAt is when a job that is refused now may be taken; zero if none is
// refused. A trial that fails takes a pause that is twice as long.
func (c circuit) retryAt(now time.Time) time.Time {
	switch c.standing(now) {
	case open:
		return c.until
	case onTrial:
		return now.Add(c.pause())
	default:
		return time.Time{}
	}
}

// describe says what is wrong, or "".
func (c circuit) describe(now time.Time) string {
	switch c.standing(now) {
	case suspect:
		return c.last
	case open:
		return fmt.Sprintf("circuit open after %d failures (last: %s)", c.failures, c.last)
	case halfOpen:
		return fmt.Sprintf("circuit half-open after %d failures (last: %s)", c.failures, c.last)
	case onTrial:
		return fmt.Sprintf("circuit half-open after %d failures (last: %s), a job is trying it", c.failures, c.last)
	default:
		return ""
	}
}

// Pauses double from the first to the longest.
const (
	pauseFirst = time.Second
	pauseMost  = time.Minute
)

// pause returns how long the pause is that follows so many others.
func pause(before int) time.Duration {
	return min(pauseFirst<<min(max(before, 0), 10), pauseMost)
}

// blame tells whether a failure counts against a server that was there, and why
// it is there no longer, or "" if it is.
//
// That a model is not there, that the server has enough to do, that the client
// asks for something that cannot be, is gone or does not want to wait any longer,
// says nothing of whether the backend works.
func blame(err error) (counts bool, gone string) {
	var failure *job.Error
	var dial *net.OpError
	switch {
	case !errors.As(err, &failure) || failure.Code != job.BackendFailed:
		return false, ""
	case failure.Answer != nil || failure.Err == nil:
		return true, ""
	default:
		refused := errors.As(err, &dial) && dial.Op == "dial"
		return !refused, failure.Err.Error()
	}
}
