package simulate

import (
	"time"

	"github.com/joulemux/joulemux/power"
)

const (
	// charging is what line power puts into the battery beside what the
	// machine takes (assumed: half of a common 90 W charger).
	charging = 45 * power.Watt
	// polling is how often UPower looks at a battery in use.
	polling = 30 * time.Second
)

// supply is how a run's machine is powered.
type supply struct {
	full   power.Energy
	left   power.Energy
	onLine bool
	given  power.Energy
}

// onBattery reports whether the battery is what the machine lives on.
func (s *supply) onBattery() bool { return s.full > 0 && !s.onLine }

func (s *supply) charge() float64 {
	if s.full == 0 {
		return 1
	}
	return ratio(s.left.Joules(), s.full.Joules())
}

// spend takes what the machine draws for a time.
func (s *supply) spend(draw power.Power, d time.Duration) {
	if !s.onBattery() {
		s.charged(d)
		return
	}
	e := min(draw.For(d), s.left)
	s.left -= e
	s.given += e
}

// charged is what line power does to the battery in a time.
func (s *supply) charged(d time.Duration) {
	if s.onLine {
		s.left = min(s.full, s.left+charging.For(d))
	}
}

// empties is how long the battery lasts at a draw.
func (s *supply) empties(draw power.Power) time.Duration {
	if !s.onBattery() || draw <= 0 {
		return never
	}
	seconds := s.left.Joules() / draw.Watts()
	if seconds > never.Seconds()/2 {
		return never
	}
	// Rounded up, so that nothing is left.
	return time.Duration(seconds*float64(time.Second)) + time.Microsecond
}

// reported is what UPower says, with the thresholds of its configuration.
func (s *supply) reported() power.Supply {
	const low, critical = 20, 5
	r := power.Supply{Source: "simulation", Battery: s.full > 0, Discharging: s.onBattery()}
	r.Charge, r.Warning = power.Charge(100*s.charge()), power.WarningNone
	switch {
	case !r.Discharging:
	case r.Charge <= critical:
		r.Warning = power.WarningCritical
	case r.Charge <= low:
		r.Warning = power.WarningLow
	}
	return r
}
