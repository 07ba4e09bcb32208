package bus_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/dbustest"
)

const lampXML = `<node>
  <!-- What is in comments stays at home. -->
  <interface name="test.Lamp1">
    <method name="Dim">
      <arg name="by" type="u" direction="in"/>
      <arg name="why" type="s" direction="in"/>
      <arg name="left" type="u" direction="out"/>
      <arg name="who" type="s" direction="out"/>
    </method>
    <method name="Write"><arg name="to" type="h" direction="in"/></method>
    <method name="Burst"/>
    <method name="Fail"/>
    <method name="Wait"/>
    <signal name="Burnt"><arg name="when" type="t"/></signal>
    <property name="Maker" type="s" access="read">
      <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="const"/>
    </property>
    <property name="Level" type="u" access="readwrite"/>
    <property name="Colours" type="as" access="read"/>
    <property name="History" type="as" access="read">
      <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="invalidates"/>
    </property>
    <property name="Heat" type="d" access="read">
      <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="false"/>
    </property>
  </interface>
</node>`

type lampState struct {
	Maker            string
	Level            uint32
	Colours, History []string
	Heat             func() float64
}

// lamps are the objects of these tests: one at a fixed path, and some that
// come and go.
type lamps struct {
	level  atomic.Uint32
	felt   atomic.Int32 // how often Heat was asked for
	waits  chan context.Context
	mu     sync.Mutex
	others []string
	iface  *bus.Interface
	branch bus.Branch
	tree   *bus.Tree
	log    dbustest.Journal
}

const (
	lampPath   = godbus.ObjectPath("/test/Lamp1")
	othersPath = lampPath + "/other"
)

var errBroken = errors.New("the bulb is broken")

func (l *lamps) state() lampState {
	return lampState{
		Maker: "Edison", Level: l.level.Load(), Colours: []string{"white"},
		Heat: func() float64 { l.felt.Add(1); return 36.6 },
	}
}

func (l *lamps) code() bus.Code {
	return bus.Code{
		Methods: map[string]any{
			"Dim": func(_ context.Context, c bus.Call, by uint32, why string) (uint32, string, error) {
				return l.level.Add(-by), c.Sender + " at " + string(c.Path) + ", " + why, nil
			},
			"Write": func(_ context.Context, _ bus.Call, to godbus.UnixFD) error {
				f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(to)), os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				_, err = f.WriteString("light")
				return errors.Join(err, f.Close())
			},
			"Burst": func(context.Context, bus.Call) error { panic("bang") },
			"Fail":  func(context.Context, bus.Call) error { return errBroken },
			"Wait": func(ctx context.Context, _ bus.Call) error {
				l.waits <- ctx
				<-ctx.Done()
				return ctx.Err()
			},
		},
		State: bus.StateOf(func(_ context.Context, path godbus.ObjectPath) (lampState, bool) {
			return l.state(), path != othersPath+"/ghost"
		}),
		Setters: map[string]any{
			"Level": func(_ context.Context, _ bus.Call, level uint32) error {
				if level > 100 {
					return bus.Errorf(bus.InvalidArgs, "too bright")
				}
				l.level.Store(level)
				return nil
			},
		},
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (l *lamps) names() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.others)
}

func (l *lamps) set(names ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.others = names
}

// serveLamps serves lamps, and returns who serves and who calls.
func serveLamps(t *testing.T) (l *lamps, serving *godbus.Conn, peer *dbustest.Peer) {
	t.Helper()
	l, serving, b := serveLampsOn(t)
	return l, serving, b.Connect(t)
}

func serveLampsOn(t *testing.T) (l *lamps, serving *godbus.Conn, b *dbustest.Bus) {
	t.Helper()
	l = &lamps{waits: make(chan context.Context, 1)}
	var err error
	if l.iface, err = bus.Implement([]byte(lampXML), l.code()); err != nil {
		t.Fatal(err)
	}
	l.branch = bus.Branch{Path: othersPath, Interfaces: []*bus.Interface{l.iface}, Names: l.names}
	manager, err := bus.Manager(func(context.Context) {}, l.branch)
	if err != nil {
		t.Fatal(err)
	}
	errorOf := func(err error) *godbus.Error { return bus.Errorf("test.Error.Broken", "%v", err) }
	l.tree, err = bus.NewTree(slog.New(slog.NewTextHandler(&l.log, nil)), errorOf,
		map[godbus.ObjectPath][]*bus.Interface{lampPath: {l.iface, manager}}, l.branch)
	if err != nil {
		t.Fatal(err)
	}
	b = dbustest.Start(t)
	return l, connect(t, b, l.tree), b
}

