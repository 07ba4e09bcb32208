package rig

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// mockedSystem has the C library of a process show it the tree at UMOCKDEV_DIR
// for /sys, and the tree's messages for the kernel's. It is what the command
// umockdev-wrapper sets.
const mockedSystem = "LD_PRELOAD=libumockdev-preload.so.0"

// python is the system's: one of the user's own, first on PATH, would not have
// the libraries.
const python = "/usr/bin/python3"

var (
	//go:embed machine.py
	machineProgram []byte

	//go:embed upower.conf
	upowerConfig []byte
)

// Attributes are the files of a power supply, by name, as the kernel has them
// in /sys/class/power_supply: energies in microwatt-hours, and so on.
type Attributes map[string]string

// fullEnergy is what a battery of ours holds when full: 60 Wh.
const fullEnergy = 60_000_000

// Battery describes a battery at a charge in percent, at work at 14 W. It once
// held 80 Wh, so its health is 75 %.
func Battery(charge int) Attributes {
	return charged(charge, Attributes{
		"type":               "Battery",
		"present":            "1",
		"status":             "Discharging",
		"technology":         "Li-ion",
		"manufacturer":       "joulemux",
		"model_name":         "Simulated",
		"energy_full_design": "80000000",
		"energy_full":        strconv.Itoa(fullEnergy),
		"voltage_now":        "12000000",
		"power_now":          "14000000",
	})
}

// charged sets the two attributes that tell the charge.
func charged(percent int, a Attributes) Attributes {
	a["energy_now"] = strconv.Itoa(fullEnergy / 100 * percent)
	a["capacity"] = strconv.Itoa(percent)
	return a
}

// A Machine is a simulated laptop: power supplies in a tree of files, and a
// real upowerd that takes the tree for /sys, on a bus that it takes for the
// system bus. To begin with it runs from one battery, BAT0, at 80 %; its line
// power, AC, is unplugged; and upowerd does not run.
//
// Its methods return when the hardware has changed. When upowerd has noticed,
// its own signals say. They are for one goroutine at a time.
type Machine struct {
	bus       string
	log       io.Writer
	dir       string
	batteries map[string]bool

	hardware *Process
	requests io.Writer
	answers  *herald
	tree     string // What upowerd takes for the root of the file system.

	upower *Process
}

// StartMachine makes the laptop. Its upowerd will use the bus at that address.
// What upowerd says goes to log, which can be nil, and has to stand writes from
// several goroutines, as files do.
func StartMachine(ctx context.Context, bus string, log io.Writer) (*Machine, error) {
	dir, err := newDir("machine")
	if err != nil {
		return nil, err
	}
	m := &Machine{bus: bus, log: discard(log), dir: dir, batteries: make(map[string]bool)}
	if err := m.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start a machine: %w", err), m.Close())
	}
	return m, nil
}

func (m *Machine) start(ctx context.Context) error {
	if err := m.writeFiles(); err != nil {
		return err
	}
	if err := m.startHardware(ctx); err != nil {
		return err
	}
	if err := m.Add("AC", Attributes{"type": "Mains", "online": "0"}); err != nil {
		return err
	}
	return m.Add("BAT0", Battery(80))
}

func (m *Machine) writeFiles() error {
	return errors.Join(
		os.WriteFile(m.file("machine.py"), machineProgram, 0o600),
		os.WriteFile(m.file("upower.conf"), upowerConfig, 0o600),
		os.Mkdir(m.file("history"), 0o700),
	)
}

// startHardware starts the program that plays the kernel. The first line it
// prints is the root of the tree, and the others are answers.
func (m *Machine) startHardware(ctx context.Context) error {
	m.answers = newHerald("^(.*)$", nil)
	cmd := command(ctx, python, m.file("machine.py"))
	cmd.Env = append(cmd.Env, mockedSystem, "TMPDIR="+m.dir, "HOME="+m.dir)
	cmd.Stdout, cmd.Stderr = m.answers, m.log
	requests, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	m.requests = requests
	if m.hardware, err = Start(cmd); err != nil {
		return err
	}
	m.tree, err = m.answers.from(ctx, m.hardware)
	return err
}

// SysDir is the folder that stands for /sys, for readers that take it as an
// argument.
func (m *Machine) SysDir() string { return filepath.Join(m.tree, "sys") }

// SetCharge sets the charge of every battery, in percent.
func (m *Machine) SetCharge(percent int) error {
	return m.setBatteries(charged(percent, Attributes{}))
}

// SetDraw sets the watts that every battery gives or takes.
func (m *Machine) SetDraw(watts float64) error {
	return m.setBatteries(Attributes{"power_now": strconv.Itoa(int(watts * 1e6))})
}

// SetStatus sets what every battery does, in the kernel's words: Charging,
// Discharging, "Not charging", Full or Unknown. Discharging while line power
// is there is what a charger too weak for the machine does.
func (m *Machine) SetStatus(status string) error {
	return m.setBatteries(Attributes{"status": status})
}

