package helper

import (
	"time"

	"golang.org/x/sys/unix"
)

// A time.Time measures by a reading of CLOCK_MONOTONIC that nobody gets to see,
// so it cannot be sent. What is sent is that clock itself: all processes share
// it, and like Go's time it stands still while the machine sleeps.

// ToWire returns the clock's reading at a time of this process.
func ToWire(at time.Time) int64 { return int64(monotonic() - time.Since(at)) }

// FromWire returns the time of this process at which the clock read ns. It is
// none of the future, and can be subtracted from others whoever sets the wall
// clock; it is off by what passes between two looks at the clock.
func FromWire(ns int64) time.Time {
	now := time.Now()
	return now.Add(-max(0, monotonic()-time.Duration(ns)))
}

func monotonic() time.Duration {
	var ts unix.Timespec
	// It fails for a clock that is not there, and this one always is.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}
