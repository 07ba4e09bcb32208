package sysfs

import (
	"io/fs"
	"path"
	"strings"
	"time"
)

// Device is what a display controller or accelerator on the PCI bus says of
// itself without being woken up.
type Device struct {
	// Address is its place on the bus, as in "0000:01:00.0".
	Address string
	// Class and Vendor are numbers as the kernel writes them, as in "0x030200"
	// and "0x10de".
	Class, Vendor string
	// Status is the runtime_status: "active", "suspended" or in between.
	Status string
	// State is the power_state, as in "D0" or "D3cold".
	State string
	// Suspended and Active are for how long it has been either. A device that
	// was woken up between two looks has been active for longer.
	Suspended, Active time.Duration
	// Control is "auto", or "on" where the device is never to sleep.
	Control string
}

// asleep tells a device that will be awake again from one of which the kernel
// does not say.
func (d Device) asleep() bool {
	return d.Status == "suspended" || d.Status == "suspending" || d.Status == "resuming"
}

// More PCI ids of https://pci-ids.ucw.cz: processing accelerators, which Intel's
// NPUs are, and other signal processors, which AMD's NPUs are among many.
const (
	pciDevices       = "bus/pci/devices"
	classAccelerator = "0x12"
	classSignals     = "0x118000"
	vendorAMDCPU     = "0x1022"
)

func isDisplay(class string) bool     { return strings.HasPrefix(class, classDisplay) }
func isAccelerator(class string) bool { return strings.HasPrefix(class, classAccelerator) }

// hasDriver reports whether a driver has taken the device.
func hasDriver(sys fs.FS, driver, address string) bool {
	return attribute(sys, path.Join("bus/pci/drivers", driver, address), "class") != ""
}

// Devices returns the display controllers and accelerators of this machine.
func Devices(sys fs.FS) ([]Device, error) {
	entries, err := fs.ReadDir(sys, pciDevices)
	if err != nil {
		return nil, err
	}
	var devices []Device
	for _, e := range entries {
		dir := path.Join(pciDevices, e.Name())
		class := attribute(sys, dir, "class")
		if isDisplay(class) || isAccelerator(class) || class == classSignals && hasDriver(sys, "amdxdna", e.Name()) {
			devices = append(devices, Device{
				Address: e.Name(), Class: class,
				Vendor:    attribute(sys, dir, "vendor"),
				Status:    attribute(sys, dir, "power/runtime_status"),
				State:     attribute(sys, dir, "power_state"),
				Suspended: milliseconds(sys, dir, "power/runtime_suspended_time"),
				Active:    milliseconds(sys, dir, "power/runtime_active_time"),
				Control:   attribute(sys, dir, "power/control"),
			})
		}
	}
	return devices, nil
}

// milliseconds returns a time, or zero if it is not told.
func milliseconds(sys fs.FS, dir, name string) time.Duration {
	n, _ := number(sys, dir, name)
	return time.Duration(n) * time.Millisecond
}
