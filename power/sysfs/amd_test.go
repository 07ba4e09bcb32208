package sysfs_test

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/powertest"
	"github.com/joulemux/joulemux/power/sysfs"
)

const (
	radeon     = "bus/pci/devices/0000:03:00.0/"
	radeonName = "gpu 0000:03:00.0"
)

func TestDiscreteGPUFallsAsleepAndWakes(t *testing.T) {
	m := powertest.Load(t, "desktop")
	m.Set("sys/"+radeon+"power/runtime_status", "suspended\n")
	log := powertest.NewLog(m.Sys())
	s := sensorOf(t, log, radeonName)
	if d := s.Domain(); d.Device != "0000:03:00.0" || d.Scope != power.ScopeDiscreteGPU || d.Cumulative {
		t.Errorf("it is of %+v", d)
	}
	if _, err := s.Read(t.Context()); !errors.Is(err, power.ErrAsleep) {
		t.Errorf("asleep: %v", err)
	}
	for _, name := range log.Opened() {
		if strings.Contains(name, "hwmon2") || strings.Contains(name, "gpu_metrics") {
			t.Errorf("of a sleeping GPU was opened %s", name)
		}
	}

	m.Set("sys/"+radeon+"power/runtime_status", "active\n")
	if r, err := s.Read(t.Context()); err != nil || r.Draw != 187*power.Watt {
		t.Errorf("awake it draws %v, %v", r.Draw, err)
	}
	m.Set("sys/"+radeon+"power/runtime_status", "suspending\n")
	if _, err := s.Read(t.Context()); !errors.Is(err, power.ErrAsleep) {
		t.Errorf("falling asleep: %v", err)
	}
}

func TestDriverLoadedAnew(t *testing.T) {
	m := powertest.Load(t, "desktop")
	sys := flaky{m.Sys(), map[string]error{}, map[string]error{}}
	s := sensorOf(t, sys, radeonName)
	m.Remove("sys/" + radeon + "hwmon")
	if _, err := s.Read(t.Context()); !errors.Is(err, power.ErrUnavailable) {
		t.Errorf("without its driver: %v", err)
	}
	m.Set("sys/"+radeon+"hwmon/hwmon9/power1_input", "33000000\n")
	if r, err := s.Read(t.Context()); err != nil || r.Draw != 33*power.Watt {
		t.Errorf("with it again: %v, %v", r.Draw, err)
	}
}

func TestErrorsOfAMDGPU(t *testing.T) {
	for _, c := range []struct {
		what string
		err  error
		want error
	}{
		{"it fell asleep in between", syscall.EPERM, power.ErrAsleep},
		{"it is not for us", syscall.EACCES, power.ErrUnavailable},
		{"it was taken out", syscall.ENODEV, power.ErrUnavailable},
	} {
		sys := flaky{powertest.Load(t, "desktop").Sys(), map[string]error{}, map[string]error{}}
		s := sensorOf(t, sys, radeonName)
		sys.read[radeon+"hwmon/hwmon2/power1_average"] = c.err
		if _, err := s.Read(t.Context()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
}

func TestProcessorWithoutHwmon(t *testing.T) {
	const gpu = "sys/bus/pci/devices/0000:c4:00.0/"
	m := powertest.Load(t, "strix")
	m.Remove(gpu + "hwmon")
	m.Remove("sys/bus/pci/drivers/amdxdna")
	want := []string{"amdgpu apu: 18.4 W", "amdgpu gfx in apu: 6.2 W"}
	if got := listed(t, sysfs.Sensors(m.Sys())); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}

	m = powertest.Load(t, "strix")
	sensors := sysfs.Sensors(m.Sys())
	m.Set(gpu+"gpu_metrics", string(table(264, 3, 0, nil)))
	want = []string{"amdgpu apu: 18.4 W", "amdgpu gfx in apu: unavailable", "amdgpu npu in apu: unavailable"}
	if got := listed(t, sensors); !slices.Equal(got, want) {
		t.Errorf("once nothing is told: %q, want %q", got, want)
	}
}
