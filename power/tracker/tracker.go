// Package tracker owns the tier in force.
//
// It takes supplies, the power profile, holds and the user's preference from
// whoever observes them, applies power.Policy, and lets anybody read or watch
// the outcome. It opens no bus and no file: where nobody reports a supply it
// asks the function that it was given, and only when somebody looks.
package tracker

import (
	"context"
	"iter"
	"time"

	"github.com/joulemux/joulemux/daemon/latest"
	"github.com/joulemux/joulemux/power"
)

// Snapshot is the tier in force at one moment and what led to it.
type Snapshot struct {
	Tier   power.Tier
	Reason power.Reason
	// Since is when Tier was entered.
	Since time.Time
	// Supply is what the tier was decided from, and Reported whether somebody
	// watches it, as against it being read when somebody looks.
	Supply   power.Supply
	Reported bool
	power.Wishes
}

// Tracker keeps the tier. Make one with New, and Run it.
type Tracker struct {
	now      latest.Value[Snapshot]
	requests chan func(*state)
	owned    *state // by Run alone
}

// New returns a tracker in the unknown tier. When no supply is being reported,
// read is asked as often as somebody looks; it may return an unknown supply.
func New(policy power.Policy, preference power.Preference, read func() power.Supply) *Tracker {
	s := &state{policy: policy, read: read}
	s.wishes.Preference = preference
	s.tier, s.reason = s.wishes.Apply(power.TierUnknown, power.ReasonNoSupply)
	t := &Tracker{requests: make(chan func(*state)), owned: s}
	t.now.Publish(s.snapshot())
	return t
}

// Current returns the latest snapshot. It costs one atomic load.
func (t *Tracker) Current() Snapshot { return t.now.Current() }

// Watch yields the current snapshot and then each newer one until ctx is
// done. A slow reader misses intermediate snapshots, never the last.
func (t *Tracker) Watch(ctx context.Context) iter.Seq[Snapshot] { return t.now.Watch(ctx) }

// Run owns the tier until ctx is done. Whatever else takes a context waits
// for it.
func (t *Tracker) Run(ctx context.Context) error {
	s := t.owned
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case request := <-t.requests:
			request(s)
		case <-s.due():
			s.elapsed()
			t.publish(s)
		}
	}
}

// do has the owner run f, and returns when what came of it is published.
func (t *Tracker) do(ctx context.Context, f func(*state)) error {
	done := make(chan struct{})
	request := func(s *state) {
		defer close(done)
		f(s)
		t.publish(s)
	}
	select {
	case t.requests <- request:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publish replaces the latest snapshot if s has become another.
func (t *Tracker) publish(s *state) {
	if next := s.snapshot(); !next.equal(t.now.Current()) {
		t.now.Publish(next)
	}
}

// Supply reports how the machine is powered. An unknown supply says that
// whoever reported has lost sight of it.
func (t *Tracker) Supply(ctx context.Context, supply power.Supply) error {
	return t.do(ctx, func(s *state) {
		s.reported = supply.Known()
		if !s.reported {
			supply = s.read()
		}
		s.observe(supply)
	})
}

// Profile reports the user's power profile, or "" when there is none.
func (t *Tracker) Profile(ctx context.Context, p power.Profile) error {
	return t.do(ctx, func(s *state) { s.wishes.Profile = p; s.settle() })
}

// Configure replaces the policy.
func (t *Tracker) Configure(ctx context.Context, p power.Policy) error {
	return t.do(ctx, func(s *state) { s.policy = p; s.observe(s.supply) })
}

// Look returns the current snapshot after asking anew how the machine is
// powered, if nobody reports that by himself. Everything that depends on the
// tier of this very moment looks; what only shows it may use Current.
func (t *Tracker) Look(ctx context.Context) Snapshot {
	if now := t.Current(); now.Reported {
		return now
	}
	_ = t.do(ctx, func(s *state) {
		if !s.reported && time.Since(s.readAt) >= readAtMost {
			s.readAt = time.Now()
			s.observe(s.read())
		}
	})
	return t.Current()
}

// readAtMost is how often looking asks: reading a battery makes some firmware
// talk to it for tens of milliseconds.
const readAtMost = time.Second
