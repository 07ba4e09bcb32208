package power

import (
	"errors"
	"time"
)

// Scope is the part of a machine that a figure is about, by its word on every
// wire.
type Scope string

// The scopes. A platform contains the package, and a package the core, uncore
// and NPU: figures of scopes that contain each other are never added up.
const (
	ScopePlatform    Scope = "platform" // RAPL's psys: all that the firmware's meter sees
	ScopePackage     Scope = "package"  // the processor, with what is built into it
	ScopeCore        Scope = "core"     // the CPU's cores
	ScopeUncore      Scope = "uncore"   // RAPL's word for the GPU that is built in
	ScopeDRAM        Scope = "dram"
	ScopeNPU         Scope = "npu"
	ScopeDiscreteGPU Scope = "dgpu"
)

// SourceNVML is the sensor of NVIDIA's GPUs, which no other can read.
const SourceNVML = "nvml"

// Domain is a part of this machine whose energy one sensor tells.
type Domain struct {
	// Name is the domain's own, as in "package-0" or "npu".
	Name  string
	Scope Scope
	// Source names the sensor for people and for the ledger, as in "rapl" or
	// "nvml".
	Source string
	// Device is the PCI address of the device, as in "0000:01:00.0", or "" for
	// the processor.
	Device string
	// Within names the domain that contains this one, or is "".
	Within string
	// Cumulative sensors count energy; the others tell a draw.
	Cumulative bool
	// Range is the count at which a cumulative sensor starts again at zero, or
	// zero if it never does.
	Range Energy
	// Most is more than the domain can draw. A span in which that much might
	// have passed a whole Range is ambiguous. Zero is not known.
	Most Power
	// Period is how often the hardware renews what can be read.
	Period time.Duration
}

// Covers reports whether the work of a device shows in the domain. What runs on
// a discrete device also has the processor work for it; what runs in the cloud
// takes nothing here.
func (d Domain) Covers(c DeviceClass) bool {
	if c == Cloud {
		return false
	}
	switch d.Scope {
	case ScopePackage:
		return true
	case ScopeNPU:
		return c == NPU
	case ScopeDiscreteGPU:
		// What may or may not run on the GPU is no reason to look at it.
		return c == DiscreteGPU || c == NVIDIA && d.Source == SourceNVML
	default:
		return false
	}
}

// Holds reports whether the domain contains the device itself, and not only
// what the processor does for it.
func (d Domain) Holds(c DeviceClass) bool {
	if d.Scope == ScopePackage {
		return !c.Discrete() && c != Cloud
	}
	return d.Covers(c)
}

// Reading is one look at a sensor.
type Reading struct {
	// At is when the figure was taken, which may be before it was asked for.
	At time.Time
	// Energy is the count of a cumulative sensor.
	Energy Energy
	// Draw is what another tells.
	Draw Power
}

// Why a sensor gives no reading, although nothing is broken.
var (
	// ErrAsleep is a device that is not woken up to be asked.
	ErrAsleep = errors.New("asleep")
	// ErrUnavailable is a sensor that is not there, or not for us to read.
	ErrUnavailable = errors.New("unavailable")
)

// Between returns the energy that passed between two readings of the domain,
// and whether it can be told.
//
// It cannot if the counter may have passed its range more than once, if it went
// back though it has no range, or if more would have passed than the domain can
// draw, for then it was set back. A sum of samples holds only if they are close
// together.
func (d Domain) Between(from, to Reading) (e Energy, ok bool) {
	elapsed := to.At.Sub(from.At)
	if elapsed <= 0 {
		return 0, false
	}
	if !d.Cumulative {
		mean := (from.Draw + to.Draw) / 2
		return mean.For(elapsed), elapsed <= farthest && mean >= 0
	}
	e = to.Energy - from.Energy
	if e < 0 {
		if e += d.Range; d.Range == 0 || to.Energy < 0 || from.Energy > d.Range {
			return 0, false
		}
	}
	if d.Most > 0 {
		// What the hardware had counted but not shown at the first reading
		// may be shown at the second.
		possible := d.Most.For(elapsed + d.Period)
		if e > possible || d.Range > 0 && possible >= d.Range {
			return 0, false
		}
	}
	return e, true
}

// farthest is how far apart two samples of a draw may be to say what passed
// between them.
const farthest = 3 * time.Second
