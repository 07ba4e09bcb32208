package main

import (
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// catch returns the signals that are for the command we run. Those that we
// were told to ignore, as by nohup, are left at that.
func catch() chan os.Signal {
	wanted := slices.DeleteFunc([]os.Signal{
		syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2,
	}, signal.Ignored)
	caught := make(chan os.Signal, 16)
	if len(wanted) > 0 { // Notify takes none for all.
		signal.Notify(caught, wanted...)
	}
	return caught
}

// relay passes signals on to a process.
func relay(signals <-chan os.Signal, to *os.Process) {
	for s := range signals {
		if !fromTerminal(s) {
			_ = to.Signal(s) // It may have ended.
		}
	}
}

// fromTerminal reports whether the command has that signal already: what is
// typed at a terminal goes to every process in the foreground, and we are in
// one group with the command. Twice would be an order of its own to many
// programs.
func fromTerminal(s os.Signal) bool {
	if s != syscall.SIGINT && s != syscall.SIGQUIT {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false // We have no terminal.
	}
	defer tty.Close()
	foreground, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}
