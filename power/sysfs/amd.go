package sysfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"syscall"

	"github.com/joulemux/joulemux/power"
)

// amdSensors returns what amdgpu tells of draws, to everybody. The package pkg
// has a better sensor; if there is none, that is "".
func amdSensors(sys fs.FS, pkg string) []*Sensor {
	devices, err := Devices(sys)
	if err != nil {
		return nil
	}
	var sensors []*Sensor
	for _, d := range devices {
		if d.Vendor != vendorAMD || !isDisplay(d.Class) {
			continue
		}
		c := newCard(sys, d.Address)
		switch class := amdClass(sys, c.dir); {
		case class == power.IntegratedGPU:
			sensors = append(sensors, c.processor(pkg, hasAMDNPU(devices))...)
		case class == power.DiscreteGPU && c.tells(c.draw), d.asleep():
			// One that sleeps is discrete: amdgpu suspends no other.
			sensors = append(sensors, c.discrete(d.Address))
		}
	}
	return sensors
}

// hasAMDNPU reports whether amdxdna has a device. Nothing else is asked of it:
// asking wakes it, and the GPU's firmware tells what it draws.
func hasAMDNPU(devices []Device) bool {
	return slices.ContainsFunc(devices, func(d Device) bool { return d.Vendor == vendorAMDCPU })
}

// card is a GPU that amdgpu drives.
type card struct {
	dir                    string
	status, power, metrics *attr
}

func newCard(sys fs.FS, address string) *card {
	dir := path.Join(pciDevices, address)
	return &card{
		dir:    dir,
		status: newAttr(sys, path.Join(dir, "power/runtime_status")),
		// Many chips have only one of these (Syllo/nvtop#244). On a processor
		// either is of the whole package.
		power:   newAttr(sys, path.Join(dir, "hwmon/hwmon*/power1_average"), path.Join(dir, "hwmon/hwmon*/power1_input")),
		metrics: newAttr(sys, path.Join(dir, "gpu_metrics")),
	}
}

func (c *card) attrs() []*attr { return []*attr{c.status, c.power, c.metrics} }

func (c *card) discrete(address string) *Sensor {
	return &Sensor{power.Domain{
		Name: "gpu " + address, Scope: power.ScopeDiscreteGPU, Device: address, Source: "amdgpu",
	}, c.attrs(), c.draw}
}

// processor returns the sensors of a processor that the GPU is part of.
func (c *card) processor(pkg string, npu bool) []*Sensor {
	var sensors []*Sensor
	add := func(d power.Domain, read func() (power.Reading, error)) bool {
		if !c.tells(read) {
			return false
		}
		d.Source = "amdgpu"
		sensors = append(sensors, &Sensor{d, c.attrs(), read})
		return true
	}
	if pkg == "" {
		apu := power.Domain{Name: "apu", Scope: power.ScopePackage}
		if add(apu, c.draw) || add(apu, c.rail(power.ScopePackage)) {
			pkg = apu.Name
		}
	}
	add(power.Domain{Name: "gfx", Scope: power.ScopeUncore, Within: pkg}, c.rail(power.ScopeUncore))
	if npu {
		add(power.Domain{Name: "npu", Scope: power.ScopeNPU, Within: pkg}, c.rail(power.ScopeNPU))
	}
	return sensors
}

// tells reports whether there is something to read, now or when it wakes up.
func (c *card) tells(read func() (power.Reading, error)) bool {
	_, err := read()
	return err == nil || errors.Is(err, power.ErrAsleep)
}

// draw returns what the whole card, or the package that it is part of, draws.
func (c *card) draw() (power.Reading, error) {
	if err := c.awake(); err != nil {
		return power.Reading{}, err
	}
	n, err := c.power.number()
	return power.Reading{Draw: power.Power(n)}, asleep(err)
}

// rail returns a function that reads one figure of gpu_metrics.
func (c *card) rail(scope power.Scope) func() (power.Reading, error) {
	return func() (power.Reading, error) {
		if err := c.awake(); err != nil {
			return power.Reading{}, err
		}
		var buf [4096]byte // A page is the most that an attribute has.
		n, err := c.metrics.read(buf[:], 0)
		if err != nil {
			return power.Reading{}, asleep(err)
		}
		draws, err := ParseGPUMetrics(buf[:n])
		if err != nil {
			return power.Reading{}, err
		}
		draw, ok := draws[scope]
		if !ok {
			return power.Reading{}, fmt.Errorf("%w: not in gpu_metrics now", power.ErrUnavailable)
		}
		return power.Reading{Draw: draw}, nil
	}
}

// awake returns power.ErrAsleep unless the card is active. Reading more of it
// would wake it up under some kernels (lm-sensors/lm-sensors#349), and under
// all of them starts anew the time after which it falls asleep.
func (c *card) awake() error {
	status, err := c.status.text()
	if err == nil && status != "active" {
		return fmt.Errorf("%w: runtime_status is %s", power.ErrAsleep, status)
	}
	return err
}

// asleep marks what amdgpu answers since Linux 6.15 when the card fell asleep
// in between (amdgpu_pm_get_access_if_active). Files that are not for us fail
// with EACCES instead.
func asleep(err error) error {
	if errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("%w: %w", power.ErrAsleep, err)
	}
	return err
}
