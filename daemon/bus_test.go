package daemon_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/dbus"
	"github.com/joulemux/joulemux/dbus/dbustest"
)

func TestSessionBusThatRestartsIsServedAgain(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	before := warm(t, d)
	if _, err := answerOver(t, d.Bus.Connect(t)); err != nil {
		t.Fatal(err)
	}
	d.Bus.Restart(t)
	d.Await("the session bus is back")
	peer := d.Bus.Connect(t)
	if text, err := answerOver(t, peer); err != nil || text == "" {
		t.Errorf("then a job gives %q, %v", text, err)
	}
	_ = peer.Close()
	settled(t, d, before)
}

func answerOver(t *testing.T, p *dbustest.Peer) (text string, err error) {
	t.Helper()
	var info options
	err = call(t, inference(p), "Generate", "Why?", options{"model": godbus.MakeVariant(model)}).Store(&text, &info)
	return text, err
}

// The bus itself throws out who sends text that is not UTF-8, so that no more
// can be asked of the daemon than to live.
func TestPromptThatIsNotUTF8OverDBus(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	before := warm(t, d)
	conn, err := net.Dial("unix", strings.TrimPrefix(d.Bus.Address(), "unix:path="))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(daemontest.Patience))
	hello := rawCall(t, "org.freedesktop.DBus", "/org/freedesktop/DBus", "Hello")
	if _, err := fmt.Fprintf(conn, "\x00AUTH EXTERNAL %s\r\nBEGIN\r\n%s", hex.EncodeToString(fmt.Append(nil, os.Getuid())), hello); err != nil {
		t.Fatal(err)
	}
	greeting := make([]byte, 0, 4096)
	for !bytes.Contains(greeting, []byte("NameAcquired")) {
		n, err := conn.Read(greeting[len(greeting):cap(greeting)])
		if err != nil {
			t.Fatalf("the bus says %q, %v", greeting, err)
		}
		greeting = greeting[:len(greeting)+n]
	}
	bad := rawCall(t, dbus.InferenceName, "/io/github/joulemux/Inference1", "Generate", "Wh?", options{})
	if _, err := conn.Write(bytes.Replace(bad, []byte("Wh?"), []byte("Wh\xff"), 1)); err != nil {
		t.Fatal(err)
	}
	// Whoever is thrown out reads the end, and no error.
	got, err := io.ReadAll(conn)
	if os.IsTimeout(err) || bytes.Contains(got, []byte("io.github.joulemux")) {
		t.Errorf("the bus says %q, %v", got, err)
	}
	_ = conn.Close()
	settled(t, d, before)
}

// rawCall returns the bytes of a call, whose interface is named as its
// destination.
func rawCall(t *testing.T, dest string, path godbus.ObjectPath, method string, args ...any) []byte {
	t.Helper()
	m := godbus.Message{Type: godbus.TypeMethodCall, Body: args, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(dest), godbus.FieldInterface: godbus.MakeVariant(dest),
		godbus.FieldPath: godbus.MakeVariant(path), godbus.FieldMember: godbus.MakeVariant(method),
	}}
	if len(args) > 0 {
		m.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(args...))
	}
	var b bytes.Buffer
	if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
		t.Fatal(err)
	}
	raw := b.Bytes()
	binary.LittleEndian.PutUint32(raw[8:], 1) // a serial, which godbus keeps to itself
	return raw
}
