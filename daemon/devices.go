package daemon

import (
	"io/fs"
	"strings"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/power/sysfs"
)

// vendors are the makers of graphics and neural processors, by their numbers on
// the PCI bus.
var vendors = map[string]string{"0x10de": "nvidia", "0x1002": "amd", "0x1022": "amd", "0x8086": "intel"}

// devices returns the graphics and neural processors of this machine. Where the
// bus cannot be read there are none.
func devices(sys fs.FS) []wire.Device {
	found, _ := sysfs.Devices(sys)
	list := []wire.Device{}
	for _, d := range found {
		one := wire.Device{
			Address: d.Address, Vendor: d.Vendor, Kind: "accelerator",
			Status: d.Status, PowerState: d.State, NeverSleeps: d.Control == "on",
			SuspendedMs: d.Suspended.Milliseconds(), ActiveMs: d.Active.Milliseconds(),
		}
		if name := vendors[d.Vendor]; name != "" {
			one.Vendor = name
		}
		if strings.HasPrefix(d.Class, "0x03") {
			one.Kind = "display"
		}
		list = append(list, one)
	}
	return list
}
