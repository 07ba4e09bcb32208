package backend

import (
	"cmp"
	"errors"
	"log/slog"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// factsFresh is for how long what is known of a server is taken for true. While
// jobs come, one that answers is asked again after it, in the background, to
// learn of models that came, went or were unloaded behind our back.
const factsFresh = 10 * time.Second

// entry is what a Set keeps of one spec.
type entry struct {
	Backend
	// named is the class that the id was made from.
	named power.DeviceClass
	// answered tells that a server has been here once.
	answered bool
	// joulemux tells that it is one of us, which is no backend.
	joulemux bool
	// up tells that the server answered the last time, and down why it did not.
	// misses is how often in a row that was, and askAt when the next job has it
	// asked again.
	up     bool
	down   string
	misses int
	askAt  time.Time
	// doubt is why a remote server was down that is to be tried again, restUntil
	// when it may be asked again that has enough to do, and shown until when what
	// was published of it holds.
	doubt     string
	restUntil time.Time
	shown     time.Time
	// circuit says whether jobs may be sent there, if it is up.
	circuit circuit
	// gone tells that it is no longer configured.
	gone bool
	// probing is closed when the probe under way is over; nil if none is.
	probing chan struct{}
	metrics meter
	// told is the health that the log knows of.
	told bool
}

// judge makes of what is known what is shown.
func (e *entry) judge(now time.Time) {
	e.Healthy, e.Problem, e.Suspect, e.RetryAt = e.up, e.down, "", time.Time{}
	e.shown = e.holds(now)
	if !e.up {
		return
	}
	says := e.circuit.describe(now)
	switch standing := e.circuit.standing(now); {
	case standing == open, standing == onTrial:
		e.Healthy, e.Problem, e.RetryAt = false, says, e.circuit.retryAt(now)
	case now.Before(e.restUntil):
		e.Healthy, e.Problem, e.RetryAt = false, "it has enough to do", e.restUntil
	default:
		e.Suspect = cmp.Or(says, e.doubt)
	}
}

// forEver is longer than any process runs.
const forEver = 100 * 365 * 24 * time.Hour

// holds is until when what is shown now is true, if nothing happens.
func (e *entry) holds(now time.Time) time.Time {
	until := now.Add(forEver)
	for _, t := range []time.Time{e.circuit.until, e.restUntil} {
		if t.After(now) && t.Before(until) {
			until = t
		}
	}
	return until
}

// tell logs a change of health, and nothing while there is none. A circuit that
// is half-open has not changed yet.
func (e *entry) tell(log *slog.Logger) {
	if e.Healthy == e.told || e.Healthy && (e.circuit.failures >= circuitMost || e.supposed()) {
		return
	}
	e.told = e.Healthy
	backend := slog.Group("backend", slog.String("id", e.ID), slog.String("hardware", string(e.Class)), slog.String("endpoint", e.Endpoint.Redacted()))
	if e.Healthy {
		log.Info("backend is up", backend, slog.Int("models", len(e.Facts.Models)))
	} else {
		log.Warn("backend is down", backend, slog.String("problem", e.Problem))
	}
}

// supposed tells that nothing shows yet that a remote server is well.
func (e *entry) supposed() bool { return e.Remote() && (!e.answered || e.doubt != "") }

// hidden entries are places where no server is.
func (e *entry) hidden() bool { return e.Found && (!e.answered || e.joulemux) }

// dueAt is when the next job should have the server asked again.
func (e *entry) dueAt() time.Time {
	switch {
	case !e.up:
		return e.askAt
	case e.Remote():
		return e.shown
	case e.circuit.until.After(e.Checked):
		return e.circuit.until
	default:
		return e.staleAt()
	}
}

// staleAt is when what the server said is taken for true no longer. That a
// model goes it has told before.
func (e *entry) staleAt() time.Time {
	stale := e.Checked.Add(factsFresh)
	for i := range e.Facts.Models {
		m := &e.Facts.Models[i]
		if m.Resident && m.Until.After(e.Checked) && m.Until.Before(stale) {
			stale = m.Until
		}
	}
	return stale
}

// missed records that the server did not answer, and doubles the pause before
// it is asked again. Failures while one lasts are of the same outage.
func (e *entry) missed(now time.Time, why string) {
	e.up, e.down = false, why
	if now.Before(e.askAt) {
		return
	}
	e.askAt = now.Add(pause(e.misses))
	e.misses++
}

// answers records that the server is there. An outage that is over does not
// lengthen the next.
func (e *entry) answers() {
	e.up, e.down, e.doubt, e.misses, e.askAt = true, "", "", 0, time.Time{}
}

// served records that a job went well.
func (e *entry) served() {
	e.answers()
	e.circuit = e.circuit.served()
}

// failed records that one did not, and reports whether that changes anything.
func (e *entry) failed(now time.Time, err error) (changed bool) {
	if errors.Is(err, job.ModelNotFound) {
		if e.Remote() { // the user named the model, whatever the server lists
			return false
		}
		e.Checked = time.Time{} // its list of models is out of date
		return true
	}
	if e.rest(now, err) {
		return true
	}
	counts, gone := blame(err)
	if counts && e.up { // else it is of the outage that is known
		e.circuit = e.circuit.failed(now, err.Error())
	}
	if gone != "" {
		e.missed(now, gone)
	}
	return counts || gone != ""
}

// resides notes whether a model is resident, and reports whether that is news.
func (e *entry) resides(name string, resident bool) bool {
	if m := e.Model(name); m == nil || m.Resident == resident {
		return false
	}
	// Snapshots share the models, so a change makes a copy of them.
	models := append(e.Facts.Models[:0:0], e.Facts.Models...)
	e.Facts.Models = models
	e.Model(name).Resident = resident
	return true
}
