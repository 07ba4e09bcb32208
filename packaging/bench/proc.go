package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// cpu returns how long a process has been on a processor, in user space and in
// the kernel: the first figure of schedstat, over its threads. A thread that
// ends takes its figure along, and Go's do not end.
func cpu(pid int) (time.Duration, error) {
	var sum time.Duration
	err := threads(pid, "schedstat", func(text []byte) error {
		var ns int64
		_, err := fmt.Fscan(bytes.NewReader(text), &ns)
		sum += time.Duration(ns)
		return err
	})
	return sum, err
}

// wakes returns how often the threads of a process have gone to sleep by
// themselves, and so how often they were woken.
func wakes(pid int) (int, error) {
	sum := 0
	err := threads(pid, "status", func(text []byte) error {
		n, err := status(text, "voluntary_ctxt_switches:")
		sum += n
		return err
	})
	return sum, err
}

// resident returns the memory that a process has in use, in bytes.
func resident(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	kib, err := status(text, "VmRSS:")
	return kib << 10, err
}

// threads reads a file of each thread.
func threads(pid int, file string, read func([]byte) error) error {
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/%s", pid, file))
	if err == nil && len(paths) == 0 {
		err = fmt.Errorf("process %d is gone, or the kernel tells no %s", pid, file)
	}
	for _, path := range paths {
		text, readErr := os.ReadFile(path)
		if errors.Is(readErr, fs.ErrNotExist) {
			continue // it has ended since
		}
		err = errors.Join(err, readErr)
		if readErr == nil {
			err = errors.Join(err, read(text))
		}
	}
	return err
}

// status returns a number in the text of a status file (proc_pid_status(5)).
func status(text []byte, name string) (n int, err error) {
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte(name)); ok {
			_, err = fmt.Fscan(bytes.NewReader(value), &n)
			return n, err
		}
	}
	return 0, fmt.Errorf("no %s in a status file", name)
}
