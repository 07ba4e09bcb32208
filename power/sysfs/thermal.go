package sysfs

import (
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/joulemux/joulemux/power"
)

// Thermal looks at how hot the processor is and how often that slowed it down.
// What cannot be read stays zero: many machines tell only one of the two.
//
// Only the processor's own sensors are opened. A look through all of
// class/hwmon would come across those of a discrete GPU that sleeps.
func Thermal(sys fs.FS) power.Thermal {
	t := power.Thermal{At: time.Now(), Temperature: temperature(sys)}
	for _, dir := range glob(sys, "devices/system/cpu/cpu*/thermal_throttle") {
		// Each CPU counts for the package by itself, and may have been offline.
		n, _ := number(sys, dir, "package_throttle_count")
		t.Throttles = max(t.Throttles, int64(n))
		t.Throttled = max(t.Throttled, milliseconds(sys, dir, "package_throttle_total_time_ms"))
	}
	return t
}

// temperature returns that of the hottest package, by the driver for Intel's
// sensors, by the one for AMD's, or by the firmware's thermal zone.
func temperature(sys fs.FS) power.Celsius {
	hottest := labelled(sys, "devices/platform/coretemp.*/hwmon/hwmon*/temp*_label", "Package id ")
	if hottest == 0 {
		hottest = labelled(sys, "bus/pci/drivers/k10temp/0000:*/hwmon/hwmon*/temp*_label", "Tctl")
	}
	if hottest > 0 {
		return hottest
	}
	for _, dir := range glob(sys, "class/thermal/thermal_zone*") {
		if attribute(sys, dir, "type") == "x86_pkg_temp" {
			hottest = max(hottest, celsius(sys, dir, "temp"))
		}
	}
	return hottest
}

// labelled returns the highest temperature whose label has the prefix.
func labelled(sys fs.FS, labels, prefix string) power.Celsius {
	var hottest power.Celsius
	for _, label := range glob(sys, labels) {
		dir, name := path.Split(label)
		if strings.HasPrefix(attribute(sys, dir, name), prefix) {
			hottest = max(hottest, celsius(sys, dir, strings.TrimSuffix(name, "label")+"input"))
		}
	}
	return hottest
}

// celsius returns a temperature, or zero if it is not told: zones fail for a
// while in many ways, and none of them is news.
func celsius(sys fs.FS, dir, name string) power.Celsius {
	n, _ := number(sys, dir, name)
	return power.Celsius(n / 1000)
}

// glob returns the paths of a pattern that is known to be one.
func glob(sys fs.FS, pattern string) []string {
	names, _ := fs.Glob(sys, pattern)
	return names
}
