// Package power is the vocabulary of the daemon: units, supply state, tiers,
// holds, and the policy that maps one to the other.
//
// It does no I/O and holds no state, so every rule about when the machine
// should save energy can be read, tested and fuzzed here without a laptop.
// Who watches the supplies is dbus/upower and power/sysfs; who owns the tier
// in force is power/tracker.
package power

import (
	"fmt"
	"math"
	"time"
)

// Energy is an amount of energy in microjoules, the unit of the kernel's
// powercap counters.
type Energy int64

// Power is energy per time in microwatts, the unit of the kernel's
// power_supply and hwmon attributes. As a reading it is a draw.
type Power int64

// Units to multiply by, in the manner of time.Second.
const (
	Joule Energy = 1_000_000
	Watt  Power  = 1_000_000
)

// Watts returns w watts. Values that no Power can hold become the nearest
// one; NaN becomes zero.
func Watts(w float64) Power { return Power(saturate(w * float64(Watt))) }

// Joules returns j joules, saturating as Watts does.
func Joules(j float64) Energy { return Energy(saturate(j * float64(Joule))) }

// saturate converts f to an integer. Go leaves the conversion of a float out
// of range to the processor; here it is the nearest value, so a wild figure
// stays on its side of every comparison.
func saturate(f float64) int64 {
	switch {
	case math.IsNaN(f):
		return 0
	case f >= math.MaxInt64:
		return math.MaxInt64
	case f <= math.MinInt64:
		return math.MinInt64
	default:
		return int64(math.Round(f))
	}
}

// Watts returns p as a number of watts.
func (p Power) Watts() float64 { return float64(p) / float64(Watt) }

// Joules returns e as a number of joules.
func (e Energy) Joules() float64 { return float64(e) / float64(Joule) }

// WattHours returns e in the unit of compute.v1's energy_wh: 1 Wh = 3600 J.
func (e Energy) WattHours() float64 { return e.Joules() / 3600 }

// For returns the energy that drawing p for d takes.
func (p Power) For(d time.Duration) Energy { return Joules(p.Watts() * d.Seconds()) }

// Over returns the mean power of spending e in d, or zero if d is not positive.
func (e Energy) Over(d time.Duration) Power {
	if d <= 0 {
		return 0
	}
	return Watts(e.Joules() / d.Seconds())
}

// String formats p in watts, as in "15.0 W".
func (p Power) String() string { return fmt.Sprintf("%.1f W", p.Watts()) }

// String formats e in joules, as in "4.25 J" or "1830 J": three digits or
// more, because a whole answer costs hundreds of joules and one word a tenth.
func (e Energy) String() string {
	switch j := math.Abs(e.Joules()); {
	case j < 10:
		return fmt.Sprintf("%.2f J", e.Joules())
	case j < 100:
		return fmt.Sprintf("%.1f J", e.Joules())
	default:
		return fmt.Sprintf("%.0f J", e.Joules())
	}
}

// Charge is how full the batteries are, in percent of a full charge now.
type Charge float64

// String formats c without a needless fraction, as in "62 %".
func (c Charge) String() string { return fmt.Sprintf("%.0f %%", float64(c)) }
