package network_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/joulemux/joulemux/dbus/dbustest"
	"github.com/joulemux/joulemux/dbus/network"
)

const (
	name = "org.freedesktop.NetworkManager"
	path = "/org/freedesktop/NetworkManager"
)

// watch watches until the test ends, and returns what is reported.
func watch(t *testing.T, address string) <-chan network.Metered {
	t.Helper()
	reports := make(chan network.Metered, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = network.Watch(ctx, address, slog.New(slog.DiscardHandler), func(m network.Metered) { reports <- m })
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return reports
}

func expect(t *testing.T, reports <-chan network.Metered, want network.Metered) {
	t.Helper()
	select {
	case got := <-reports:
		if got != want {
			t.Fatalf("reported %q, want %q", got, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("nothing is reported, want %q", want)
	}
}

// manager plays NetworkManager: its name, and the one property.
func manager(t *testing.T, b *dbustest.Bus, metered any) *dbustest.Peer {
	t.Helper()
	p := b.Connect(t)
	p.Serve(path, func(iface string) map[string]any {
		if iface != name {
			return nil
		}
		return map[string]any{"Metered": metered}
	})
	p.Own(name)
	return p
}

func TestWhatNetworkManagerSays(t *testing.T) {
	t.Parallel()
	for said, want := range map[any]network.Metered{
		uint32(0): network.Unknown, uint32(1): network.Yes, uint32(2): network.No, uint32(3): network.Yes, uint32(4): network.No,
		uint32(77): network.Unknown, "yes": network.Unknown, // which it never says
	} {
		b := dbustest.Start(t)
		manager(t, b, said)
		expect(t, watch(t, b.Address()), want)
	}
}

func TestChangesAreTold(t *testing.T) {
	t.Parallel()
	b := dbustest.Start(t)
	reports := watch(t, b.Address())
	expect(t, reports, network.Unknown)
	m := manager(t, b, uint32(2))
	expect(t, reports, network.No)
	m.Changed(path, name, map[string]any{"Metered": uint32(4)}) // no news
	m.Changed(path, name, map[string]any{"Metered": uint32(3)})
	expect(t, reports, network.Yes)
	m.Disown(name)
	expect(t, reports, network.Unknown)
}

func TestNoBusIsNotKnown(t *testing.T) {
	t.Parallel()
	expect(t, watch(t, "unix:path="+t.TempDir()+"/nobody"), network.Unknown)
}
