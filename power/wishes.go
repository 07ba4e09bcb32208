package power

import (
	"fmt"
	"slices"
	"time"
)

// Preference is the policy that the user has chosen for good, as on the
// Policy property of the session bus.
type Preference string

// The preferences. Auto goes by the tier alone; PreferSaver and
// PreferBalanced are never freer than the tiers saver and battery;
// PreferPerformance is as mains unless the battery is critical.
const (
	PreferAuto        Preference = "auto"
	PreferSaver       Preference = "saver"
	PreferBalanced    Preference = "balanced"
	PreferPerformance Preference = "performance"
)

// ParsePreference accepts the four names.
func ParsePreference(name string) (Preference, error) {
	all := []Preference{PreferAuto, PreferSaver, PreferBalanced, PreferPerformance}
	if !slices.Contains(all, Preference(name)) {
		return PreferAuto, fmt.Errorf("%q is none of auto, saver, balanced, performance", name)
	}
	return Preference(name), nil
}

// Hold is a client's request to keep the tier at least as careful as Tier. It
// ends when it is released, when its holder goes away, or when the user
// chooses a preference.
type Hold struct {
	Cookie uint32
	Tier   Tier
	Reason string // in the holder's words, up to LongestReason
	Holder string // who: a unique bus name, or "pid 123"
	Since  time.Time
}

// LongestReason bounds the reason for a hold, in bytes: everybody who asks what
// is held is sent it.
const LongestReason = 256

// Wishes are what people and programs ask for, as against what the supplies
// say.
type Wishes struct {
	Profile    Profile
	Preference Preference
	Holds      []Hold
}

// Apply returns the tier that the wishes make of t, which the supplies call
// for with reason r. The most careful wish wins, except that
// PreferPerformance lifts what only the supplies and the profile ask for.
// Wishes take effect at once: people who ask are not jitter.
func (w Wishes) Apply(t Tier, r Reason) (Tier, Reason) {
	atLeast := func(floor Tier, why Reason) {
		if floor.MoreCarefulThan(t) {
			t, r = floor, why
		}
	}
	if w.Profile == PowerSaver {
		atLeast(profileFloor(t), ReasonProfile)
	}
	switch w.Preference {
	case PreferSaver:
		atLeast(Saver, ReasonPreference)
	case PreferBalanced:
		atLeast(Battery, ReasonPreference)
	case PreferPerformance:
		if t.MoreCarefulThan(Mains) && t != Critical {
			t, r = Mains, ReasonPreference
		}
	case PreferAuto:
	}
	for _, h := range w.Holds {
		atLeast(h.Tier, ReasonHold)
	}
	return t, r
}

// profileFloor returns how careful the power-saver profile makes tier t.
func profileFloor(t Tier) Tier {
	if t.MoreCarefulThan(Mains) {
		return Low
	}
	return Saver
}