// lampAt returns an object of the server as the peer sees it.
func lampAt(peer *dbustest.Peer, serving *godbus.Conn, path godbus.ObjectPath) godbus.BusObject {
	return peer.Object(serving.Names()[0], path)
}

func TestCallsAreRefusedAsTheSpecificationHasIt(t *testing.T) {
	l, serving, peer := serveLamps(t)
	l.set("one", "ghost")
	const props = "org.freedesktop.DBus.Properties."
	v := func(v any) godbus.Variant { return godbus.MakeVariant(v) }
	for _, c := range []struct {
		rule   string
		path   godbus.ObjectPath
		method string
		args   []any
		want   string // the error's name
		says   string
	}{
		{"an object that is not there", "/test/Lamp2", "test.Lamp1.Dim", nil, bus.UnknownObject, "/test/Lamp2"},
		{"one that is not there yet", othersPath + "/two", "test.Lamp1.Dim", nil, bus.UnknownObject, "two"},
		{"a path on the way to an object", "/test", "test.Lamp1.Dim", nil, bus.UnknownInterface, "test.Lamp1"},
		{"an interface that the object lacks", lampPath, "test.Lamp2.Dim", nil, bus.UnknownInterface, "test.Lamp2"},
		{"a method that the interface lacks", lampPath, "test.Lamp1.Glow", nil, bus.UnknownMethod, "Glow"},
		{"a method that no interface has", lampPath, "Glow", nil, bus.UnknownMethod, "Glow"},
		{"too few arguments", lampPath, "test.Lamp1.Dim", []any{uint32(1)}, bus.InvalidArgs, "takes (us), got (u)"},
		{"none at all", lampPath, "test.Lamp1.Dim", nil, bus.InvalidArgs, "takes (us), got ()"},
		{"arguments of other types", lampPath, "test.Lamp1.Dim", []any{int32(1), "x"}, bus.InvalidArgs, "takes (us), got (is)"},
		{"an error of our own", lampPath, "test.Lamp1.Fail", nil, "test.Error.Broken", "the bulb is broken"},
		{"a panic", lampPath, "test.Lamp1.Burst", nil, bus.Failed, "internal error"},
		{"a property that is not there", lampPath, props + "Get", []any{"test.Lamp1", "Weight"}, bus.UnknownProperty, "Weight"},
		{"a property of no interface", lampPath, props + "Get", []any{"test.Lamp2", "Level"}, bus.UnknownInterface, "test.Lamp2"},
		{"all properties of none", lampPath, props + "GetAll", []any{"test.Lamp2"}, bus.UnknownInterface, "test.Lamp2"},
		{"one of an object that has just gone", othersPath + "/ghost", props + "Get", []any{"test.Lamp1", "Level"}, bus.UnknownObject, "ghost"},
		{"setting what cannot be set", lampPath, props + "Set", []any{"test.Lamp1", "Maker", v("Swan")}, bus.PropertyReadOnly, "Maker"},
		{"setting what is not there", lampPath, props + "Set", []any{"test.Lamp1", "Weight", v("x")}, bus.UnknownProperty, "Weight"},
		{"setting it to another type", lampPath, props + "Set", []any{"test.Lamp1", "Level", v("x")}, bus.InvalidArgs, "is of type u, got s"},
		{"setting it to a bad value", lampPath, props + "Set", []any{"test.Lamp1", "Level", v(uint32(101))}, bus.InvalidArgs, "too bright"},
	} {
		err := lampAt(peer, serving, c.path).Call(c.method, 0, c.args...).Err
		var refused godbus.Error
		if !errors.As(err, &refused) || refused.Name != c.want || !strings.Contains(refused.Error(), c.says) {
			t.Errorf("%s: got %s: %v; want %s that says %q", c.rule, refused.Name, err, c.want, c.says)
		}
	}
	if !strings.Contains(l.log.String(), "bang") || strings.Count(l.log.String(), "\n") != 1 {
		t.Errorf("of the panic the log has %q", l.log.String())
	}
}

