package meter

import (
	"time"

	"github.com/joulemux/joulemux/power"
)

// interval is the energy between two readings, or more of them: covered is how
// much of the time was counted.
type interval struct {
	from, to time.Time
	energy   power.Energy
	covered  time.Duration
}

// mostIntervals is how many are kept apart, of a phase or of what a job took
// until its first token. That may last for hours, with a reading every second.
const mostIntervals = 128

// with returns a list with one more interval. When there are too many,
// neighbours are put together, as long as they are short beside the whole: no two
// that are left are, so it is half as many at most.
func with(list []interval, i interval) []interval {
	if len(list) < mostIntervals {
		return append(list, i)
	}
	short := 4 * i.to.Sub(list[0].from) / mostIntervals
	last := 0
	for _, next := range list[1:] {
		if l := &list[last]; next.to.Sub(l.from) < short {
			*l = interval{l.from, next.to, l.energy + next.energy, l.covered + next.covered}
			continue
		}
		last++
		list[last] = next
	}
	return append(list[:last+1], i)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.Before(a) {
		return a
	}
	return b
}
