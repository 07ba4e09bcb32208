package sysfs

import (
	"cmp"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/power"
)

// How the kernel names the zones: those that are read through model-specific
// registers, and their twins that are read through memory. An AMD processor's
// are called Intel's as well (Documentation/power/powercap/powercap.rst).
const (
	powercap = "class/powercap"
	raplMSR  = "intel-rapl"
	raplMMIO = "intel-rapl-mmio"
)

// mostRAPL is more than a package of a laptop or desktop draws for as long as
// it takes to count one range: 262 kJ last 17 minutes at this rate.
const mostRAPL = 250 * power.Watt

// zone is a part of RAPL that has a counter.
type zone struct {
	*Sensor
	dir string
	// parent is the name of the zone that it is filed in, or "".
	parent string
}

// raplSensors returns the zones that may be read, and what the others are of.
//
// Since Linux 5.10 root alone may read energy_uj: who can read it often can
// guess at what others compute (CVE-2020-8694, "PLATYPUS").
func raplSensors(sys fs.FS) (sensors []*Sensor, closed []power.Domain) {
	var open, shut []zone
	for _, z := range zones(sys) {
		if has(open, z.domain.Name) {
			continue // The twin of one that was read: both are one counter.
		}
		switch _, err := z.read(); {
		case err == nil && z.domain.Range > 0:
			open = append(open, z)
		case errors.Is(err, fs.ErrPermission) && !has(shut, z.domain.Name):
			shut = append(shut, z)
		}
	}
	for _, z := range shut {
		if !has(open, z.domain.Name) {
			closed = append(closed, z.domain)
		}
	}
	for _, z := range withoutMirrors(open) {
		sensors = append(sensors, z.Sensor)
	}
	return sensors, closed
}

func has(zones []zone, name string) bool {
	return slices.ContainsFunc(zones, func(z zone) bool { return z.domain.Name == name })
}

// zones returns all zones that have a meaning here, twins last.
func zones(sys fs.FS) []zone {
	dirs := make(map[string]string)
	for _, class := range raplClasses() {
		findZones(sys, class, dirs)
	}
	var all []zone
	for id, dir := range dirs {
		name, parent := attribute(sys, dir, "name"), ""
		domain := topZone(name)
		if in := dirs[id[:strings.LastIndexByte(id, ':')]]; in != "" {
			parent = attribute(sys, in, "name")
			domain = subzone(name, parent)
		}
		if domain.Scope != "" {
			all = append(all, zone{raplSensor(sys, dir, domain), dir, parent})
		}
	}
	slices.SortFunc(all, func(a, b zone) int {
		return cmp.Or(twin(a)-twin(b), cmp.Compare(path.Base(a.dir), path.Base(b.dir)))
	})
	return all
}

func twin(z zone) int {
	if strings.HasPrefix(path.Base(z.dir), raplMMIO) {
		return 1
	}
	return 0
}

// raplClasses are the folders that zones are in.
func raplClasses() []string {
	return []string{powercap, path.Join(powercap, raplMSR), path.Join(powercap, raplMMIO)}
}

// findZones adds the zones in dir and below to dirs, by their ids. The class
// folder has a link to each, but a copy of the tree may not have the links.
func findZones(sys fs.FS, dir string, dirs map[string]string) {
	entries, err := fs.ReadDir(sys, dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		id := e.Name()
		if !strings.HasPrefix(id, raplMSR+":") && !strings.HasPrefix(id, raplMMIO+":") || dirs[id] != "" {
			continue
		}
		dirs[id] = path.Join(dir, id)
		findZones(sys, dirs[id], dirs)
	}
}

// topZone returns the domain of a zone that is in no other. That psys contains
// the packages is left unsaid: on some machines it counts less than they do.
func topZone(name string) power.Domain {
	switch {
	case name == "psys":
		return raplDomain(name, power.ScopePlatform, "")
	case strings.HasPrefix(name, "package-"):
		return raplDomain(name, power.ScopePackage, "")
	default:
		return power.Domain{}
	}
}

// subzone returns the domain of a zone of a package, as in "core-0". The
// memory's zone is filed there as well, but is no part of it.
func subzone(name, parent string) power.Domain {
	number, ok := strings.CutPrefix(parent, "package")
	switch {
	case !ok:
		return power.Domain{}
	case name == "core":
		return raplDomain(name+number, power.ScopeCore, parent)
	case name == "uncore":
		return raplDomain(name+number, power.ScopeUncore, parent)
	case name == "dram":
		return raplDomain(name+number, power.ScopeDRAM, "")
	default:
		return power.Domain{}
	}
}

func raplDomain(name string, scope power.Scope, within string) power.Domain {
	return power.Domain{
		Name: name, Scope: scope, Source: "rapl", Within: within,
		Cumulative: true, Most: mostRAPL, Period: time.Millisecond,
	}
}

// raplSensor returns the sensor of the zone in dir. Without a Range it is of no
// use: it could not be told how much was drawn when the counter starts again.
func raplSensor(sys fs.FS, dir string, d power.Domain) *Sensor {
	if ceiling, err := number(sys, dir, "max_energy_range_uj"); err == nil {
		d.Range = power.Energy(ceiling)
	}
	if most, err := number(sys, dir, "constraint_0_max_power_uw"); err == nil {
		d.Most = max(d.Most, power.Power(most))
	}
	counter := newAttr(sys, path.Join(dir, "energy_uj"))
	return &Sensor{d, []*attr{counter}, func() (power.Reading, error) {
		n, err := counter.number()
		return power.Reading{Energy: power.Energy(n)}, err
	}}
}

// withoutMirrors drops packages that show the counter of another, as the dies
// of some processors do (mlco2/codecarbon#1274), and what is in them.
func withoutMirrors(zones []zone) []zone {
	var mirrors []string
	for i, a := range zones {
		for _, b := range zones[i+1:] {
			if mirror(a.Sensor, b.Sensor) {
				mirrors = append(mirrors, b.domain.Name)
			}
		}
	}
	return slices.DeleteFunc(zones, func(z zone) bool {
		drop := slices.Contains(mirrors, z.domain.Name) || slices.Contains(mirrors, z.parent)
		if drop {
			z.Close()
		}
		return drop
	})
}

// mirror reports whether two packages have one counter: what the second shows
// is then between two looks at the first, however fast it counts.
func mirror(a, b *Sensor) bool {
	if a.domain.Scope != power.ScopePackage || b.domain.Scope != power.ScopePackage {
		return false
	}
	before, err1 := a.read()
	between, err2 := b.read()
	after, err3 := a.read()
	return errors.Join(err1, err2, err3) == nil && before.Energy <= between.Energy && between.Energy <= after.Energy
}
