package power

import "time"

// Ladder is the tier that the supplies call for, and the climb from there that
// waits for its time. It is a value without a clock, so that whoever drives it
// brings his own. The zero Ladder stands in the unknown tier.
type Ladder struct {
	Tier   Tier
	Reason Reason
	// Due is when to observe again for the climb to be taken; zero is never.
	Due time.Time

	climb Step
}

// Observe returns what a supply makes of the ladder: it falls at once, and
// climbs after a wait during which every observation must call for the same
// tier. One that calls for it for another reason goes on with the wait that has
// begun.
func (l Ladder) Observe(p Policy, s Supply, now time.Time) Ladder {
	step := p.Next(l.Tier, s)
	waits := !l.Due.IsZero() && l.climb.Tier == step.Tier
	if step.Wait <= 0 || waits && !now.Before(l.Due) {
		return Ladder{Tier: step.Tier, Reason: step.Reason}
	}
	if !waits {
		l.Due = now.Add(step.Wait)
	}
	l.climb = step
	return l
}
