package sysfs_test

import (
	"os"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/power/powertest"
	"github.com/joulemux/joulemux/power/sysfs"
)

func TestSignsOfSensorsThatCome(t *testing.T) {
	for _, c := range []struct {
		sign, machine string
		change        func(*powertest.Machine)
		seen          bool
	}{
		{"a rule opens a counter", "meteor-lake", func(m *powertest.Machine) { m.Chmod("sys/class/powercap/intel-rapl:0/energy_uj", 0o444) }, true},
		{"a counter is taken away", "desktop", func(m *powertest.Machine) { m.Remove("sys/class/powercap") }, true},
		{"a driver is loaded", "vm", func(m *powertest.Machine) { m.Set("sys/bus/pci/drivers/amdgpu/0000:c5:00.0/class", "0x030000\n") }, true},
		{"a GPU is plugged in", "meteor-lake", func(m *powertest.Machine) { m.Set("sys/bus/pci/devices/0000:2f:00.0/class", "0x030000\n") }, true},
		{"time goes by", "meteor-lake", func(m *powertest.Machine) { m.Set("sys/class/powercap/intel-rapl:0/energy_uj", "7\n") }, false},
		{"a GPU wakes up", "optimus", func(m *powertest.Machine) {
			m.Set("sys/bus/pci/devices/0000:01:00.0/power/runtime_status", "active\n")
		}, false},
	} {
		m := powertest.Load(t, c.machine)
		before := sysfs.Signs(m.Sys())
		c.change(m)
		if seen := sysfs.Signs(m.Sys()) != before; seen != c.seen {
			t.Errorf("%s: seen %v", c.sign, seen)
		}
	}
}

func TestSignsAreHadWithoutALookAtGPUs(t *testing.T) {
	for _, name := range powertest.Names(t) {
		log := powertest.NewLog(powertest.Load(t, name).AsRoot().Sys())
		sysfs.Signs(log)
		for _, opened := range log.Opened() {
			if strings.Contains(opened, "bus/pci/devices/") || strings.Contains(opened, "hwmon") || strings.Contains(opened, "drm") {
				t.Errorf("%s: %s was opened", name, opened)
			}
		}
	}
}

func TestClosedSensorOpensItsFilesAgain(t *testing.T) {
	folder := t.TempDir()
	if err := powertest.Load(t, "meteor-lake").WriteSys(folder); err != nil {
		t.Fatal(err)
	}
	before := descriptors(t, folder)
	sensors := sysfs.Sensors(os.DirFS(folder))
	held := descriptors(t, folder)
	for _, s := range sensors {
		s.Close()
		s.Close()
	}
	if closed := descriptors(t, folder); held <= before || closed != before {
		t.Errorf("%d files were open, then %d, and then %d", before, held, closed)
	}
	for _, s := range sensors {
		if _, err := s.Read(t.Context()); err != nil {
			t.Error(err)
		}
		s.Close()
	}
}

// descriptors counts those of this process that are of files below a folder.
func descriptors(t *testing.T, folder string) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, folder) {
			n++
		}
	}
	return n
}

// BenchmarkSigns is what a job costs that begins a minute after the last look.
func BenchmarkSigns(b *testing.B) {
	folder := b.TempDir()
	if err := powertest.Load(b, "meteor-lake").WriteSys(folder); err != nil {
		b.Fatal(err)
	}
	tree := os.DirFS(folder)
	for b.Loop() {
		sysfs.Signs(tree)
	}
}
