package sysfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/joulemux/joulemux/power"
)

// ParseNPUEnergy returns the energy that an Intel NPU has taken, from the
// telemetry region that the guid says is of a known layout: in Intel PMT the
// guid stands for the exact contents.
//
// Intel documents the register, VPU_ENERGY, only by its own program
// (intel/linux-npu-driver, tools/intel-npu-smi).
func ParseNPUEnergy(guid string, telemetry []byte) (power.Energy, error) {
	r, ok := npuRegister(guid)
	if !ok {
		return 0, fmt.Errorf("%w: no known NPU register in telemetry of guid %s", power.ErrUnavailable, guid)
	}
	if len(telemetry) < r.offset+registerSize {
		return 0, fmt.Errorf("telemetry of %d bytes ends before the NPU's register at %#x", len(telemetry), r.offset)
	}
	return r.energy(telemetry[r.offset:]), nil
}

// register is where a layout has the NPU's energy, and what to multiply it by.
type register struct {
	offset int
	scale  power.Energy
}

// registerSize is that of all registers of PMT. Only the lower half counts.
const registerSize = 8

func npuRegister(guid string) (register, bool) {
	switch guid {
	case "0x130670b2", // Meteor Lake
		"0x1306a0b2", "0x1306a0b3", "0x1306a0b4": // Arrow Lake-H, Arrow Lake and Arrow Lake-S
		return register{0x628, 1}, true
	case "0x3072005": // Lunar Lake
		return register{0x5d0, 1}, true
	case "0x3086000": // Panther Lake
		return register{0x670, 1}, true
	case "0x308d000": // Wildcat Lake
		return register{0x670, 100}, true
	default:
		return register{}, false
	}
}

// energy decodes the register: 18 bits of joules and 14 bits of fractions.
func (r register) energy(b []byte) power.Energy { return r.count(binary.LittleEndian.Uint32(b)) }

func (r register) count(n uint32) power.Energy { return r.scale * power.Energy(n) * power.Joule >> 14 }

// span is where the register starts again at zero: 262 144 J, times the scale.
func (r register) span() power.Energy { return r.scale << 18 * power.Joule }

// pmt is where the kernel has the telemetry of Intel's platforms.
const pmt = "class/intel_pmt"

// mostNPU is more than an NPU in a processor draws.
const mostNPU = 100 * power.Watt

// npuSensors returns the sensor of the energy of Intel's NPU in the package
// pkg, or its domain if it is only for root to read.
func npuSensors(sys fs.FS, pkg string) (sensors []*Sensor, closed []power.Domain) {
	entries, err := fs.ReadDir(sys, pmt)
	if err != nil {
		return nil, nil
	}
	for _, e := range entries {
		dir := path.Join(pmt, e.Name())
		if !strings.HasPrefix(e.Name(), "telem") {
			continue
		}
		r, ok := npuRegister(attribute(sys, dir, "guid"))
		if !ok {
			continue
		}
		s := r.sensor(sys, dir, pkg)
		switch _, err := s.read(); {
		case err == nil:
			return []*Sensor{s}, nil
		case errors.Is(err, fs.ErrPermission):
			closed = []power.Domain{s.domain}
		}
	}
	return nil, closed
}

func (r register) sensor(sys fs.FS, dir, pkg string) *Sensor {
	telemetry := newAttr(sys, path.Join(dir, "telem"))
	d := power.Domain{
		Name: "npu", Scope: power.ScopeNPU, Source: "pmt", Within: pkg,
		Cumulative: true, Range: r.span(), Most: mostNPU,
	}
	return &Sensor{d, []*attr{telemetry}, func() (power.Reading, error) {
		var buf [registerSize]byte
		n, err := telemetry.read(buf[:], int64(r.offset))
		if err == nil && n < len(buf) {
			err = fmt.Errorf("telemetry ends before the NPU's register at %#x", r.offset)
		}
		return power.Reading{Energy: r.energy(buf[:])}, err
	}}
}

// Occupancy tells for how long Intel's NPU has had work.
type Occupancy struct {
	attr *attr

	mu   sync.Mutex
	at   time.Time
	busy time.Duration
}

// occupancyPeriod is how seldom the driver wants to be asked: it holds up those
// who submit work (npu_busy_time_us in ivpu_sysfs.c).
const occupancyPeriod = time.Second

// NPUOccupancy returns the occupancy of the NPU of this machine, if it is
// Intel's and its driver tells.
func NPUOccupancy(sys fs.FS) (*Occupancy, bool) {
	devices, err := Devices(sys)
	if err != nil {
		return nil, false
	}
	for _, d := range devices {
		if d.Vendor == vendorIntel && isAccelerator(d.Class) {
			o := &Occupancy{attr: newAttr(sys, path.Join(pciDevices, d.Address, "npu_busy_time_us"))}
			_, _, err := o.Busy()
			return o, err == nil
		}
	}
	return nil, false
}

// Busy returns for how long work has been pending since the driver was loaded,
// and when that was read: asked again within a second, it has not looked again.
// The driver answers from its own books, so a sleeping NPU sleeps on.
func (o *Occupancy) Busy() (busy time.Duration, at time.Time, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := time.Now(); o.at.IsZero() || now.Sub(o.at) >= occupancyPeriod {
		n, err := o.attr.number()
		if err != nil {
			return 0, time.Time{}, fmt.Errorf("npu: %w", unavailable(err))
		}
		o.at, o.busy = now, time.Duration(n)*time.Microsecond
	}
	return o.busy, o.at, nil
}
