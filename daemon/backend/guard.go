package backend

import (
	"context"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// guarded is a server to which no job gets while its circuit is open. Decisions
// go by a snapshot; here, where jobs pass one by one, only one of several that
// saw the same becomes the trial.
type guarded struct {
	Server
	set   *Set
	entry *entry
}

// guard returns a server that can do what the one behind it can.
func guard(server Server, s *Set, e *entry) Server {
	g := guarded{server, s, e}
	if u, able := server.(Unloader); able {
		return struct {
			guarded
			Unloader
		}{g, u}
	}
	return g
}

// Stream runs a job, or returns a *job.Error with the code Busy if none may be
// sent now.
func (g guarded) Stream(ctx context.Context, j job.Job, begin func(job.Head) error, emit func(job.Chunk) error) error {
	trial, err := g.set.admit(g.entry)
	if err != nil {
		return err
	}
	if !trial {
		if err := g.set.meet(ctx, g.entry); err != nil {
			return err
		}
		return g.Server.Stream(ctx, j, begin, emit)
	}
	refused := false
	err = job.Cancelled // of a trial that panics
	defer func() { g.set.tried(g.entry, err, refused) }()
	if err = g.set.meet(ctx, g.entry); err != nil {
		return err
	}
	err = g.Server.Stream(ctx, j, func(h job.Head) error {
		refused = h.Status >= 400 // of which the request is at fault
		return begin(h)
	}, emit)
	return err
}

// admit reports whether a job is the trial of a backend whose circuit is
// half-open. The error is for one that may not be sent there.
func (s *Set) admit(e *entry) (trial bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	next, trial, ok := e.circuit.admit(now)
	switch {
	case !ok:
		return false, &job.Error{
			Code: job.Busy, Detail: e.circuit.describe(now), RetryAfter: e.circuit.retryAt(now).Sub(now),
		}
	case trial:
		e.circuit = next
		s.publishLocked()
	}
	return trial, nil
}

// tried takes in how a trial ended, before anybody else can begin another one.
// What dispatch tells of the same job after that changes nothing more.
func (s *Set) tried(e *entry, err error, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.circuit = e.circuit.tried()
	switch {
	case err != nil:
		e.failed(time.Now(), err)
	case !refused:
		e.served()
	}
	s.publishLocked()
}
