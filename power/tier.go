package power

import (
	"fmt"
	"strings"
)

// Tier is how careful the machine must be with energy.
type Tier uint8

// The tiers. All but TierUnknown are in order of carefulness; TierUnknown ranks with
// Mains, because a desktop without any power service is the likeliest case.
const (
	TierUnknown Tier = iota
	Mains
	Battery
	Saver
	Low
	Critical
)

// Tiers returns all tiers, the unknown one first, then from the freest to the
// most careful.
func Tiers() []Tier { return []Tier{TierUnknown, Mains, Battery, Saver, Low, Critical} }

// String returns the tier's name on every wire.
func (t Tier) String() string {
	switch t {
	case TierUnknown:
		return "unknown"
	case Mains:
		return "mains"
	case Battery:
		return "battery"
	case Saver:
		return "saver"
	case Low:
		return "low"
	case Critical:
		return "critical"
	default:
		return fmt.Sprintf("Tier(%d)", uint8(t))
	}
}

// ParseTier is the inverse of String. The error lists the names there are.
func ParseTier(name string) (Tier, error) { return tierAmong(Tiers(), name) }

// ParseHeldTier is ParseTier for a tier that can be held, which is any but the
// unknown one.
func ParseHeldTier(name string) (Tier, error) { return tierAmong(Tiers()[1:], name) }

func tierAmong(tiers []Tier, name string) (Tier, error) {
	var names []string
	for _, t := range tiers {
		if t.String() == name {
			return t, nil
		}
		names = append(names, t.String())
	}
	return TierUnknown, fmt.Errorf("%q is none of %s", name, strings.Join(names, ", "))
}

// MarshalText writes the tier's name, so that JSON and YAML carry names.
func (t Tier) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads the tier's name.
func (t *Tier) UnmarshalText(text []byte) (err error) {
	*t, err = ParseTier(string(text))
	return err
}

// MoreCarefulThan reports whether t spends less freely than u.
func (t Tier) MoreCarefulThan(u Tier) bool { return max(t, Mains) > max(u, Mains) }

// Reason is the rule that produced a tier or a veto: a stable string that
// programs may compare and people may read.
type Reason string

// The reasons for a tier.
const (
	ReasonNoSupply       Reason = "no supply can be read"
	ReasonNoBattery      Reason = "no battery"
	ReasonLinePower      Reason = "line power"
	ReasonDischarging    Reason = "discharging"
	ReasonChargeSaver    Reason = "charge is at the saver threshold"
	ReasonChargeLow      Reason = "charge is below the low threshold"
	ReasonChargeCritical Reason = "charge is below the critical threshold"
	ReasonWarnsLow       Reason = "UPower warns of a low battery"
	ReasonWarnsCritical  Reason = "UPower warns of a critical battery"
	ReasonRecovering     Reason = "charge has not recovered yet"
	ReasonProfile        Reason = "power-saver profile"
	ReasonHold           Reason = "held by a client"
	ReasonPreference     Reason = "policy chosen by the user"
)
