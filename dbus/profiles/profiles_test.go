package profiles_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/dbustest"
	"github.com/joulemux/joulemux/dbus/profiles"
	"github.com/joulemux/joulemux/packaging/rig"
	"github.com/joulemux/joulemux/power"
)

const (
	newName = "org.freedesktop.UPower.PowerProfiles"
	newPath = "/org/freedesktop/UPower/PowerProfiles"
	oldName = "net.hadess.PowerProfiles"
	oldPath = "/net/hadess/PowerProfiles"
)

// watch runs a watcher until the test ends, and returns what it reports.
func watch(t *testing.T, b *dbustest.Bus) <-chan power.Profile {
	t.Helper()
	_, reports := watcher(t, b)
	return reports
}

// watcher is watch, for who wants to ask as well.
func watcher(t *testing.T, b *dbustest.Bus) (*profiles.Watcher, <-chan power.Profile) {
	t.Helper()
	reports := make(chan power.Profile, 100)
	w := profiles.New(func(_ context.Context, p power.Profile) { reports <- p })
	m := bus.NewMonitor(b.Address(), slog.New(slog.DiscardHandler), w.Services()...)
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

// expect waits for the next reports.
func expect(t *testing.T, reports <-chan power.Profile, want ...power.Profile) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-reports:
			if got != w {
				t.Fatalf("reported %q, want %q", got, w)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("never reported %q", w)
		}
	}
}

func TestRealDaemonByItsOldName(t *testing.T) {
	b := dbustest.Start(t)
	m, err := rig.StartMachine(t.Context(), b.Address(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	reports := watch(t, b)
	daemon, err := rig.StartPowerProfiles(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, reports, power.Balanced)
	for _, p := range []power.Profile{power.PowerSaver, power.Performance, power.Balanced} {
		if err := daemon.Set(t.Context(), string(p)); err != nil {
			t.Fatal(err)
		}
		expect(t, reports, p)
	}
	if err := daemon.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, reports, "")
}

// script is a daemon that says what a test has it say.
type script struct {
	*dbustest.Peer
	name string
	path godbus.ObjectPath
	now  *atomic.Pointer[map[string]any] // what it says to whoever asks
}

func newScript(t *testing.T, b *dbustest.Bus, name string, path godbus.ObjectPath, profile any) script {
	t.Helper()
	s := script{b.Connect(t), name, path, new(atomic.Pointer[map[string]any])}
	says := active(profile)
	s.now.Store(&says)
	s.Serve(path, func(string) map[string]any { return *s.now.Load() })
	s.Own(name)
	return s
}

func (s script) choose(profile any) { s.say(active(profile)) }

// say tells whoever listens now, and whoever asks later: the one who watches
// may do so in either order.
func (s script) say(properties map[string]any) {
	s.now.Store(&properties)
	s.Changed(s.path, s.name, properties)
}

func active(profile any) map[string]any { return map[string]any{"ActiveProfile": profile} }

func TestNewNameWins(t *testing.T) {
	b := dbustest.Start(t)
	reports := watch(t, b)
	older := newScript(t, b, oldName, oldPath, "balanced")
	expect(t, reports, power.Balanced)
	newer := newScript(t, b, newName, newPath, "power-saver")
	expect(t, reports, power.PowerSaver)
	older.choose("performance") // Nobody asks him.
	older.Sync()
	newer.choose("balanced")
	expect(t, reports, power.Balanced)
	_ = newer.Close()
	expect(t, reports, power.Performance)
	_ = older.Close()
	expect(t, reports, "")
}

func TestWhyAProfileDoesNotHold(t *testing.T) {
	b := dbustest.Start(t)
	w, reports := watcher(t, b)
	s := newScript(t, b, newName, newPath, "balanced")
	expect(t, reports, power.Balanced)
	if d := w.Degraded(); d != "" {
		t.Errorf("all is well, but it says %q", d)
	}
	hot := active("performance")
	hot["PerformanceDegraded"] = "high-operating-temperature"
	s.say(hot)
	expect(t, reports, power.Performance)
	if d := w.Degraded(); d != "high-operating-temperature" {
		t.Errorf("it says %q", d)
	}
	_ = s.Close()
	expect(t, reports, "")
	if d := w.Degraded(); d != "" {
		t.Errorf("nobody is there, but it says %q", d)
	}
}

func TestDaemonThatOwnsBothNames(t *testing.T) {
	b := dbustest.Start(t)
	s := newScript(t, b, newName, newPath, "power-saver")
	s.Serve(oldPath, func(string) map[string]any { return active("power-saver") })
	s.Own(oldName)
	reports := watch(t, b)
	expect(t, reports, power.PowerSaver)
	s.choose("balanced")
	expect(t, reports, power.Balanced)
	s.Changed(oldPath, oldName, active("balanced"))
	s.choose("performance")
	expect(t, reports, power.Performance)
}

func TestDaemonThatDoesNotSayIsNone(t *testing.T) {
	b := dbustest.Start(t)
	s := newScript(t, b, newName, newPath, uint32(1))
	newScript(t, b, oldName, oldPath, "balanced")
	reports := watch(t, b)
	expect(t, reports, power.Balanced)
	s.choose("power-saver")
	expect(t, reports, power.PowerSaver)
	s.choose([]string{"power-saver"})
	expect(t, reports, power.Balanced)
}
