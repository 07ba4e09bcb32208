package daemon

import (
	"context"
	"io/fs"
	"math"
	"strings"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
	"github.com/joulemux/joulemux/power/sysfs"
)

// machine looks at the machine for whoever asks.
func (d *daemon) machine(ctx context.Context) wire.Machine {
	m := wire.Machine{
		Draws: draws(d.meter.Draws(ctx)), Devices: devices(d.Sys, d.npu), Unreadable: d.unreadable(),
		Heat: heatOf(d.heat.verdict()), Degraded: d.profiles.Degraded(), CrossCheck: d.check.result(ctx),
	}
	if draw, known := d.supplies.Draw(); known {
		watts := draw.Watts()
		m.DrawWatts = &watts
	}
	return m
}

// draws are what sensors say. Finer figures than a tenth of a watt would tell
// more than how much the machine draws.
func draws(list []meter.Draw) []wire.Draw {
	all := []wire.Draw{}
	for _, d := range list {
		all = append(all, wire.Draw{
			Domain: d.Domain.Name, Scope: string(d.Domain.Scope), Source: d.Domain.Source,
			Watts: math.Round(d.Draw.Watts()*10) / 10, Asleep: d.Asleep,
		})
	}
	return all
}

// unreadable names the domains that have a sensor which nobody reads for us.
func (d *daemon) unreadable() (names []string) {
	for _, domain := range sysfs.Unreadable(d.Sys) {
		if !d.meter.Reads(domain.Name) {
			names = append(names, domain.Name)
		}
	}
	return names
}

// vendors are the makers of graphics and neural processors, by their numbers on
// the PCI bus.
var vendors = map[string]string{"0x10de": "nvidia", "0x1002": "amd", "0x1022": "amd", "0x8086": "intel"}

// vendorOf names the maker of a device, or else gives its number.
func vendorOf(one sysfs.Device) string {
	if name := vendors[one.Vendor]; name != "" {
		return name
	}
	return one.Vendor
}

// kindOf tells graphics processors from neural ones.
func kindOf(one sysfs.Device) string {
	if strings.HasPrefix(one.Class, "0x03") {
		return "display"
	}
	return "accelerator"
}

// devices returns the graphics and neural processors of this machine. Where the
// bus cannot be read there are none.
func devices(sys fs.FS, npu *sysfs.Occupancy) []wire.Device {
	found, _ := sysfs.Devices(sys)
	list := []wire.Device{}
	for _, d := range found {
		one := wire.Device{
			Address: d.Address, Vendor: vendorOf(d), Kind: kindOf(d),
			Status: d.Status, PowerState: d.State, NeverSleeps: d.Control == "on",
			SuspendedMs: d.Suspended.Milliseconds(), ActiveMs: d.Active.Milliseconds(),
		}
		if one.Kind != "display" && npu != nil && one.Vendor == "intel" {
			if busy, _, err := npu.Busy(); err == nil {
				one.BusyMs = busy.Milliseconds()
			}
		}
		list = append(list, one)
	}
	return list
}

// heatOf returns a verdict for whoever looks, or nil if no sensor says anything.
func heatOf(h power.Heat) *wire.Heat {
	if h.Last.Temperature == 0 && h.Last.Throttles == 0 {
		return nil
	}
	return &wire.Heat{Celsius: float64(h.Last.Temperature), Vetoed: h.Vetoed, Reason: string(h.Reason)}
}
