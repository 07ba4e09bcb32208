package backend

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// A remote backend is asked nothing until a job goes there or somebody looks:
// asking takes the radio, and tells the server that somebody is there. It has the
// models that the user names and is taken to be well until a job shows otherwise;
// after a pause the next job tries it again.

// remoteSlots is on how many jobs a remote server is taken to work at once. It has
// a queue of its own, or says that it has enough.
const remoteSlots = 8

const (
	// remoteFresh is how old facts of a remote server may be for somebody who
	// looks: he may look every few seconds, for hours.
	remoteFresh = 5 * time.Minute
	// remotePatience is what a server far away may take to say what it is.
	remotePatience = 10 * time.Second
	// longestRest is for how long a server may ask us not to come.
	longestRest = 10 * time.Minute
)

// Remote reports whether the backend is not on this machine.
func (s Spec) Remote() bool { return s.Class == power.Cloud }

// offers returns the facts with the models that the user names, and no other. What
// a remote server has in memory is its own affair, and which weights these are
// nobody can tell.
func (s Spec) offers(facts job.Facts) job.Facts {
	var models []job.Model
	for name := range s.Models {
		m := job.Model{Name: name, VRAM: -1}
		for _, known := range facts.Models {
			if job.SameModel(known.Name, name) {
				m = known
			}
		}
		m.Resident, m.Until, m.Digest = true, time.Time{}, "remote "+s.ID+" "+name
		models = append(models, m)
	}
	slices.SortFunc(models, func(a, b job.Model) int { return strings.Compare(a.Name, b.Name) })
	facts.Models = models
	return facts
}

// suppose has a remote backend taken for well that nobody has asked yet.
func (e *entry) suppose() {
	e.Facts, e.up = e.offers(job.Facts{}), true
}

// retry has a remote backend tried by the next job, once its pause is over, and
// reports whether that is news.
func (e *entry) retry(now time.Time) bool {
	if e.up || now.Before(e.askAt) || e.joulemux {
		return false
	}
	e.up, e.doubt = true, e.down
	return true
}

// rest notes that the server has asked us not to come for a while, and reports
// whether it has.
func (e *entry) rest(now time.Time, err error) bool {
	var busy *job.Error
	if !e.Remote() || !errors.As(err, &busy) || busy.Code != job.Busy || busy.Answer == nil || busy.RetryAfter <= 0 {
		return false // ours, and not the server's
	}
	e.restUntil = now.Add(min(busy.RetryAfter, longestRest))
	return true
}

// retry has the remote backends tried again whose pauses are over, and publishes
// what is over by now.
func (s *Set) retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	changed := false
	for _, e := range s.entries {
		if e.Remote() && !s.closed {
			changed = e.retry(now) || !now.Before(e.shown) || changed
		}
	}
	if changed {
		s.publishLocked()
	}
}

// meet asks a remote server what it is before the first job goes there: it may be
// a joulemux, or us.
func (s *Set) meet(ctx context.Context, e *entry) error {
	if !e.Remote() {
		return nil
	}
	s.mu.Lock()
	known := e.answered && !e.joulemux
	if !known {
		s.startLocked(e)
	}
	done := e.probing
	s.mu.Unlock()
	if known || done == nil { // or nobody is asked any more, as the daemon ends
		return nil
	}
	select {
	case <-done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.answered && !e.joulemux {
		return nil
	}
	return &job.Error{Code: job.BackendFailed, Err: errors.New(e.down)}
}
