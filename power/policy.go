package power

import "time"

// Policy maps a supply to a tier. Its fields are the user's configuration.
type Policy struct {
	// Saver and Low are charges at or below which (Saver), or below which
	// (Low), a discharging machine enters those tiers.
	Saver, Low Charge
	// Critical is used only when the source of the supply never warns:
	// UPower's own thresholds stand above ours.
	Critical Charge
	// Recovery is how far the charge must rise above a threshold before the
	// tier that it guards is left upwards.
	Recovery Charge
	// SteadyLine and SteadyCharge are how long line power, or a risen
	// charge, must last before the tier climbs. Falling never waits.
	SteadyLine, SteadyCharge time.Duration
}

// DefaultPolicy returns the thresholds in force without configuration.
//
// Recovery of 3 % and 30 s outlast the jitter of fuel gauges and UPower's
// 30 s polling period; 3 s of line power outlast a plug being wiggled.
func DefaultPolicy() Policy {
	return Policy{
		Saver:        50,
		Low:          20,
		Critical:     5,
		Recovery:     3,
		SteadyLine:   3 * time.Second,
		SteadyCharge: 30 * time.Second,
	}
}

// Step is the verdict of Next: the tier to be in, why, and how long the supply
// must go on saying so before the step is taken.
type Step struct {
	Tier   Tier
	Reason Reason
	Wait   time.Duration
}

// Next returns the step from prev that s calls for.
//
// Falling is immediate. Climbing needs Recovery between charge tiers and time
// always, so a charge that jitters around a threshold, or a loose plug, does
// not move work back and forth. Taking the step and asking again with the same
// supply yields the same tier and no wait.
func (p Policy) Next(prev Tier, s Supply) Step {
	step := p.target(prev, s)
	if prev != TierUnknown && prev.MoreCarefulThan(step.Tier) && s.Known() {
		step.Wait = p.SteadyCharge
		if step.Tier == Mains {
			step.Wait = p.SteadyLine
		}
	}
	return step
}

// target returns where s leads from prev in the end.
func (p Policy) target(prev Tier, s Supply) Step {
	switch {
	case !s.Known():
		return Step{Tier: TierUnknown, Reason: ReasonNoSupply}
	case !s.Battery:
		return Step{Tier: Mains, Reason: ReasonNoBattery}
	case !s.Discharging:
		return Step{Tier: Mains, Reason: ReasonLinePower}
	}
	now := p.discharging(s)
	if !prev.MoreCarefulThan(now.Tier) {
		return now
	}
	// The tier would climb. It does so as far as the charge less Recovery
	// allows, and never falls for having risen.
	s.Charge -= p.Recovery
	recovered := p.discharging(s)
	if prev.MoreCarefulThan(recovered.Tier) {
		return recovered
	}
	return Step{Tier: prev, Reason: ReasonRecovering}
}

// discharging returns the tier of a machine that runs on battery, with no
// regard to its past.
func (p Policy) discharging(s Supply) Step {
	switch {
	case s.Warning == WarningCritical:
		return Step{Tier: Critical, Reason: ReasonWarnsCritical}
	case s.Warning == Unwarned && s.Charge < p.Critical:
		return Step{Tier: Critical, Reason: ReasonChargeCritical}
	case s.Warning == WarningLow:
		return Step{Tier: Low, Reason: ReasonWarnsLow}
	case s.Charge < p.Low:
		return Step{Tier: Low, Reason: ReasonChargeLow}
	case s.Charge <= p.Saver:
		return Step{Tier: Saver, Reason: ReasonChargeSaver}
	default:
		return Step{Tier: Battery, Reason: ReasonDischarging}
	}
}
