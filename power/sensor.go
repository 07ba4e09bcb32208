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
		return c.Discrete()
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
