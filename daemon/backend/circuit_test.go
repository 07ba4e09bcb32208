package backend

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// after is a moment, so many seconds after the first.
func after(seconds float64) time.Time {
	return time.Unix(1_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

// broken is a circuit after so many failures, the last of them at a moment.
// Each of them is of an outage of its own.
func broken(failures int, last time.Time) (c circuit) {
	for n := failures - 1; n >= 0; n-- {
		c = c.failed(last.Add(-time.Duration(n)*2*pauseMost), "boom")
	}
	return c
}

func TestCircuit(t *testing.T) {
	try := func(c circuit, at time.Time) circuit {
		next, _, _ := c.admit(at)
		return next
	}
	for _, c := range []struct {
		rule    string
		circuit circuit
		at      float64
		want    standing
	}{
		{"nothing has failed", circuit{}, 0, sound},
		{"one failure is suspect", broken(1, after(0)), 0.9, suspect},
		{"for a second", broken(1, after(0)), 1, sound},
		{"two are suspect", broken(2, after(0)), 0.9, suspect},
		{"and no more", broken(2, after(0)), 1, sound},
		{"three open it", broken(3, after(0)), 0.9, open},
		{"at once, if they come at once", broken(2, after(0)).failed(after(0), "boom"), 0.9, open},
		{"for a second", broken(3, after(0)), 1, halfOpen},
		{"four for two", broken(4, after(0)), 1.9, open},
		{"and no longer", broken(4, after(0)), 2, halfOpen},
		{"what fails meanwhile is of the same outage", broken(3, after(0)).failed(after(0.9), "boom"), 1, halfOpen},
		{"nine for a minute", broken(9, after(0)), 59, open},
		{"ninety-nine for no more", broken(99, after(0)), 60, halfOpen},
		{"one job is the trial", try(broken(3, after(0)), after(1)), 1000, onTrial},
		{"that ended without a verdict", try(broken(3, after(0)), after(1)).tried(), 1, halfOpen},
		{"that failed", try(broken(3, after(0)), after(1)).tried().failed(after(1), "boom"), 2.9, open},
		{"that was served", try(broken(3, after(0)), after(1)).tried().served(), 1, sound},
		{"a job that was under way is served meanwhile", broken(3, after(0)).served(), 0.5, sound},
		{"while another is tried", try(broken(3, after(0)), after(1)).served(), 1, sound},
		{"a job fails while another is tried", try(broken(3, after(0)), after(1)).failed(after(1), "boom"), 2.9, open},
		{"which is tried yet when the pause is over", try(broken(3, after(0)), after(1)).failed(after(1), "boom"), 3, onTrial},
	} {
		if got := c.circuit.standing(after(c.at)); got != c.want {
			t.Errorf("%s: %d, want %d", c.rule, got, c.want)
		}
	}
}

// TestCircuitLaws drives a circuit with whatever jobs may do.
func TestCircuitLaws(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var c circuit
	now := after(0)
	tried := false // a trial has begun since the circuit was opened or closed
	for range 300_000 {
		now = now.Add(time.Duration(r.ExpFloat64() * float64(time.Second)))
		before := c.standing(now)
		switch r.IntN(6) {
		case 0, 1:
			next, trial, ok := c.admit(now)
			switch {
			case ok != (before == sound || before == suspect || before == halfOpen):
				t.Fatalf("a job may be sent %v: %+v", ok, c)
			case trial != (before == halfOpen):
				t.Fatalf("it is the trial %v: %+v", trial, c)
			case trial && tried:
				t.Fatalf("a second trial: %+v", c)
			}
			c, tried = next, tried || trial
		case 2:
			if c.trying {
				c, tried = c.tried(), false
			}
		case 3:
			if r.IntN(5) == 0 {
				c, tried = c.served(), c.trying
				if c.standing(now) != sound {
					t.Fatalf("served, and not sound: %+v", c)
				}
			}
		default:
			c = c.failed(now, "boom")
			if s := c.standing(now); s == sound || (c.failures >= circuitMost) != (s == open) {
				t.Fatalf("failed, and %d: %+v", s, c)
			}
		}
		if at := c.retryAt(now); at.Sub(now) > pauseMost || c.until.Sub(now) > pauseMost {
			t.Fatalf("shut for %v: %+v", at.Sub(now), c)
		}
		if _, _, ok := c.tried().admit(now.Add(pauseMost)); !ok {
			t.Fatalf("open for ever: %+v", c)
		}
	}
}

func TestWhoseFaultItIs(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	for _, c := range []struct {
		what         string
		err          error
		counts, gone bool
	}{
		{"the model is not there", job.Errorf(job.ModelNotFound, "m"), false, false},
		{"the server is busy", job.Errorf(job.Busy, "queue"), false, false},
		{"the request is at fault", job.Errorf(job.Invalid, "m"), false, false},
		{"the client is gone", context.Canceled, false, false},
		{"the answer cannot be delivered", io.ErrClosedPipe, false, false},
		{"the deadline has passed", job.Errorf(job.DeadlinePassed, "5 ms"), false, false},
		{"the daemon stops", job.Errorf(job.Stopping, ""), false, false},
		{"the connection is refused", &job.Error{Code: job.BackendFailed, Err: refused}, false, true},
		{"the connection breaks", &job.Error{Code: job.BackendFailed, Err: io.ErrUnexpectedEOF}, true, true},
		{"it gives no sign of life", &job.Error{Code: job.BackendFailed, Err: context.DeadlineExceeded}, true, true},
		{"it answers with an error", &job.Error{Code: job.BackendFailed, Detail: "out of memory", Answer: &job.Answer{Status: 500}}, true, false},
		{"its stream ends early", job.Errorf(job.BackendFailed, "its stream ended"), true, false},
		{"it is silent", job.Errorf(job.BackendFailed, "silent for 10 s"), true, false},
	} {
		if counts, gone := blame(c.err); counts != c.counts || (gone != "") != c.gone {
			t.Errorf("%s: it counts %v, and the server is gone %v", c.what, counts, gone)
		}
	}
	restarted := entry{up: true}
	for range 50 { // jobs that were under way
		restarted.failed(after(0), &job.Error{Code: job.BackendFailed, Err: io.ErrUnexpectedEOF})
	}
	if restarted.up || restarted.circuit.failures != 1 || restarted.misses != 1 {
		t.Errorf("a server that is restarted is %+v", restarted.circuit)
	}
	e := entry{up: true}
	for range 100 {
		e.failed(after(0), job.Errorf(job.ModelNotFound, "m"))
		e.failed(after(0), errors.New("the client is gone"))
	}
	if e.circuit != (circuit{}) || !e.up {
		t.Errorf("a model that is not there, a hundred times, makes it %+v", e.circuit)
	}
}
