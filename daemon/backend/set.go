package backend

import (
	"context"
	"iter"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/latest"
	"github.com/joulemux/joulemux/power"
)

// Connect returns how to talk to the server of a spec, without talking to it.
type Connect func(Spec) Server

// Classify finds out on what device a server runs that says of itself what is
// in facts. It returns Unclassified where nothing tells.
type Classify func(Spec, job.Facts) power.DeviceClass

// Set is the backends there are.
type Set struct {
	connect  Connect
	classify Classify
	log      *slog.Logger

	now latest.Value[Snapshot]
	// made is when the set was, and nextDue for how long it will have been
	// there when a probe falls due, for a job to compare with at no cost. A
	// time of day would not do: it may be set back.
	made    time.Time
	nextDue atomic.Int64

	mu      sync.Mutex // guards the following, and publishing
	entries []*entry
	veto    string // why what is on the processor's package may be given no work
	closed  bool
	probes  sync.WaitGroup

	// probing returns the context of a probe, and stop ends all of them.
	probing func(time.Duration) (context.Context, context.CancelFunc)
	stop    context.CancelFunc
}

// New returns a set without backends.
func New(connect Connect, classify Classify, log *slog.Logger) *Set {
	s := &Set{connect: connect, classify: classify, log: log, made: time.Now()}
	s.nextDue.Store(farFuture)
	base, stop := context.WithCancel(context.Background())
	s.probing = func(patience time.Duration) (context.Context, context.CancelFunc) {
		return context.WithTimeout(base, patience)
	}
	s.stop = stop
	return s
}

// farFuture is later than anything falls due.
const farFuture = 1<<63 - 1

// Current returns all backends as they are now known.
func (s *Set) Current() Snapshot { return s.now.Current() }

// Watch yields the current backends and then each newer state of them.
func (s *Set) Watch(ctx context.Context) iter.Seq[Snapshot] { return s.now.Watch(ctx) }

// Configure replaces the specs. Backends whose spec stays keep what is known of
// them; jobs on backends that went run on.
func (s *Set) Configure(specs []Spec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var entries []*entry
	kept := make(map[*entry]bool)
	for _, spec := range specs {
		e := s.find(spec, kept)
		if e == nil {
			e = &entry{Backend: Backend{Spec: spec, Class: spec.Class}}
			e.server = guard(alias(s.connect(spec), spec.Models), s, e)
			if spec.Remote() {
				e.suppose()
			}
		}
		kept[e] = true
		entries = append(entries, e)
	}
	for _, e := range s.entries {
		if !kept[e] {
			e.gone = true
			e.server.Close()
		}
	}
	s.entries = entries
	s.publishLocked()
}

// find returns the entry of an unchanged spec that is not taken yet.
func (s *Set) find(spec Spec, taken map[*entry]bool) *entry {
	for _, e := range s.entries {
		if reflect.DeepEqual(e.Spec, spec) && !taken[e] {
			return e
		}
	}
	return nil
}

// Close ends the probes and drops all connections. Nothing is probed after.
func (s *Set) Close() {
	s.mu.Lock()
	s.closed = true
	entries := s.entries
	s.mu.Unlock()
	s.stop()
	for _, e := range entries {
		e.server.Close()
	}
	s.probes.Wait()
}

// publishLocked makes the entries visible.
func (s *Set) publishLocked() {
	s.nameLocked()
	var snapshot Snapshot
	due := time.Duration(farFuture)
	now := time.Now()
	for _, e := range s.entries {
		e.judge(now)
		due = min(due, e.dueAt().Sub(s.made))
		if !e.hidden() {
			e.Profile = profile(e.Spec.Profile, e.Class)
			e.Vetoed = ""
			if e.Class.OnPackage() {
				e.Vetoed = s.veto
			}
			e.tell(s.log)
			snapshot = append(snapshot, e.Backend)
		}
	}
	s.nextDue.Store(int64(due))
	s.now.Publish(snapshot)
}

// nameLocked gives every backend an id of its own. One that has a fitting id
// keeps it, so that ids move only when classes do, or the user takes one.
func (s *Set) nameLocked() {
	used := make(map[string]bool)
	for _, e := range s.entries {
		if e.Spec.ID != "" {
			e.ID = e.Spec.ID
			used[e.ID] = true
		}
	}
	var nameless []*entry
	for _, e := range s.entries {
		switch {
		case e.Spec.ID != "":
		case e.ID != "" && e.named == e.Class && !used[e.ID]:
			used[e.ID] = true
		case !e.hidden():
			nameless = append(nameless, e)
		}
	}
	for _, e := range nameless {
		if e.ID != "" && !slices.Contains(e.former, e.ID) {
			e.former = append(e.former, e.ID)
		}
		e.ID = e.Spec.Type + "-" + string(e.Class)
		if e.Class == power.Unclassified {
			e.ID = portID(e.Spec)
		}
		if used[e.ID] {
			e.ID += "-" + e.Endpoint.Port()
		}
		e.named = e.Class
		used[e.ID] = true
	}
}

// Served records that a job with that model went well on a backend, where the
// model stays for so long; nil is not known.
func (s *Set) Served(id, model string, firstToken time.Duration, stays *time.Duration) {
	s.update(id, func(e *entry) bool {
		e.metrics.served(time.Now(), firstToken)
		changed := !e.Healthy || e.circuit.failures > 0
		e.served()
		if stays != nil && *stays >= 0 && *stays < factsFresh {
			e.Checked, changed = time.Time{}, true // it is gone before anybody asks
		}
		return e.resides(model, true) || changed
	})
}

// Stale records that there are other models than the servers have told of, on
// whichever of them: several may share one folder. The next who wants to know
// has them asked.
func (s *Set) Stale() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		e.Checked = time.Time{}
	}
	s.publishLocked()
}

// Veto records why the devices on the processor's package may be given no work now,
// or with "" that they may.
func (s *Set) Veto(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.veto != why {
		s.veto = why
		s.publishLocked()
	}
}

// Failed records that a job failed on a backend. A server that could not be
// reached is unhealthy until it answers again; one that answered, badly, is
// suspect for a while, and unhealthy if it goes on so; one that was merely busy,
// or lacked a model, is neither.
func (s *Set) Failed(id string, err error) {
	s.update(id, func(e *entry) bool {
		now := time.Now()
		e.metrics.failed(now)
		return e.failed(now, err)
	})
}

// update lets f change the backend with that id, and publishes the change if f
// says that there is one.
func (s *Set) update(id string, f func(*entry) (changed bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.withIDLocked(id); e != nil && f(e) {
		s.publishLocked()
	}
}

// withIDLocked returns the entry that has an id, or else the one that had it
// when a job was sent there, or nil.
func (s *Set) withIDLocked(id string) *entry {
	for _, e := range s.entries {
		if e.ID == id {
			return e
		}
	}
	for _, e := range s.entries {
		if slices.Contains(e.former, id) {
			return e
		}
	}
	return nil
}

// Metrics returns how the backend with that id has done of late.
func (s *Set) Metrics(id string) (m Metrics) {
	s.update(id, func(e *entry) bool {
		m = e.metrics.summary(time.Now())
		return false
	})
	return m
}
