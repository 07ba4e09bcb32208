// Package sysfs reads what the kernel says of power under /sys: how the machine
// is powered, what its parts draw, how hot they are and whether they sleep. It
// also reads the time that the CPU spends, of which the other two trees tell.
//
// The tree is an argument, so recorded machines can be read as well as the
// one below. Nothing here wakes a sleeping device: of a PCI function only
// class, vendor, uevent, power_state and what is in its power folder are read
// unless it is active (Documentation/ABI/testing/sysfs-devices-power). What it
// reads is for power/meter to make sense of; NVIDIA's GPUs are for power/nvml.
package sysfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/joulemux/joulemux/power"
)

// Supply reads how the machine is powered from class/power_supply
// (Documentation/ABI/testing/sysfs-class-power).
//
// A folder without supplies is a machine on line power. A folder that cannot
// be read gives an unknown supply. A single supply that cannot be read is left
// out: firmware fails one battery at a time.
func Supply(sys fs.FS) power.Supply {
	const class = "class/power_supply"
	entries, err := fs.ReadDir(sys, class)
	if err != nil {
		return power.Supply{}
	}
	var all supplies
	for _, e := range entries {
		all.add(sys, path.Join(class, e.Name()))
	}
	return all.sum()
}

// supplies adds up what single supplies say.
type supplies struct {
	batteries                      int
	charging, discharging, unclear bool
	lines, linesOnline             int
	now, full                      float64 // energy or charge counters
	percent                        float64 // sum, for batteries without counters
	counted                        int     // batteries with counters
}

// add reads the supply in dir.
func (a *supplies) add(sys fs.FS, dir string) {
	if attribute(sys, dir, "scope") == "Device" {
		return // the battery of a mouse
	}
	switch attribute(sys, dir, "type") {
	case "Mains", "USB", "Wireless":
		a.lines++
		if attribute(sys, dir, "online") == "1" {
			a.linesOnline++
		}
	case "Battery", "UPS":
		if attribute(sys, dir, "present") != "0" {
			a.addBattery(sys, dir)
		}
	}
}

func (a *supplies) addBattery(sys fs.FS, dir string) {
	percent, err := number(sys, dir, "capacity")
	now, full, counted := counters(sys, dir)
	if err != nil && !counted {
		return
	}
	a.batteries++
	a.percent += percent
	if counted {
		a.counted++
		a.now, a.full = a.now+now, a.full+full
	}
	switch attribute(sys, dir, "status") {
	case "Charging", "Full", "Not charging":
		a.charging = true
	case "Discharging":
		a.discharging = true
	default:
		a.unclear = true
	}
}

// counters returns how much a battery holds and can hold, in energy or in
// charge; the two do not mix, but batteries of one machine agree on which.
func counters(sys fs.FS, dir string) (now, full float64, ok bool) {
	for _, unit := range []string{"energy", "charge"} {
		now, err1 := number(sys, dir, unit+"_now")
		full, err2 := number(sys, dir, unit+"_full")
		if err1 == nil && err2 == nil && full > 0 {
			return now, full, true
		}
	}
	return 0, 0, false
}

// sum returns the supplies as one.
func (a *supplies) sum() power.Supply {
	s := power.Supply{Source: "sysfs"}
	if a.batteries == 0 {
		return s
	}
	s.Battery = true
	s.Charge = power.Charge(a.percent / float64(a.batteries))
	if a.counted == a.batteries {
		s.Charge = power.Charge(100 * a.now / a.full)
	}
	s.Charge = min(max(s.Charge, 0), 100)
	switch {
	case a.discharging:
		// One battery rests while the other is drained.
		s.Discharging = true
	case a.unclear && !a.charging:
		s.Discharging = a.lines > 0 && a.linesOnline == 0
	}
	return s
}

// FullCharge reads what the batteries of this machine hold when they are full,
// now and not as they were built, and reports whether that is known: of all of
// them, since a part of it would pass for the whole.
func FullCharge(sys fs.FS) (full power.Energy, known bool) {
	const class = "class/power_supply"
	entries, err := fs.ReadDir(sys, class)
	if err != nil {
		return 0, false
	}
	for _, e := range entries {
		dir := path.Join(class, e.Name())
		if attribute(sys, dir, "type") != "Battery" || attribute(sys, dir, "scope") == "Device" ||
			attribute(sys, dir, "present") == "0" {
			continue
		}
		one := fullCharge(sys, dir)
		if one <= 0 {
			return 0, false
		}
		full += one
	}
	return full, full > 0
}

// fullCharge returns what one battery holds when it is full, or zero. Some
// count microwatt-hours, others microampere-hours. Those are of the voltage
// that the battery was designed for, which the kernel's ACPI driver calls
// voltage_min_design.
func fullCharge(sys fs.FS, dir string) power.Energy {
	if microwattHours, err := number(sys, dir, "energy_full"); err == nil && microwattHours > 0 {
		return power.Joules(microwattHours / 1e6 * 3600)
	}
	microampereHours, err1 := number(sys, dir, "charge_full")
	microvolts, err2 := number(sys, dir, "voltage_min_design")
	if err1 != nil || err2 != nil {
		return 0
	}
	return power.Joules(microampereHours / 1e6 * microvolts / 1e6 * 3600)
}

// attribute returns the text of an attribute, or "" if it cannot be read.
func attribute(sys fs.FS, dir, name string) string {
	b, err := fs.ReadFile(sys, path.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

var errNoNumber = errors.New("no such number")

// number returns a numeric attribute.
func number(sys fs.FS, dir, name string) (float64, error) {
	n, err := strconv.ParseInt(attribute(sys, dir, name), 10, 64)
	if err != nil || n < 0 {
		return 0, errNoNumber
	}
	return float64(n), nil
}

// unavailable marks the errors which mean that there is nothing to read, and
// not that reading went wrong. ENODEV is a device that was taken away.
func unavailable(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENODEV) {
		return fmt.Errorf("%w: %w", power.ErrUnavailable, err)
	}
	return err
}
