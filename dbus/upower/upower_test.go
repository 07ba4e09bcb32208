package upower_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/dbustest"
	"github.com/joulemux/joulemux/dbus/upower"
	"github.com/joulemux/joulemux/packaging/rig"
	"github.com/joulemux/joulemux/power"
)

// laptop is a machine with a real upowerd, and a watcher of it.
type laptop struct {
	*rig.Machine
	bus     *dbustest.Bus
	watcher *upower.Watcher
	reports chan power.Supply
}

// startLaptop makes one, on battery, whose upowerd does not run yet.
func startLaptop(t *testing.T) *laptop {
	t.Helper()
	b := dbustest.Start(t)
	m, err := rig.StartMachine(t.Context(), b.Address(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	l := &laptop{Machine: m, bus: b}
	l.watcher, l.reports = watch(t, b)
	return l
}

// watch runs a watcher until the test ends. Reports must differ, each from the
// one before.
func watch(t *testing.T, b *dbustest.Bus) (*upower.Watcher, chan power.Supply) {
	t.Helper()
	reports := make(chan power.Supply, 1000)
	var last *power.Supply
	w := upower.New(func(_ context.Context, s power.Supply) {
		if last != nil && *last == s {
			t.Errorf("%v is reported twice", s)
		}
		last = &s
		reports <- s
	})
	m := bus.NewMonitor(b.Address(), slog.New(slog.DiscardHandler), w.Service())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = m.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return w, reports
}

func (l *laptop) startUPower(t *testing.T) {
	t.Helper()
	if err := l.StartUPower(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// await waits for a report. Others may come before, since UPower tells what
// changes together in several signals.
func (l *laptop) await(t *testing.T, want power.Supply) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	var last power.Supply
	for {
		select {
		case last = <-l.reports:
			if last == want {
				return
			}
		case <-deadline:
			t.Fatalf("never reported %+v; the last is %+v", want, last)
		}
	}
}

func onBattery(charge power.Charge, w power.Warning) power.Supply {
	return power.Supply{Source: "upower", Battery: true, Discharging: true, Charge: charge, Warning: w}
}

func onLine(charge power.Charge) power.Supply {
	return power.Supply{Source: "upower", Battery: true, Charge: charge, Warning: power.WarningNone}
}

var desktop = power.Supply{Source: "upower"}

func TestDayOfALaptop(t *testing.T) {
	l := startLaptop(t)
	l.await(t, power.Supply{}) // Nobody says anything yet.
	l.startUPower(t)
	for _, step := range []struct {
		name   string
		change func() error
		want   power.Supply
	}{
		{"it begins on battery", func() error { return nil }, onBattery(80, power.WarningNone)},
		{"the charge falls", func() error { return l.SetCharge(57) }, onBattery(57, power.WarningNone)},
		{"plugging in", l.Plug, onLine(57)},
		{"a weak charger: the plug is in, and the battery empties", func() error { return l.SetStatus("Discharging") }, onBattery(57, power.WarningNone)},
		{"the plug delivers again", func() error { return l.SetStatus("Charging") }, onLine(57)},
		{"full", func() error { return l.Set(full) }, onLine(100)},
		{"unplugging", l.Unplug, onBattery(100, power.WarningNone)},
		{"UPower warns low", func() error { return l.SetCharge(18) }, onBattery(18, power.WarningLow)},
		{"UPower warns critical", func() error { return l.SetCharge(4) }, onBattery(4, power.WarningCritical)},
		{"UPower is about to act", func() error { return l.SetCharge(1) }, onBattery(1, power.WarningCritical)},
		{"a second battery", func() error { return l.Add("BAT1", rig.Battery(99)) }, onBattery(50, power.WarningNone)},
		{"that is taken out", func() error { return l.Remove("BAT1") }, onBattery(1, power.WarningCritical)},
		{"no battery makes a desktop", l.RemoveBatteries, desktop},
		{"a battery is put in", func() error { return l.Add("BAT0", rig.Battery(70)) }, onBattery(70, power.WarningNone)},
	} {
		if err := step.change(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		t.Log(step.name)
		l.await(t, step.want)
	}
}

// full is what the kernel says of a battery that is.
var full = map[string]rig.Attributes{"BAT0": {"status": "Full", "energy_now": "60000000", "capacity": "100"}}

func TestUPowerComesLateAndRestarts(t *testing.T) {
	l := startLaptop(t)
	for range 3 {
		l.await(t, power.Supply{})
		l.startUPower(t)
		l.await(t, onBattery(80, power.WarningNone))
		if err := l.StopUPower(); err != nil {
			t.Fatal(err)
		}
	}
	l.await(t, power.Supply{})
	if draw, ok := l.watcher.Draw(); ok {
		t.Errorf("the draw is %v, though nobody says so", draw)
	}
}

func TestUPowerThatWasThereBefore(t *testing.T) {
	l := startLaptop(t)
	l.startUPower(t)
	_, reports := watch(t, l.bus)
	if got := <-reports; got != onBattery(80, power.WarningNone) {
		t.Errorf("the first report is %+v", got)
	}
}

func TestDesktopHasNoBattery(t *testing.T) {
	l := startLaptop(t)
	if err := l.RemoveBatteries(); err != nil {
		t.Fatal(err)
	}
	l.startUPower(t)
	l.await(t, desktop)
}

func TestDrawIsReadAndNotReported(t *testing.T) {
	l := startLaptop(t)
	l.startUPower(t)
	l.await(t, onBattery(80, power.WarningNone))
	l.awaitDraw(t, 14*power.Watt)
	if err := l.SetDraw(31.5); err != nil {
		t.Fatal(err)
	}
	l.awaitDraw(t, power.Watts(31.5))
	if n := len(l.reports); n > 0 {
		t.Errorf("%d reports of a draw", n)
	}
	if err := l.Plug(); err != nil {
		t.Fatal(err)
	}
	l.await(t, onLine(80))
	if draw, ok := l.watcher.Draw(); ok {
		t.Errorf("plugged in, the draw is %v", draw)
	}
}

func (l *laptop) awaitDraw(t *testing.T, want power.Power) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 20_000 {
		if draw, ok := l.watcher.Draw(); ok && draw == want {
			return
		}
		<-tick.C
	}
	draw, ok := l.watcher.Draw()
	t.Fatalf("the draw is %v, %t, want %v", draw, ok, want)
}

func TestBusThatRestarts(t *testing.T) {
	l := startLaptop(t)
	l.startUPower(t)
	l.await(t, onBattery(80, power.WarningNone))
	l.bus.Stop(t)
	l.await(t, power.Supply{})
	_ = l.StopUPower() // It has lost its bus, and may have ended in disgrace.
	l.bus.Restart(t)
	l.startUPower(t)
	l.await(t, onBattery(80, power.WarningNone))
}

func TestWhoeverElseSpeaksForUPowerIsIgnored(t *testing.T) {
	l := startLaptop(t)
	l.startUPower(t)
	l.await(t, onBattery(80, power.WarningNone))
	liar := l.bus.Connect(t)
	for _, name := range liar.Everybody() {
		liar.Whisper(name, "/org/freedesktop/UPower", "org.freedesktop.UPower", map[string]any{"OnBattery": false})
		liar.Whisper(name, devicePath, deviceIface, map[string]any{"Percentage": 3.0, "State": uint32(1)})
	}
	liar.Sync()
	if err := l.SetCharge(79); err != nil {
		t.Fatal(err)
	}
	if got := <-l.reports; got != onBattery(79, power.WarningNone) {
		t.Errorf("reported %+v", got)
	}
}
