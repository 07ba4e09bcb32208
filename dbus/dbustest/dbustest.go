// Package dbustest gives a test a bus of its own, real and without services,
// and peers on it that do what the test has them do: own names, tell
// properties, and misbehave.
//
// Only tests use it. Real services for such a bus are in packaging/rig.
package dbustest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/packaging/rig"
)

// Bus is a private bus. It ends with the test that started it.
type Bus struct {
	dir  string
	real *rig.Bus // Nil while stopped.
}

// Start starts a bus.
func Start(t testing.TB) *Bus {
	t.Helper()
	// Not the test's own folder, whose path can be too long for a socket.
	dir, err := os.MkdirTemp("", "dbustest-")
	if err != nil {
		t.Fatal(err)
	}
	b := &Bus{dir: dir}
	t.Cleanup(func() {
		b.Stop(t)
		_ = os.RemoveAll(dir)
	})
	b.Restart(t)
	return b
}

// Address is what clients connect to. It stays the same over restarts.
func (b *Bus) Address() string { return "unix:path=" + b.socket() }

func (b *Bus) socket() string { return filepath.Join(b.dir, "bus") }

// Stop ends the bus: all its clients lose their connections.
func (b *Bus) Stop(t testing.TB) {
	t.Helper()
	if b.real == nil {
		return
	}
	if err := b.real.Close(); err != nil {
		t.Error(err)
	}
	b.real = nil
}

// Freeze has the bus do nothing, and yet keep its connections, until the test
// ends.
func (b *Bus) Freeze(t testing.TB) {
	t.Helper()
	if err := b.real.Freeze(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.real.Thaw() })
}

// Restart ends the bus if it runs, and starts another at the same address.
func (b *Bus) Restart(t testing.TB) {
	t.Helper()
	b.begin(t)
	b.open(t)
}

// RestartFor is Restart with a peer who owns that name before anybody else can.
func (b *Bus) RestartFor(t testing.TB, name string) *Peer {
	t.Helper()
	b.begin(t)
	first := connect(t, b.real.Address())
	first.Own(name)
	b.open(t)
	return first
}

// begin starts a bus that nobody knows of.
func (b *Bus) begin(t testing.TB) {
	t.Helper()
	b.Stop(t)
	var err error
	if b.real, err = rig.StartBus(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// open makes the bus known.
func (b *Bus) open(t testing.TB) {
	t.Helper()
	_ = os.Remove(b.socket())
	if err := os.Symlink(path(b.real.Address()), b.socket()); err != nil {
		t.Fatal(err)
	}
}

// path returns the path of the socket at an address.
func path(address string) string {
	path, _, _ := strings.Cut(strings.TrimPrefix(address, "unix:path="), ",")
	return path
}

// Peer is somebody else on the bus, by godbus without our help: who can send
// descriptors, and whatever message a test makes up.
type Peer struct {
	*godbus.Conn
	t testing.TB
}

// Connect returns a peer, who leaves with the test.
func (b *Bus) Connect(t testing.TB) *Peer {
	t.Helper()
	return connect(t, b.Address())
}

func connect(t testing.TB, address string) *Peer {
	t.Helper()
	conn, err := godbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &Peer{Conn: conn, t: t}
}

// Name is the peer's unique name.
func (p *Peer) Name() string { return p.Names()[0] }

// Own makes the peer the owner of a name that nobody else owns.
func (p *Peer) Own(name string) {
	p.t.Helper()
	reply, err := p.RequestName(name, godbus.NameFlagDoNotQueue)
	if err != nil || reply != godbus.RequestNameReplyPrimaryOwner {
		p.t.Fatalf("%s is not to be had: %v, %v", name, reply, err)
	}
}

// Disown gives up a name.
func (p *Peer) Disown(name string) {
	p.t.Helper()
	if _, err := p.ReleaseName(name); err != nil {
		p.t.Fatal(err)
	}
}

// Serve makes an interface of the peer's properties readable at path. Each
// reader gets what values returns then.
func (p *Peer) Serve(path godbus.ObjectPath, values func(iface string) map[string]any) {
	p.t.Helper()
	p.Answer(path, func(iface string) (map[string]godbus.Variant, *godbus.Error) {
		return variants(values(iface)), nil
	})
}

// Answer has getAll answer Properties.GetAll at path: any function that godbus
// can export, right or wrong.
func (p *Peer) Answer(path godbus.ObjectPath, getAll any) {
	p.t.Helper()
	methods := map[string]any{"GetAll": getAll}
	if err := p.ExportMethodTable(methods, path, "org.freedesktop.DBus.Properties"); err != nil {
		p.t.Fatal(err)
	}
}

// Changed tells everybody who listens that properties have changed.
func (p *Peer) Changed(path godbus.ObjectPath, iface string, changed map[string]any, invalidated ...string) {
	p.t.Helper()
	p.Tell("", path, iface, variants(changed), append([]string{}, invalidated...))
}

// Whisper tells one peer, who need not listen, that properties have changed.
func (p *Peer) Whisper(to string, path godbus.ObjectPath, iface string, changed map[string]any) {
	p.t.Helper()
	p.Tell(to, path, iface, variants(changed), []string{})
}

// Everybody lists the unique names of the other peers.
func (p *Peer) Everybody() []string {
	p.t.Helper()
	var names []string
	if err := p.BusObject().Call("org.freedesktop.DBus.ListNames", 0).Store(&names); err != nil {
		p.t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(n string) bool { return n[0] != ':' || n == p.Name() })
}

// Sync returns when the bus has passed on all that the peer has said so far.
func (p *Peer) Sync() {
	p.t.Helper()
	if err := p.BusObject().Call("org.freedesktop.DBus.Peer.Ping", 0).Err; err != nil {
		p.t.Fatal(err)
	}
}

// Tell sends a PropertiesChanged with any body to one peer, who has not asked
// for it, or to everybody who has if to is "".
func (p *Peer) Tell(to string, path godbus.ObjectPath, body ...any) {
	p.t.Helper()
	m := &godbus.Message{
		Type: godbus.TypeSignal,
		Headers: map[godbus.HeaderField]godbus.Variant{
			godbus.FieldPath:      godbus.MakeVariant(path),
			godbus.FieldInterface: godbus.MakeVariant("org.freedesktop.DBus.Properties"),
			godbus.FieldMember:    godbus.MakeVariant("PropertiesChanged"),
		},
		Body: body,
	}
	if len(body) > 0 {
		m.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(body...))
	}
	if to != "" {
		m.Headers[godbus.FieldDestination] = godbus.MakeVariant(to)
	}
	if err := p.Send(m, nil).Err; err != nil {
		p.t.Fatal(err)
	}
}

func variants(values map[string]any) map[string]godbus.Variant {
	all := make(map[string]godbus.Variant)
	for name, v := range values {
		all[name] = godbus.MakeVariant(v)
	}
	return all
}
