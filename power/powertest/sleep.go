package powertest

import (
	"path"
	"strings"
)

// Harmless reports whether an attribute of a PCI function, such as "vendor",
// may be read while it sleeps: the kernel has those in memory.
func Harmless(attribute string) bool {
	switch attribute {
	case "class", "vendor", "device", "uevent", "driver", "power_state", "power/control",
		"power/runtime_status", "power/runtime_suspended_time", "power/runtime_active_time":
		return true
	default:
		return false
	}
}

// sleeper is where the machine "optimus" shows its NVIDIA GPU, under /sys. Who
// lists the chips of hwmon is about to read them.
func sleeper() []string {
	return []string{"bus/pci/devices/0000:01:00.0", "class/drm/card1/device", "class/drm/renderD129/device", "class/hwmon"}
}

// Disturbs reports whether opening a file would wake the NVIDIA GPU of the
// machine "optimus", or keep it awake: a node of its driver, the configuration
// space of a PCI function, and all of the GPU that is not harmless. Name may
// begin anywhere above what is in the machine's tree.
func Disturbs(name string) bool {
	if strings.HasPrefix(name, "/dev/nvidia") || strings.Contains(name, "bus/pci/") && path.Base(name) == "config" {
		return true
	}
	for _, folder := range sleeper() {
		if _, attribute, ok := strings.Cut(name, folder); ok {
			return !Harmless(strings.TrimPrefix(attribute, "/"))
		}
	}
	return false
}
