package simulate

import (
	"time"

	"github.com/joulemux/joulemux/power"
)

// Moment is how things stand from a time on until the next.
type Moment struct {
	At time.Duration
	// Draws are in the order of the machine's devices.
	Draws  []power.Power
	Tier   power.Tier
	OnLine bool
	Charge float64 // from 0 to 1
}
