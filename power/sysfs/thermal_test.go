package sysfs_test

import (
	"testing"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/powertest"
	"github.com/joulemux/joulemux/power/sysfs"
)

func TestThermalOfEachMachine(t *testing.T) {
	for machine, want := range map[string]power.Thermal{
		"meteor-lake": {Temperature: 54, Throttles: 3, Throttled: 120 * time.Millisecond},
		"arrow-lake":  {Temperature: 71},
		"strix":       {Temperature: 61.25},
		"hawk-point":  {Temperature: 58},
		"optimus":     {Temperature: 63, Throttles: 12, Throttled: 900 * time.Millisecond},
		"desktop":     {Temperature: 66.5},
		"vm":          {},
	} {
		got := sysfs.Thermal(powertest.Load(t, machine).Sys())
		want.At = got.At
		if got != want || got.At.IsZero() {
			t.Errorf("%s: %+v, want %+v", machine, got, want)
		}
	}
}

func TestTemperatureOfAZone(t *testing.T) {
	m := powertest.Load(t, "meteor-lake")
	m.Remove("sys/devices/platform/coretemp.0")
	m.Set("sys/class/thermal/thermal_zone1/temp", "77000\n")
	if got := sysfs.Thermal(m.Sys()).Temperature; got != 77 {
		t.Errorf("without coretemp it is %v", got)
	}
	m.Set("sys/class/thermal/thermal_zone1/temp", "")
	if got := sysfs.Thermal(m.Sys()).Temperature; got != 0 {
		t.Errorf("of a zone that cannot be read it is %v", got)
	}
}
