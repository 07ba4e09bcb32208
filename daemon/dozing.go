package daemon

import (
	"io/fs"
	"slices"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/sysfs"
)

// dozing returns the backends of this machine with those marked whose device
// sleeps. That is told only of classes that it takes no guess to find on the
// bus, NVIDIA's GPUs and NPUs, and reading it wakes nothing.
func dozing(sys fs.FS, all backend.Snapshot) backend.Snapshot {
	var devices []sysfs.Device
	cloned := false
	for i, b := range all {
		if b.Class != power.NVIDIA && b.Class != power.NPU || !local(b.Endpoint) {
			continue
		}
		if !cloned {
			all, cloned = slices.Clone(all), true // others see the same snapshot
			devices, _ = sysfs.Devices(sys)       // where the bus cannot be read there are none
		}
		all[i].Asleep = allAsleep(devices, b.Class)
	}
	return all
}

// allAsleep reports whether there are devices of a class, and none is awake.
func allAsleep(devices []sysfs.Device, class power.DeviceClass) bool {
	found := false
	for _, d := range devices {
		display := kindOf(d) == "display"
		switch {
		case class == power.NPU && display, class == power.NVIDIA && !(display && vendorOf(d) == "nvidia"):
			continue
		case d.Status != "suspended":
			return false
		}
		found = true
	}
	return found
}
