package tracker

import (
	"slices"
	"time"

	"github.com/joulemux/joulemux/power"
)

// state is what Run owns. base is the tier that the supplies call for; tier is
// what the wishes make of it.
type state struct {
	policy power.Policy
	read   func() power.Supply
	readAt time.Time

	supply     power.Supply
	reported   bool
	base       power.Tier
	baseReason power.Reason
	pending    pending

	// wishes.Holds is replaced, never written into: snapshots share it.
	wishes     power.Wishes
	lastCookie uint32

	tier   power.Tier
	reason power.Reason
	since  time.Time
}

// pending is a climb that waits for its time. The zero pending is none.
type pending struct {
	step  power.Step
	timer *time.Timer
}

// due returns the channel on which the pending climb falls due, or nil, which
// blocks for ever, if there is none.
func (s *state) due() <-chan time.Time {
	if s.pending.timer == nil {
		return nil
	}
	return s.pending.timer.C
}

// observe takes in a supply: it falls at once, and climbs after a wait during
// which every observation must call for the same tier.
func (s *state) observe(supply power.Supply) {
	s.supply = supply
	step := s.policy.Next(s.base, supply)
	if step.Wait > 0 {
		s.await(step)
	} else {
		s.take(step)
	}
	s.settle()
}

// await keeps the base tier until the step's wait is over. A step to the same
// tier goes on with the wait that has begun, for its own reason.
func (s *state) await(step power.Step) {
	if s.pending.timer != nil && s.pending.step.Tier == step.Tier {
		s.pending.step = step
		return
	}
	s.drop()
	s.pending = pending{step: step, timer: time.NewTimer(step.Wait)}
}

// take makes step the base tier.
func (s *state) take(step power.Step) {
	s.drop()
	s.base, s.baseReason = step.Tier, step.Reason
}

// drop forgets the pending climb.
func (s *state) drop() {
	if s.pending.timer != nil {
		s.pending.timer.Stop()
	}
	s.pending = pending{}
}

// elapsed takes the pending climb. Where nobody reports the supply it is read
// once more first, since nothing has been heard of it during the wait.
func (s *state) elapsed() {
	step := s.pending.step
	if !s.reported {
		s.supply = s.read()
		now := s.policy.Next(s.base, s.supply)
		if now.Tier != step.Tier {
			s.drop()
			s.observe(s.supply)
			return
		}
		step = now
	}
	s.take(step)
	s.settle()
}

// settle applies the wishes to the base tier.
func (s *state) settle() {
	tier, reason := s.wishes.Apply(s.base, s.baseReason)
	if tier != s.tier || s.since.IsZero() {
		s.since = time.Now()
	}
	s.tier, s.reason = tier, reason
}

func (s *state) snapshot() Snapshot {
	return Snapshot{
		Tier: s.tier, Reason: s.reason, Since: s.since,
		Supply: s.supply, Reported: s.reported, Wishes: s.wishes,
	}
}

func (a Snapshot) equal(b Snapshot) bool {
	return a.Tier == b.Tier && a.Reason == b.Reason && a.Since.Equal(b.Since) &&
		a.Supply == b.Supply && a.Reported == b.Reported &&
		a.Profile == b.Profile && a.Preference == b.Preference &&
		slices.Equal(a.Holds, b.Holds)
}
