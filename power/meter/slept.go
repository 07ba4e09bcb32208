package meter

import "time"

// slept is how long the machine has slept, and when that was known: what was
// read later was read after that sleep.
type slept struct {
	total time.Duration
	at    time.Time
}

// or returns the other one if the machine has slept in between.
func (s slept) or(other slept) slept {
	if further(s.total, other.total) {
		return other
	}
	return s
}

// sleptError is how exactly it is known how long the machine has slept: its
// clocks are read one after the other. No suspend is as short as that.
const sleptError = 10 * time.Millisecond

// further reports whether the machine has slept between two moments.
func further(then, now time.Duration) bool { return now-then > sleptError }
