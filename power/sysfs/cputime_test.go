package sysfs_test

import (
	"errors"
	"testing"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/sysfs"
)

func TestCPUBusy(t *testing.T) {
	for _, c := range []struct {
		name, stat string
		want       time.Duration
		fails      bool
	}{
		{"user, nice, system, irq, softirq", "cpu  100 20 30 9999 9999 4 5 9999 9999 9999\ncpu0 1 1 1 1 1 1 1 1 1 1\n", 1590 * time.Millisecond, false},
		{"an old kernel", "cpu  100 0 0 0 0\n", 0, true},
		{"one CPU only", "cpu0 1 1 1 1 1 1 1 1 1 1\n", 0, true},
		{"no number", "cpu  x 20 30 9 9 4 5 9 9 9\n", 0, true},
		{"empty", "", 0, true},
	} {
		got, err := sysfs.CPUBusy(tree(map[string]string{"stat": c.stat}))
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
	if _, err := sysfs.CPUBusy(tree(nil)); !errors.Is(err, power.ErrUnavailable) {
		t.Errorf("without /proc: %v", err)
	}
}

func TestCgroupCPU(t *testing.T) {
	cgroups := tree(map[string]string{
		"user.slice/ollama.service/cpu.stat": "usage_usec 1500000\nuser_usec 1000000\n",
		"user.slice/odd.service/cpu.stat":    "user_usec 1000000\n",
		"user.slice/wild.service/cpu.stat":   "usage_usec many\n",
	})
	for _, name := range []string{"user.slice/ollama.service", "/user.slice/ollama.service"} {
		if got, err := sysfs.CgroupCPU(cgroups, name); err != nil || got != 1500*time.Millisecond {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for _, name := range []string{"user.slice/odd.service", "user.slice/wild.service"} {
		if got, err := sysfs.CgroupCPU(cgroups, name); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	if _, err := sysfs.CgroupCPU(cgroups, "/gone"); !errors.Is(err, power.ErrUnavailable) {
		t.Errorf("a cgroup that is gone: %v", err)
	}
}
