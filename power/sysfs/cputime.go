package sysfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"
)

// CPUBusy returns for how long all CPUs together have run anything since boot,
// from the tree that is mounted on /proc.
func CPUBusy(proc fs.FS) (time.Duration, error) {
	text, err := fs.ReadFile(proc, "stat")
	if err != nil {
		return 0, fmt.Errorf("cpu time: %w", unavailable(err))
	}
	line, _, _ := strings.Cut(string(text), "\n")
	busy, err := busyTicks(strings.Fields(line))
	if err != nil {
		return 0, fmt.Errorf("cpu time: %w", err)
	}
	const tick = time.Second / 100 // USER_HZ, which is part of the ABI
	return time.Duration(busy) * tick, nil
}

// busyTicks adds up the times in which a CPU of this machine worked: those of
// guests are in user and nice, and stolen ones were spent elsewhere (proc(5)).
func busyTicks(fields []string) (int64, error) {
	const user, nice, system, irq, softirq = 1, 2, 3, 6, 7
	if len(fields) <= softirq || fields[0] != "cpu" {
		return 0, errors.New("stat has no line of all CPUs")
	}
	var sum int64
	for _, i := range []int{user, nice, system, irq, softirq} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// CgroupCPU returns for how long the processes of a cgroup and of those below
// have run, from the tree that is mounted on /sys/fs/cgroup. The path is as in
// /proc/PID/cgroup, with or without a slash before it.
func CgroupCPU(cgroup fs.FS, name string) (time.Duration, error) {
	text, err := fs.ReadFile(cgroup, path.Join(strings.TrimPrefix(name, "/"), "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("cpu time of cgroup %s: %w", name, unavailable(err))
	}
	for line := range strings.Lines(string(text)) {
		if usage, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(usage), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("cpu time of cgroup %s: no usage_usec", name)
}
