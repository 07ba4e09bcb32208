package backend

import (
	"log/slog"
	"time"

	"github.com/joulemux/joulemux/power"
)

// How long what is known of a server is taken for true. While jobs come, a
// healthy server is asked again after factsFresh, in the background, to learn
// of models that came, went or were unloaded behind our back.
const (
	factsFresh   = 10 * time.Second
	backOffFirst = time.Second
	backOffMost  = time.Minute
)

// entry is what a Set keeps of one spec.
type entry struct {
	Backend
	// named is the class that the id was made from.
	named power.DeviceClass
	// former are the ids that it had before, under which jobs may be running.
	former []string
	// answered tells that a server has been here once.
	answered bool
	// joulemux tells that it is one of us, which is no backend.
	joulemux bool
	failures int
	retryAt  time.Time
	// gone tells that it is no longer configured.
	gone bool
	// probing is closed when the probe under way is over; nil if none is.
	probing chan struct{}
	metrics meter
	// told is the health that the log knows of.
	told bool
}

// tell logs a change of health, and nothing while there is none.
func (e *entry) tell(log *slog.Logger) {
	if e.Healthy == e.told {
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

// hidden entries are places where no server is.
func (e *entry) hidden() bool { return e.Found && (!e.answered || e.joulemux) }

// dueAt is when the next job should have the server asked again.
func (e *entry) dueAt() time.Time {
	if e.Healthy && e.Suspect == "" {
		return e.Checked.Add(factsFresh)
	}
	return e.retryAt
}

// backOff doubles the pause before the server is asked again. Failures while
// one lasts are of the same outage, which every job under way notices.
func (e *entry) backOff() {
	if time.Now().Before(e.retryAt) {
		return
	}
	pause := min(backOffFirst<<min(e.failures, 10), backOffMost)
	e.failures++
	e.retryAt = time.Now().Add(pause)
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
