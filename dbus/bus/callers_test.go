package bus_test

import (
	"slices"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/dbustest"
)

func TestCallersWhoLeaveAreToldOf(t *testing.T) {
	b := dbustest.Start(t)
	conn := connect(t, b, nil)
	var callers bus.Callers
	over := make(chan struct{})
	go func() { defer close(over); callers.Run(conn) }()
	peer, other, third := b.Connect(t), b.Connect(t), b.Connect(t)
	left := make(chan string, 10)
	watch := func(p *dbustest.Peer, what string) func() {
		return callers.Watch(conn, p.Name(), func() { left <- what })
	}
	watch(peer, "first watch")
	watch(peer, "second watch")
	watch(peer, "ended watch")()
	watch(third, "at the end")
	// Who claims that somebody has left is not believed.
	lie := &godbus.Message{Type: godbus.TypeSignal, Body: []any{peer.Name(), peer.Name(), ""}, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(conn.Names()[0]),
		godbus.FieldPath:        godbus.MakeVariant(godbus.ObjectPath("/org/freedesktop/DBus")),
		godbus.FieldInterface:   godbus.MakeVariant("org.freedesktop.DBus"),
		godbus.FieldMember:      godbus.MakeVariant("NameOwnerChanged"),
		godbus.FieldSignature:   godbus.MakeVariant(godbus.SignatureOf("", "", "")),
	}}
	if err := other.Send(lie, nil).Err; err != nil {
		t.Fatal(err)
	}
	name := other.Name()
	_ = other.Close()
	dbustest.Eventually(t, "the other has left", func() bool {
		var owned bool
		_ = conn.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, name).Store(&owned)
		return !owned
	})
	watch(other, "left already")
	expectLeft(t, left, "left already")
	_ = peer.Close()
	expectLeft(t, left, "first watch", "second watch")
	_ = conn.Close()
	expectLeft(t, left, "at the end")
	<-over
	watch(third, "after the end")
	expectLeft(t, left, "after the end")
}

func expectLeft(t *testing.T, left <-chan string, want ...string) {
	t.Helper()
	var got []string
	for range want {
		select {
		case who := <-left:
			got = append(got, who)
		case <-time.After(10 * time.Second):
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