func TestCallsAreAnswered(t *testing.T) {
	l, serving, peer := serveLamps(t)
	l.set("one")
	l.level.Store(50)
	for _, c := range []struct{ rule, method string }{
		{"by its full name", "test.Lamp1.Dim"}, {"by its name alone", "Dim"},
	} {
		var left uint32
		var who string
		if err := lampAt(peer, serving, othersPath+"/one").Call(c.method, 0, uint32(10), "night").Store(&left, &who); err != nil {
			t.Fatalf("%s: %v", c.rule, err)
		}
		if want := peer.Name() + " at /test/Lamp1/other/one, night"; who != want || left != l.level.Load() {
			t.Errorf("%s: got %d, %q; want %q", c.rule, left, who, want)
		}
	}
	if call := lampAt(peer, serving, lampPath).Call("test.Lamp1.Dim", godbus.FlagNoReplyExpected, uint32(10), "x"); call.Err != nil {
		t.Error(call.Err)
	}
	dbustest.Eventually(t, "a call without an answer is made", func() bool { return l.level.Load() == 20 })
	var id string
	if err := lampAt(peer, serving, lampPath).Call("GetMachineId", 0).Store(&id); err != nil {
		if _, missing := os.Stat("/etc/machine-id"); missing == nil {
			t.Error(err)
		}
	}
}

func TestCallsEndWithTheConnection(t *testing.T) {
	l, serving, peer := serveLamps(t)
	lampAt(peer, serving, lampPath).Go("test.Lamp1.Wait", 0, nil)
	ctx := <-l.waits
	_ = serving.Close()
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Error("the call goes on")
	}
}

func TestDescriptorsAreClosedWhateverBecomesOfTheCall(t *testing.T) {
	_, serving, peer := serveLamps(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd := godbus.UnixFD(w.Fd())
	before := dbustest.Descriptors(t)
	for range 100 {
		for _, c := range []struct {
			path   godbus.ObjectPath
			method string
			args   []any
		}{
			{lampPath, "test.Lamp1.Write", []any{fd, "more"}},
			{lampPath, "test.Lamp1.Dim", []any{fd}},
			{lampPath, "test.Lamp1.Nothing", []any{fd}},
			{"/nowhere", "test.Lamp1.Write", []any{fd}},
			{"/test", "Write", []any{fd}},
		} {
			if err := lampAt(peer, serving, c.path).Call(c.method, 0, c.args...).Err; err == nil {
				t.Fatalf("%s of %s succeeded", c.method, c.path)
			}
		}
		if err := lampAt(peer, serving, lampPath).Call("Write", 0, fd).Err; err != nil {
			t.Fatal(err)
		}
	}
	dbustest.Eventually(t, "all descriptors are closed", func() bool { return dbustest.Descriptors(t) <= before })
	_ = w.Close()
	if text := must(io.ReadAll(r)); strings.Count(string(text), "light") != 100 {
		t.Errorf("the pipe has %q", text)
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{"grün": "grün", "\xff": "\uFFFD", "a\x00b": "a\uFFFDb", "": ""} {
		if got := bus.Text(in); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// TestCallThatCannotBeDecodedIsTheCallersProblem has the real bus pass on what
// godbus finds too deep: the specification counts what is in a container, and
// in an empty one there is nothing.
func TestCallThatCannotBeDecodedIsTheCallersProblem(t *testing.T) {
	_, serving, peer := serveLamps(t)
	lamp := lampAt(peer, serving, lampPath)
	for what, empty := range map[string]any{"a dictionary": map[string]string{}, "an array": []string{}} {
		for depth := range 65 {
			v := empty
			for range depth {
				v = godbus.MakeVariant(v)
			}
			lamp.Go("test.Lamp1.Dim", godbus.FlagNoReplyExpected, nil, v)
			var left uint32
			if err := lamp.Call("test.Lamp1.Dim", 0, uint32(0), "x").Store(&left, new(string)); err != nil {
				t.Fatalf("after %s in %d variants: %v", what, depth, err)
			}
		}
	}
}
