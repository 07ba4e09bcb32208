package rig

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

//go:embed polkit.py
var polkitProgram string

const profilesName = "net.hadess.PowerProfiles"

// PowerProfiles is a real power-profiles-daemon on a machine's bus, with a
// polkit that says yes to everybody. It sets the platform profile of the
// machine's simulated firmware.
type PowerProfiles struct {
	bus     string
	polkit  *Process
	process *Process
}

// StartPowerProfiles gives the machine a firmware with profiles, starts the
// daemon, and returns when its name is on the bus. The profile is balanced.
func StartPowerProfiles(ctx context.Context, m *Machine) (*PowerProfiles, error) {
	p := &PowerProfiles{bus: m.bus}
	if err := p.start(ctx, m); err != nil {
		return nil, errors.Join(fmt.Errorf("start power profiles: %w", err), p.Close())
	}
	return p, nil
}

func (p *PowerProfiles) start(ctx context.Context, m *Machine) error {
	if err := addFirmware(m.SysDir()); err != nil {
		return err
	}
	if err := p.startPolkit(ctx, m); err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	p.process, err = m.startDaemon(ctx, "power-profiles-daemon", profilesName, slices.Repeat([]*os.File{null}, apart))
	return err
}

// apart is by how much the numbers of the daemon's descriptors are greater
// than they would be. umockdev (0.17) names the socket of whoever listens to
// the kernel by such a number: of two daemons with the same one, only the one
// that came last would hear.
const apart = 16

// addFirmware adds the files of the kernel's platform_profile, as the ABI
// document sysfs-platform_profile has them.
func addFirmware(sys string) error {
	acpi := filepath.Join(sys, "firmware", "acpi")
	return errors.Join(
		os.MkdirAll(acpi, 0o755),
		os.WriteFile(filepath.Join(acpi, "platform_profile_choices"), []byte("low-power balanced performance\n"), 0o644),
		os.WriteFile(filepath.Join(acpi, "platform_profile"), []byte("balanced\n"), 0o644),
	)
}

func (p *PowerProfiles) startPolkit(ctx context.Context, m *Machine) error {
	ready := newHerald("^(ready)$", nil)
	cmd := command(ctx, python, "-c", polkitProgram, m.bus)
	cmd.Stdout, cmd.Stderr = ready, m.log
	var err error
	if p.polkit, err = Start(cmd); err != nil {
		return err
	}
	_, err = ready.from(ctx, p.polkit)
	return err
}

// Set chooses a profile as a user would: power-saver, balanced or performance.
func (p *PowerProfiles) Set(ctx context.Context, profile string) error {
	return call(ctx, p.bus, profilesName, "/net/hadess/PowerProfiles", "org.freedesktop.DBus.Properties.Set",
		"string:"+profilesName, "string:ActiveProfile", "variant:string:"+profile)
}

// Close stops the daemon: its name leaves the bus.
func (p *PowerProfiles) Close() error {
	return errors.Join(stop(&p.process), stop(&p.polkit))
}
