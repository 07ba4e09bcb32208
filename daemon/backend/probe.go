package backend

import (
	"context"
	"errors"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// Patience with servers. A server on this machine answers within milliseconds
// unless it is frozen.
const (
	probeTimeout = 2 * time.Second
	// wantedPatience is what a job waits at most for news of servers; it is
	// well below the first token of any of them.
	wantedPatience = 150 * time.Millisecond
	lookPatience   = time.Second
	// lookFresh is how old facts may be for somebody who looks.
	lookFresh = 2 * time.Second
	// searchFresh keeps a stream of jobs that nobody can run from becoming a
	// stream of probes.
	searchFresh = 250 * time.Millisecond
)

// Wanted returns the backends for a job that has arrived. While jobs come in
// quick succession it costs next to nothing; after a pause, what is due is
// asked first, since models are unloaded and servers started behind our back.
func (s *Set) Wanted(ctx context.Context) Snapshot {
	now := time.Now()
	if int64(now.Sub(s.made)) < s.nextDue.Load() {
		return s.Current()
	}
	s.retry()
	return s.await(ctx, wantedPatience, here(func(e *entry) bool { return !now.Before(e.dueAt()) }))
}

// Look returns the backends after a fresh look at each, or what is known when
// patience ends.
func (s *Set) Look(ctx context.Context) Snapshot {
	s.retry()
	return s.await(ctx, lookPatience, func(e *entry) bool {
		if e.Remote() {
			return olderThan(remoteFresh)(e)
		}
		return olderThan(lookFresh)(e)
	})
}

// LookHere is Look at those of this machine alone, for whom nobody waits who would
// want the radio used for it.
func (s *Set) LookHere(ctx context.Context) Snapshot {
	return s.await(ctx, lookPatience, here(olderThan(lookFresh)))
}

// Search returns the backends after asking also those which are down, for a
// job that none of the others can run. Of a remote one the job itself will ask.
func (s *Set) Search(ctx context.Context) Snapshot {
	s.retry()
	return s.await(ctx, lookPatience, here(olderThan(searchFresh)))
}

// olderThan is due what was last heard of longer ago than that.
func olderThan(fresh time.Duration) func(*entry) bool {
	return func(e *entry) bool { return time.Since(e.Checked) >= fresh }
}

// here is due what is due of this machine.
func here(due func(*entry) bool) func(*entry) bool {
	return func(e *entry) bool { return !e.Remote() && due(e) }
}

// await probes what is due, and waits for it as long as patience lasts.
func (s *Set) await(ctx context.Context, patience time.Duration, due func(*entry) bool) Snapshot {
	probes := s.probe(due)
	if len(probes) == 0 {
		return s.Current()
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, done := range probes {
		select {
		case <-done:
		case <-ctx.Done():
			return s.Current()
		}
	}
	return s.Current()
}

// probe starts probes of the entries that are due, and returns what is closed
// when they, and those that were under way already, are over.
func (s *Set) probe(due func(*entry) bool) (done []<-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if due(e) {
			s.startLocked(e)
		}
		if e.probing != nil {
			done = append(done, e.probing)
		}
	}
	return done
}

// startLocked starts a probe of an entry, unless one is under way.
func (s *Set) startLocked(e *entry) {
	if e.probing == nil && !s.closed {
		e.probing = make(chan struct{})
		s.probes.Go(func() { s.probeOne(e) })
	}
}

// probeOne asks one server, and takes in what it says.
func (s *Set) probeOne(e *entry) {
	spec := e.Spec
	patience := probeTimeout
	if spec.Remote() {
		patience = remotePatience
	}
	ctx, cancel := s.probing(patience)
	defer cancel()
	facts, err := e.server.Probe(ctx)
	class := spec.Class
	if err == nil && class == power.Unclassified && facts.Instance == "" {
		class = s.classify(spec, facts)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed, e.gone: // nobody wants to know, and it may be us who cut it off
		e.server.Close()
	case err != nil:
		e.Checked = time.Now()
		e.missed(e.Checked, problem(err))
	default:
		s.upLocked(e, facts, class)
	}
	if !s.closed && !e.gone {
		s.publishLocked()
	}
	close(e.probing) // last, for whoever waits reads what was published
	e.probing = nil
}

// problem is what an error says of a server, of which is known that it failed.
func problem(err error) string {
	var failed *job.Error
	if errors.As(err, &failed) && failed.Code == job.BackendFailed && failed.Detail != "" {
		return failed.Detail
	}
	return err.Error()
}

// upLocked records what a server said that answered.
func (s *Set) upLocked(e *entry, facts job.Facts, class power.DeviceClass) {
	e.joulemux = facts.Instance != ""
	e.Checked, e.Facts, e.answered = time.Now(), facts, true
	if e.joulemux {
		e.missed(e.Checked, "it is a joulemux, and no backend")
		return
	}
	if e.Remote() {
		e.Facts = e.offers(facts)
	}
	e.answers()
	// What has been found out stays true until something else is found out.
	if class != power.Unclassified {
		e.Class = class
	}
}
