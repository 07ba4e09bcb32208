package bus_test

import (
	"os"
	"strconv"
	"syscall"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/dbus/dbustest"
)

// sink serves one method, test.Sink.Put, that takes a word and a descriptor at
// /sink. Each goes to puts, as it came.
type sink struct{ puts chan []any }

func (s sink) LookupObject(p godbus.ObjectPath) (godbus.ServerObject, bool) { return s, p == "/sink" }

func (s sink) LookupInterface(i string) (godbus.Interface, bool) { return s, i == "test.Sink" }
func (s sink) LookupMethod(m string) (godbus.Method, bool)       { return s, m == "Put" }
func (sink) NumArguments() int                                   { return 0 }
func (sink) NumReturns() int                                     { return 0 }
func (sink) ArgumentValue(int) any                               { return nil }
func (sink) ReturnValue(int) any                                 { return nil }

func (sink) DecodeArguments(_ *godbus.Conn, _ string, _ *godbus.Message, body []any) ([]any, error) {
	return body, nil
}

func (s sink) Call(args ...any) ([]any, error) {
	s.puts <- args
	return nil, nil
}

func (sink) Accepts(iface, member string) (string, bool) {
	return "sh", iface == "test.Sink" && member == "Put"
}

func TestDescriptorReachesTheMethod(t *testing.T) {
	b := dbustest.Start(t)
	s := sink{make(chan []any, 1)}
	conn, peer := connect(t, b, s), b.Connect(t)
	r, w := dbustest.Pipe(t)

	object := peer.Object(conn.Names()[0], "/sink")
	if err := object.Call("test.Sink.Put", 0, "word", godbus.UnixFD(w.Fd())).Err; err != nil {
		t.Fatal(err)
	}
	args := <-s.puts
	if len(args) != 2 || args[0] != "word" {
		t.Fatalf("the method got %v", args)
	}
	fd, ok := args[1].(godbus.UnixFD)
	if !ok {
		t.Fatalf("the method got a %T", args[1])
	}
	if _, err := syscall.Write(int(fd), []byte("ink")); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Close(int(fd))
	ink := make([]byte, 8)
	if n, err := r.Read(ink); string(ink[:n]) != "ink" {
		t.Errorf("what was written to the descriptor is %q, %v", ink[:n], err)
	}
}

// strays are arguments of calls and signals that nobody accepts. An index is
// one that no descriptor was sent for.
func strays(fd godbus.UnixFD) map[string][]any {
	return map[string][]any{
		"too few":            {fd},
		"too many":           {"word", fd, fd},
		"twice the same":     {"word", fd, "word", fd},
		"an array":           {"word", []godbus.UnixFD{fd, fd}},
		"a map":              {map[string]godbus.UnixFD{"a": fd}},
		"a variant":          {godbus.MakeVariant(fd)},
		"a struct":           {struct{ FD godbus.UnixFD }{fd}},
		"deep":               {map[string]godbus.Variant{"a": godbus.MakeVariant([]godbus.Variant{godbus.MakeVariant(fd)})}},
		"an index":           {"word", godbus.UnixFDIndex(1)},
		"an index out of it": {"word", godbus.UnixFDIndex(1 << 31)},
	}
}

func TestStrayDescriptorsAreClosed(t *testing.T) {
	b := dbustest.Start(t)
	s := sink{make(chan []any, 1)}
	conn, peer := connect(t, b, s), b.Connect(t)
	_, w := dbustest.Pipe(t)
	fd := godbus.UnixFD(w.Fd())
	us := conn.Names()[0]
	peer.Answer("/liar", func(string) (godbus.UnixFD, *godbus.Error) { return fd, nil })
	before := dbustest.Descriptors(t)

	const rounds = 20
	for range rounds {
		for what, args := range strays(fd) {
			peer.Object(us, "/sink").Call("test.Sink.Put", 0, args...)
			if got := <-s.puts; len(got) != 0 {
				t.Fatalf("%s: the method got %v", what, got)
			}
			peer.Object(us, "/sink").Call("test.Sink.Other", 0, args...)
			peer.Object(us, "/elsewhere").Call("test.Sink.Put", 0, args...)
			peer.Tell(us, "/sink", args...)
		}
		peer.Object(us, "/elsewhere").Call("test.Sink.Put", 0, "word", fd)
		conn.Object(peer.Name(), "/liar").Call("org.freedesktop.DBus.Properties.GetAll", 0, "") // Its reply brings one.
	}
	dbustest.Eventually(t, "no descriptor stays open", func() bool { return dbustest.Descriptors(t) <= before })
}

func TestDescriptorsComeWithTheirOwnCall(t *testing.T) {
	b := dbustest.Start(t)
	s := sink{make(chan []any)}
	conn, peer := connect(t, b, s), b.Connect(t)
	before := dbustest.Descriptors(t)
	const calls = 500
	go func() {
		for range calls {
			r, w, err := os.Pipe()
			if err != nil {
				t.Error(err)
			}
			object := peer.Object(conn.Names()[0], "/sink")
			object.Go("test.Sink.Stray", godbus.FlagNoReplyExpected, nil, "stray", godbus.UnixFD(r.Fd()))
			object.Go("test.Sink.Put", godbus.FlagNoReplyExpected, nil, name(t, w), godbus.UnixFD(w.Fd()))
			_, _ = r.Close(), w.Close()
		}
	}()
	for range calls {
		args := <-s.puts
		if len(args) != 2 {
			t.Fatalf("the method got %v", args)
		}
		got := os.NewFile(uintptr(args[1].(godbus.UnixFD)), "got")
		if name(t, got) != args[0] {
			t.Fatalf("%v came with %s", args[0], name(t, got))
		}
		_ = got.Close()
	}
	dbustest.Eventually(t, "no descriptor stays open", func() bool { return dbustest.Descriptors(t) <= before })
}

// name tells one pipe from the other.
func name(t *testing.T, f *os.File) string {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Error(err)
		return ""
	}
	return strconv.FormatUint(info.Sys().(*syscall.Stat_t).Ino, 10)
}
