package power

import (
	"fmt"
	"time"
)

// Celsius is a temperature.
type Celsius float64

// String formats c without a needless fraction, as in "95 °C".
func (c Celsius) String() string { return fmt.Sprintf("%.0f °C", float64(c)) }

// Thermal is one look at how hot the processor is, and how often that has
// slowed it down. What is zero is not known, or has not happened.
type Thermal struct {
	At          time.Time
	Temperature Celsius
	// Throttles and Throttled say how often, and for how long altogether, it
	// has been slowed down since boot.
	Throttles int64
	Throttled time.Duration
}

// HeatPolicy is when a processor is too hot to be given more work.
type HeatPolicy struct {
	// Hot is the temperature from which on it is; Cool the one at which it is
	// given work again.
	Hot, Cool Celsius
	// Quiet is for how long it must not have been slowed down.
	Quiet time.Duration
}

// DefaultHeatPolicy returns the limits in force without configuration.
// Processors slow down at 95 to 110 °C. 10 °C between the limits is more than
// a fan's turn moves the temperature, and less than a rest does.
func DefaultHeatPolicy() HeatPolicy { return HeatPolicy{Hot: 95, Cool: 85, Quiet: 10 * time.Second} }

// Why a processor is given no more work.
const (
	ReasonThrottled Reason = "slowed down by heat"
	ReasonHot       Reason = "too hot"
	ReasonCooling   Reason = "cooling down"
)

// Heat is the verdict on a processor, with what the next one depends on. The
// zero Heat vetoes nothing.
type Heat struct {
	Vetoed bool
	Reason Reason
	// Since is the temperature when that became the reason.
	Since Celsius
	// Last is the look behind the verdict, and Throttled when a look found that
	// the processor had been slowed down since the one before.
	Last      Thermal
	Throttled time.Time
}

// Veto says why a processor is given no more work, as in "too hot: 97 °C", or ""
// if it is. As long as the reason stays, so do the words.
func (h Heat) Veto() string {
	if !h.Vetoed || h.Since == 0 {
		return string(h.Reason)
	}
	return fmt.Sprintf("%s: %v", h.Reason, h.Since)
}

// Next returns the verdict on what a new look shows, given the last one.
//
// A veto begins at once and ends late, so that work is not sent to and fro with
// each turn of the fan. Looking twice at the same changes nothing.
func (p HeatPolicy) Next(last Heat, now Thermal) Heat {
	next := Heat{Last: now, Throttled: last.Throttled}
	if p.throttled(last.Last, now) {
		next.Throttled = now.At
	}
	switch {
	case !next.Throttled.IsZero() && now.At.Sub(next.Throttled) < p.Quiet:
		next.Vetoed, next.Reason = true, ReasonThrottled
	case now.Temperature >= p.Hot:
		next.Vetoed, next.Reason = true, ReasonHot
	case last.Vetoed && now.Temperature > p.Cool:
		next.Vetoed, next.Reason = true, ReasonCooling
	}
	switch {
	case next.Reason == last.Reason:
		next.Since = last.Since
	case next.Vetoed:
		next.Since = now.Temperature
	}
	return next
}

// throttled reports whether the processor was slowed down between two looks
// that are close enough for it to have been just now. Counters that fell belong
// to a CPU that went offline.
func (p HeatPolicy) throttled(last, now Thermal) bool {
	if last.At.IsZero() || now.At.Sub(last.At) > p.Quiet {
		return false
	}
	return now.Throttles > last.Throttles || now.Throttled > last.Throttled
}
