package rig

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// busConfig has the policy and the limits of a session bus, and no services
// that the bus could start by itself.
//
//go:embed bus.conf
var busConfig []byte

// A Bus is a private bus. It serves as session bus or as system bus: whoever
// talks on it may own any name.
type Bus struct {
	dir     string
	process *Process
	address string
}

// StartBus starts a bus, and returns when clients can connect.
func StartBus(ctx context.Context) (*Bus, error) {
	dir, err := newDir("bus")
	if err != nil {
		return nil, err
	}
	b := &Bus{dir: dir}
	if err := b.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start a bus: %w", err), b.Close())
	}
	return b, nil
}

func (b *Bus) start(ctx context.Context) error {
	config := filepath.Join(b.dir, "bus.conf")
	if err := os.WriteFile(config, busConfig, 0o600); err != nil {
		return err
	}
	address := newHerald("^(unix:.*)$", nil)
	cmd := command(ctx, "dbus-daemon", "--nofork", "--nopidfile", "--config-file="+config,
		"--address=unix:path="+filepath.Join(b.dir, "bus"), "--print-address")
	cmd.Stdout = address
	cmd.Stderr = address

	var err error
	if b.process, err = Start(cmd); err != nil {
		return err
	}
	b.address, err = address.from(ctx, b.process)
	return err
}

// Address is what clients connect to, as in DBUS_SESSION_BUS_ADDRESS.
func (b *Bus) Address() string { return b.address }

// Freeze stops the bus as a debugger would: its clients keep their connections,
// on which nothing moves until Thaw.
func (b *Bus) Freeze() error { return b.process.signalGroup(syscall.SIGSTOP) }

// Thaw has a frozen bus go on.
func (b *Bus) Thaw() error { return b.process.signalGroup(syscall.SIGCONT) }

// Close stops the bus: its clients lose their connections.
func (b *Bus) Close() error {
	var err error
	if b.process != nil {
		err = b.process.Close()
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}
