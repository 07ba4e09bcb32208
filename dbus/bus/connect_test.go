package bus_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/dbustest"
)

func connect(t *testing.T, b *dbustest.Bus, serving bus.Serving) *godbus.Conn {
	t.Helper()
	conn, err := bus.Connect(t.Context(), b.Address(), serving)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestWhoServesNothingSaysSo(t *testing.T) {
	b := dbustest.Start(t)
	conn, peer := connect(t, b, nil), b.Connect(t)

	object := peer.Object(conn.Names()[0], "/some/where")
	var refused godbus.Error
	if err := object.Call("some.Interface.Method", 0, "argument").Err; !errors.As(err, &refused) || refused.Name != bus.UnknownObject {
		t.Errorf("a call got %v (%s)", err, refused.Name)
	}
	if err := object.Call("org.freedesktop.DBus.Peer.Ping", 0).Err; err != nil {
		t.Errorf("ping: %v", err)
	}
}

func TestConnectingIsBoundedByItsContext(t *testing.T) {
	before := runtime.NumGoroutine()
	path := filepath.Join(t.TempDir(), "mute")
	l, err := net.Listen("unix", path) // Nobody ever answers.
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := bus.Connect(ctx, "unix:path="+path, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a mute bus gave %v", err)
	}
	dbustest.Eventually(t, "no goroutine stays behind", func() bool { return runtime.NumGoroutine() <= before })
}

func TestConnectionEndsSoonAfterItsContext(t *testing.T) {
	b := dbustest.Start(t)
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := bus.Connect(ctx, b.Address(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	if err := conn.BusObject().Call("org.freedesktop.DBus.Peer.Ping", 0).Err; err != nil {
		t.Errorf("after the context has ended: %v", err)
	}
	select {
	case <-conn.Context().Done():
	case <-time.After(20 * time.Second):
		t.Error("the connection goes on")
	}
}

func TestSignalsKeepTheirOrder(t *testing.T) {
	const count = 5000
	b := dbustest.Start(t)
	conn, peer := connect(t, b, nil), b.Connect(t)
	signals := make(chan *godbus.Signal, 1)
	conn.Signal(signals)
	go func() {
		for n := range uint32(count) {
			peer.Tell(conn.Names()[0], "/", n)
		}
	}()
	for want := uint32(0); want < count; {
		s, ok := <-signals
		if !ok {
			t.Fatal("the connection ended")
		}
		if s.Sender != peer.Name() {
			continue
		}
		if got := s.Body[0]; got != want {
			t.Fatalf("signal %v came in place of %d", got, want)
		}
		want++
	}
}

func TestAddresses(t *testing.T) {
	b := dbustest.Start(t)
	good := b.Address()
	for _, c := range []struct {
		rule, address string
		works         bool
	}{
		{"a path", good, true},
		{"the first place that works", "unix:path=/nonexistent;" + good, true},
		{"with a guid and an escape", strings.ReplaceAll(good, "bus", "b%75s") + ",guid=00112233445566778899aabbccddeeff", true},
		{"an abstract socket that nobody has", "unix:abstract=/nonexistent", false},
		{"launching is refused", "autolaunch:", false},
		{"other machines are refused", "tcp:host=127.0.0.1,port=1", false},
		{"no key", "unix:", false},
		{"a broken escape", "unix:path=%zz", false},
		{"nothing", "", false},
	} {
		conn, err := bus.Connect(t.Context(), c.address, nil)
		if (err == nil) != c.works {
			t.Errorf("%s: %q gave %v", c.rule, c.address, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}

func TestSessionAddress(t *testing.T) {
	withBus, without := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(withBus, "bus"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inDir := "unix:path=" + godbus.EscapeBusAddressValue(filepath.Join(withBus, "bus"))
	for _, c := range []struct {
		rule, variable, dir, want string
	}{
		{"the variable decides", "unix:path=/a", withBus, "unix:path=/a"},
		{"else the user manager's bus", "", withBus, inDir},
		{"nobody is launched", "autolaunch:", withBus, inDir},
		{"nobody is launched even if there is nothing else", "autolaunch:", without, ""},
		{"no session", "", without, ""},
		{"no session at all", "", "", ""},
	} {
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", c.variable)
		t.Setenv("XDG_RUNTIME_DIR", c.dir)
		got, err := bus.SessionAddress()
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s: got %q, %v, want %q", c.rule, got, err, c.want)
		}
	}
}

func TestSystemAddress(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/a")
	if got := bus.SystemAddress(); got != "unix:path=/a" {
		t.Errorf("the variable was not heeded: %q", got)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "")
	if got := bus.SystemAddress(); got != "unix:path=/var/run/dbus/system_bus_socket" {
		t.Errorf("the default is %q", got)
	}
}