// Plug connects line power: the batteries charge.
func (m *Machine) Plug() error { return m.setLine("1", "Charging") }

// Unplug disconnects line power: the batteries discharge.
func (m *Machine) Unplug() error { return m.setLine("0", "Discharging") }

func (m *Machine) setLine(online, status string) error {
	supplies := m.everyBattery(Attributes{"status": status})
	supplies["AC"] = Attributes{"online": online}
	return m.Set(supplies)
}

func (m *Machine) setBatteries(a Attributes) error { return m.Set(m.everyBattery(a)) }

func (m *Machine) everyBattery(a Attributes) map[string]Attributes {
	supplies := make(map[string]Attributes)
	for name := range m.batteries {
		supplies[name] = a
	}
	return supplies
}

// Set changes the attributes of some supplies at once, by their names. It is
// for machines that the other methods cannot make.
func (m *Machine) Set(supplies map[string]Attributes) error {
	return m.ask("change", supplies)
}

// Add connects a supply, such as a second battery, BAT1.
func (m *Machine) Add(name string, a Attributes) error {
	if err := m.ask("add", name, a); err != nil {
		return err
	}
	if a["type"] == "Battery" {
		m.batteries[name] = true
	}
	return nil
}

// Remove disconnects a supply.
func (m *Machine) Remove(name string) error {
	if err := m.ask("remove", name); err != nil {
		return err
	}
	delete(m.batteries, name)
	return nil
}

// RemoveBatteries makes the laptop a desktop machine.
func (m *Machine) RemoveBatteries() error {
	var errs []error
	for name := range maps.Clone(m.batteries) {
		errs = append(errs, m.Remove(name))
	}
	return errors.Join(errs...)
}

// ask has the hardware do something, and returns when it has. The hardware
// answers at once or is dead.
func (m *Machine) ask(do string, with ...any) error {
	request, err := json.Marshal(map[string]any{"do": do, "with": with})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(m.requests, "%s\n", request); err != nil {
		return fmt.Errorf("hardware: %s: %w", do, err)
	}
	select {
	case answer := <-m.answers.news:
		if answer != "done" {
			return fmt.Errorf("hardware: %s: %s", do, answer)
		}
		return nil
	case <-m.hardware.Done():
		return fmt.Errorf("hardware: %s: it has ended: %w", do, m.hardware.ending())
	}
}

// StartUPower starts upowerd, and returns when its name is on the bus and it
// knows the supplies.
func (m *Machine) StartUPower(ctx context.Context) error {
	p, err := m.startDaemon(ctx, "upowerd", "org.freedesktop.UPower", nil,
		"UPOWER_HISTORY_DIR="+m.file("history"),
		"UPOWER_CONF_FILE_NAME="+m.file("upower.conf"))
	m.upower = p
	return err
}

// StopUPower stops upowerd: its name leaves the bus. The machine stays, and
// StartUPower can start it again.
func (m *Machine) StopUPower() error { return stop(&m.upower) }

// startDaemon starts a system daemon that takes the tree for the machine, and
// waits for its name on the bus. It inherits the files of extra.
func (m *Machine) startDaemon(ctx context.Context, program, name string, extra []*os.File, env ...string) (*Process, error) {
	path, err := daemon(program, "/usr/libexec", "/usr/lib", "/usr/lib/upower")
	if err != nil {
		return nil, err
	}
	cmd := command(ctx, path)
	cmd.Env = append(cmd.Env, mockedSystem, "UMOCKDEV_DIR="+m.tree, "DBUS_SYSTEM_BUS_ADDRESS="+m.bus, "HOME="+m.dir)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = m.log, m.log, extra
	p, err := Start(cmd)
	if err != nil {
		return nil, err
	}
	if err := p.Await(ctx, owned(m.bus, name)); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// owned says whether a name has an owner on a bus: nil if so.
func owned(bus, name string) func(context.Context) error {
	return func(ctx context.Context) error {
		return call(ctx, bus, "org.freedesktop.DBus", "/org/freedesktop/DBus",
			"org.freedesktop.DBus.GetNameOwner", "string:"+name)
	}
}

// call calls a method with dbus-send. Only its success is of interest.
func call(ctx context.Context, bus, dest, path, method string, args ...string) error {
	args = append([]string{"--bus=" + bus, "--print-reply", "--dest=" + dest, path, method}, args...)
	cmd := exec.CommandContext(ctx, "dbus-send", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", method, err, out)
	}
	return nil
}

// Close stops upowerd and takes the machine apart.
func (m *Machine) Close() error {
	return errors.Join(m.StopUPower(), stop(&m.hardware), os.RemoveAll(m.dir))
}

func (m *Machine) file(name string) string { return filepath.Join(m.dir, name) }

// stop closes a process if there is one, and forgets it.
func stop(p **Process) error {
	if *p == nil {
		return nil
	}
	err := (*p).Close()
	*p = nil
	return err
}
