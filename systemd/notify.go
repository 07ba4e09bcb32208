// Package systemd is what the daemon and its service manager tell each other:
// readiness and status, inherited sockets, and log lines that the journal
// understands. The unit files beside the code are the other half, so that a
// name or a protocol changes in both at once.
//
// It decides nothing: when the daemon is ready, what its status says and which
// socket serves what is up to the caller. Without a service manager everything
// here does nothing, and is no error.
package systemd

import (
	"fmt"
	"strings"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// Ready says that the daemon serves, after its start or after a reload, and
// what its status is.
func Ready(status string) error {
	return notify("ready", sd.SdNotifyReady, statusLine(status))
}

// Status replaces the status, a line that "systemctl status" shows. Each call
// wakes the service manager: call it when the text has changed.
func Status(text string) error {
	return notify("status", statusLine(text))
}

// Reloading says that a reload has begun. Ready ends it.
func Reloading() error {
	// The manager takes the first READY=1 that was sent after this moment for
	// the end of the reload, so the time has to come in the same datagram
	// (systemd.service(5), Type=notify-reload).
	return notify("reloading", sd.SdNotifyReloading, sd.SdNotifyMonotonicUsec())
}

// Stopping says that the daemon is about to end. From then on a request to
// start it is kept until it has ended.
func Stopping() error {
	return notify("stopping", sd.SdNotifyStopping)
}

// notify sends assignments in one datagram. The manager may be unable to take
// it, and that is no reason to fail: the error is there to be logged.
func notify(what string, assignments ...string) error {
	if _, err := sd.SdNotify(false, strings.Join(assignments, "\n")); err != nil {
		return fmt.Errorf("tell systemd %s: %w", what, err)
	}
	return nil
}

// statusLine keeps text to one line of UTF-8: what follows a newline would be
// an assignment of its own, and other bytes make the manager drop it.
func statusLine(text string) string {
	return "STATUS=" + strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\n", " ")
}
