package tracker

import (
	"slices"
	"time"

	"github.com/joulemux/joulemux/power"
)

// state is what Run owns. ladder is what the supplies call for; tier is what
// the wishes make of it.
type state struct {
	policy power.Policy
	read   func() power.Supply
	readAt time.Time

	supply   power.Supply
	reported bool
	ladder   power.Ladder
	timer    *time.Timer // until the ladder's climb is due, or nil

	// wishes.Holds is replaced, never written into: snapshots share it.
	wishes     power.Wishes
	lastCookie uint32

	tier   power.Tier
	reason power.Reason
	since  time.Time
}

// due returns the channel on which the climb falls due that waits, or nil,
// which blocks for ever, if there is none.
func (s *state) due() <-chan time.Time {
	if s.timer == nil {
		return nil
	}
	return s.timer.C
}

// observe takes in a supply.
func (s *state) observe(supply power.Supply) {
	s.supply = supply
	now, was := time.Now(), s.ladder.Due
	s.ladder = s.ladder.Observe(s.policy, supply, now)
	if !s.ladder.Due.Equal(was) {
		s.wind(now)
	}
	s.settle()
}

// wind sets the timer for when the climb is due, if there is one.
func (s *state) wind(now time.Time) {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if due := s.ladder.Due; !due.IsZero() {
		s.timer = time.NewTimer(due.Sub(now))
	}
}

// elapsed takes the climb that is due. Where nobody reports the supply it is
// read once more first, since nothing has been heard of it during the wait.
func (s *state) elapsed() {
	if !s.reported {
		s.supply = s.read()
	}
	s.observe(s.supply)
}

// settle applies the wishes to the tier that the supplies call for.
func (s *state) settle() {
	tier, reason := s.wishes.Apply(s.ladder.Tier, s.ladder.Reason)
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
