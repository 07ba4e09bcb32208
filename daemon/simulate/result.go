package simulate

import (
	"time"

	"github.com/joulemux/joulemux/power"
)

// Result is what came of running a trace.
type Result struct {
	Machine, Policy string
	// Jobs are the requests in the order in which they came.
	Jobs    []Job
	Devices []DeviceResult
	// Lasted is how long the run was, without the time suspended: until the
	// trace and its jobs were over, or the battery empty.
	Lasted time.Duration
	Empty  bool
	// Base is what the machine took beside its devices.
	Base power.Energy
	// FromBattery is what the battery gave, and Battery what it holds.
	FromBattery, Battery power.Energy
	TierChanges          int
	// Bound is what the requests that were answered take at the least, and
	// Infeasible how many of them no device can answer in time.
	Bound      power.Energy
	Infeasible int
	// HeldBound is the same with what being kept ready takes at the least.
	HeldBound power.Energy
	// Timeline is what a plot is made of, where it was asked for.
	Timeline []Moment
}

// Fate is what became of a request.
type Fate string

// The fates.
const (
	Answered Fate = "answered"
	// Refused were told so at once.
	Refused Fate = "refused"
	// Lost were not over when the battery was empty or the run ended.
	Lost Fate = "lost"
)

// Job is a request and what became of it. Times are from the begin of the
// trace, without the time suspended.
type Job struct {
	ID string
	Request
	// Arrived is At without the time suspended.
	Arrived                    time.Duration
	Backend                    string
	Tier                       power.Tier // when it was placed
	Started, FirstToken, Ended time.Duration
	// Due is when the last token was to be there.
	Due time.Duration
	// Loaded tells that the model had to be made resident for it.
	Loaded bool
	// Energy is what loading, reading and writing took, and Measured what a
	// meter with its noise said; Predicted is what the figures of the moment
	// say for an answer of that length.
	Energy, Measured, Predicted power.Energy
	// PutOff tells that it waited, or was refused, because the tier's rule about
	// background jobs says so.
	PutOff bool
	Fate   Fate
	Why    string // it was refused

	// onBattery tells how the machine was powered when it began.
	onBattery bool
}

// Late reports whether the last token came after it was due, if at all. What
// was put off is not late: it is as the user wants it.
func (j *Job) Late() bool { return !j.PutOff && (j.Fate != Answered || j.Ended > j.Due) }

// Spent is energy by what it was for.
type Spent struct{ Prefill, Decode, Hold, Load power.Energy }

// Total is all of it.
func (s Spent) Total() power.Energy { return s.Prefill + s.Decode + s.Hold + s.Load }

// Plus returns the sums.
func (s Spent) Plus(t Spent) Spent {
	return Spent{s.Prefill + t.Prefill, s.Decode + t.Decode, s.Hold + t.Hold, s.Load + t.Load}
}

// DeviceResult is what came of a device.
type DeviceResult struct {
	ID    string
	Class power.DeviceClass
	Spent Spent
	// Resident is for how long it had the model, loading included, and Needed
	// for how long of that it loaded it or worked with it.
	Resident, Needed time.Duration
	Loads, Jobs      int
}

// Spent is what all devices took.
func (r *Result) Spent() (all Spent) {
	for i := range r.Devices {
		all = all.Plus(r.Devices[i].Spent)
	}
	return all
}

// Ratio is the energy of the devices over the least that would have done.
func (r *Result) Ratio() float64 { return ratio(r.Spent().Total().Joules(), r.Bound.Joules()) }

// RatioHeld is the same over the bound that knows of load and hold.
func (r *Result) RatioHeld() float64 {
	return ratio(r.Spent().Total().Joules(), r.HeldBound.Joules())
}

// HoldShare is which part of the energy of the devices went into keeping them
// ready.
func (r *Result) HoldShare() float64 {
	s := r.Spent()
	return ratio(s.Hold.Joules(), s.Total().Joules())
}

// Missed is which part of the jobs was late, refused or lost; what was put off
// as the tier's rule says is not among them.
func (r *Result) Missed() float64 { return r.share((*Job).Late) }

// PutOff is which part of the jobs was.
func (r *Result) PutOff() float64 {
	return r.share(func(j *Job) bool { return j.PutOff })
}

func (r *Result) share(is func(*Job) bool) float64 {
	n := 0
	for i := range r.Jobs {
		if is(&r.Jobs[i]) {
			n++
		}
	}
	return ratio(float64(n), float64(len(r.Jobs)))
}

// FirstTokens are the times from arrival to the first token of a class's
// answers.
func (r *Result) FirstTokens(c Class) (list []time.Duration) {
	for i := range r.Jobs {
		if j := &r.Jobs[i]; j.Class == c && j.Fate == Answered {
			list = append(list, j.FirstToken-j.Arrived)
		}
	}
	return list
}

// EnergyDelay is the sum over the answers of their energy times the time from
// arrival to the last token, in joule-seconds.
func (r *Result) EnergyDelay() (sum float64) {
	for i := range r.Jobs {
		if j := &r.Jobs[i]; j.Fate == Answered {
			sum += j.Energy.Joules() * (j.Ended - j.Arrived).Seconds()
		}
	}
	return sum
}

// PerToken is the energy of the devices for each token written.
func (r *Result) PerToken() power.Energy {
	tokens := 0
	for i := range r.Jobs {
		if r.Jobs[i].Fate == Answered {
			tokens += r.Jobs[i].Output
		}
	}
	return power.Joules(ratio(r.Spent().Total().Joules(), float64(tokens)))
}

// BatteryUsed is how much of a full battery was used, in percent.
func (r *Result) BatteryUsed() float64 {
	return 100 * ratio(r.FromBattery.Joules(), r.Battery.Joules())
}

// Fit is R² of what was predicted of the energy of jobs against what was
// measured, for those that were answered.
func Fit(jobs []Job) float64 {
	var predicted, measured []float64
	for i := range jobs {
		if j := &jobs[i]; j.Fate == Answered {
			predicted = append(predicted, j.Predicted.Joules())
			measured = append(measured, j.Measured.Joules())
		}
	}
	mean := 0.0
	for _, m := range measured {
		mean += m / float64(len(measured))
	}
	residual, all := 0.0, 0.0
	for i, m := range measured {
		residual += (m - predicted[i]) * (m - predicted[i])
		all += (m - mean) * (m - mean)
	}
	return 1 - ratio(residual, all)
}

// ratio is zero where there is nothing to divide by.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// Plot is the picture of a run whose Timeline was asked for.
func (r *Result) Plot(title string) Plot {
	p := Plot{Title: title, Battery: r.Battery > 0, Moments: r.Timeline, End: r.Lasted}
	for i := range r.Devices {
		p.Devices = append(p.Devices, r.Devices[i].ID)
	}
	return p
}
