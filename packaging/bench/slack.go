package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is TimerSlackNSec= of joulemuxd.service.
const timerSlack = 10 * time.Millisecond

// startSlack becomes a program whose sleeps may end late by timerSlack, as under the
// unit.
func startSlack(command []string) error {
	if len(command) == 0 {
		return errors.New("there is no program to start")
	}
	runtime.LockOSThread() // the slack is a thread's, and stays with what it becomes
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0); err != nil {
		return fmt.Errorf("set the timer slack: %w", err)
	}
	return unix.Exec(command[0], command, os.Environ())
}
