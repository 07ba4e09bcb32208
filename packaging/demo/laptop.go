package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/joulemux/joulemux/packaging/rig"
	"github.com/joulemux/joulemux/power/powertest"
)

// site says where the parts of a laptop listen, and what they call the model.
type site struct {
	httpPort int // 0 for none
	grpcPort int // 0 for none
	ollamas  [4]string
	tiny     string // The name of the rig's model.
	profiles bool   // Whether to try for a power-profiles-daemon.
}

// laptop is a simulated machine with all that runs on it.
type laptop struct {
	console
	site
	dir    string
	log    *os.File
	model  string
	ollama string // The program.

	system, session *rig.Bus
	machine         *rig.Machine
	profiles        *rig.PowerProfiles // Nil if there are none.
	devices         []device
	daemon          *rig.Process

	parts []io.Closer // In the order of their start.
}

// startLaptop starts one that is plugged in, at 80 %. It gives up, and leaves
// nothing behind, when ctx is done.
func startLaptop(ctx context.Context, c console, s site) (*laptop, error) {
	dir, err := os.MkdirTemp("", "joulemux-demo-")
	if err != nil {
		return nil, err
	}
	l := &laptop{console: c, site: s, dir: dir}
	if err := l.start(ctx); err != nil {
		l.tellLog()
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *laptop) start(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		l.openLog, l.build, l.startMachine, l.startOllamas, l.findModel, l.startDaemon,
	} {
		if err := errors.Join(step(ctx), ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}

func (l *laptop) openLog(context.Context) (err error) {
	if err := os.Mkdir(l.file("home"), 0o700); err != nil {
		return err
	}
	if l.log, err = os.Create(l.file("log")); err == nil {
		l.keep(l.log)
	}
	return err
}

func (l *laptop) startMachine(ctx context.Context) (err error) {
	l.say("starting two buses, and a simulated laptop under a real upowerd")
	if l.session, err = rig.StartBus(ctx); err != nil {
		return err
	}
	l.keep(l.session)
	if l.system, err = rig.StartBus(ctx); err != nil {
		return err
	}
	l.keep(l.system)
	if l.machine, err = rig.StartMachine(ctx, l.system.Address(), l.log); err != nil {
		return err
	}
	l.keep(l.machine)
	if err := errors.Join(l.machine.Plug(), l.addGPUs()); err != nil {
		return err
	}
	if l.site.profiles {
		l.startProfiles(ctx)
	}
	return l.machine.StartUPower(ctx)
}

// addGPUs gives the laptop an integrated GPU, and an NVIDIA GPU that sleeps. It
// does so all day, for the jobs that would wake it run on an Ollama in its
// place; and joulemuxd, which sees it, is to leave it alone.
func (l *laptop) addGPUs() error {
	hardware, err := powertest.Open("optimus")
	if err != nil {
		return err
	}
	hardware.Remove("sys/class/power_supply") // The machine has its own.
	hardware.Remove("sys/class/powercap")     // Its counters stand still.
	return hardware.WriteSys(l.machine.SysDir())
}

// startProfiles does without a daemon that is not there.
func (l *laptop) startProfiles(ctx context.Context) {
	p, err := rig.StartPowerProfiles(ctx, l.machine)
	if err != nil {
		l.say("no power profiles, so there is no saver to switch on: %v", err)
		return
	}
	l.profiles = p
	l.keep(p)
}

// environment is that of a program on the laptop: nothing of the user's
// session is in it but where programs are.
func (l *laptop) environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"LANG=C.UTF-8",
		"HOME=" + l.file("home"),
		"XDG_RUNTIME_DIR=" + l.dir,
		"XDG_STATE_HOME=" + l.file("state"),
		"XDG_CONFIG_HOME=" + l.file("config"),
		"DBUS_SESSION_BUS_ADDRESS=" + l.session.Address(),
		"DBUS_SYSTEM_BUS_ADDRESS=" + l.system.Address(),
	}
}

func (l *laptop) file(name ...string) string {
	return filepath.Join(append([]string{l.dir}, name...)...)
}

// keep has a part closed with the laptop.
func (l *laptop) keep(part io.Closer) { l.parts = append(l.parts, part) }

// Close ends all that runs on the laptop, the last first.
func (l *laptop) Close() error {
	var errs []error
	for _, part := range slices.Backward(l.parts) {
		errs = append(errs, part.Close())
	}
	l.parts = nil
	if err := errors.Join(append(errs, os.RemoveAll(l.dir))...); err != nil {
		return fmt.Errorf("take the laptop apart: %w", err)
	}
	return nil
}
