package bus_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/dbustest"
)

func TestPropertiesAreRead(t *testing.T) {
	l, serving, peer := serveLamps(t)
	l.level.Store(7)
	object := lampAt(peer, serving, lampPath)
	var all map[string]godbus.Variant
	for _, iface := range []string{"test.Lamp1", ""} {
		if err := object.Call("org.freedesktop.DBus.Properties.GetAll", 0, iface).Store(&all); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"Maker": "Edison", "Level": uint32(7), "Heat": 36.6}
		for name, v := range want {
			if all[name].Value() != v {
				t.Errorf("of %q, %s is %v", iface, name, all[name])
			}
		}
		if len(all) != 5 {
			t.Errorf("of %q there are %v", iface, slices.Sorted(maps.Keys(all)))
		}
	}
	l.felt.Store(0)
	if v, err := object.GetProperty("test.Lamp1.Level"); err != nil || v.Value() != uint32(7) {
		t.Errorf("got %v, %v", v, err)
	}
	if n := l.felt.Load(); n != 0 {
		t.Errorf("reading one property has asked for another %d times", n)
	}
	if err := object.SetProperty("test.Lamp1.Level", uint32(9)); err != nil || l.level.Load() != 9 {
		t.Errorf("setting gave %v, and the level %d", err, l.level.Load())
	}
}

func TestOneSignalTellsOfAllThatChanged(t *testing.T) {
	l, serving, peer := serveLamps(t)
	signals := hearAll(t, peer, serving)
	before := l.state()
	for _, c := range []struct {
		rule        string
		change      func(*lampState)
		changed     string // names and values
		invalidated []string
	}{
		{"two that changed", func(s *lampState) { s.Level, s.Colours = 3, []string{"red"} }, "Colours=[red] Level=3", nil},
		{"one that is invalidated", func(s *lampState) { s.History = []string{"on"} }, "", []string{"History"}},
		{"nothing: an empty list for none", func(s *lampState) { s.History, s.Colours = []string{}, []string{"white"} }, "-", nil},
		{"nothing: what is constant, and what never tells", func(s *lampState) { s.Maker, s.Heat = "Swan", nil }, "-", nil},
		{"the last", func(s *lampState) { s.Level = 99 }, "Level=99", nil},
	} {
		after := before
		c.change(&after)
		if err := l.iface.Changed(serving, lampPath, before, after); err != nil {
			t.Fatal(err)
		}
		if c.changed == "-" {
			continue // The next signal to come is the next one's.
		}
		s := next(t, signals)
		var iface string
		var changed map[string]godbus.Variant
		var invalidated []string
		if err := godbus.Store(s.Body, &iface, &changed, &invalidated); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, name := range slices.Sorted(maps.Keys(changed)) {
			got = append(got, name+"="+strings.Trim(strings.NewReplacer(`"`, "", "@u ", "").Replace(changed[name].String()), " "))
		}
		if s.Name != "org.freedesktop.DBus.Properties.PropertiesChanged" || s.Path != lampPath || iface != "test.Lamp1" ||
			strings.Join(got, " ") != c.changed || !slices.Equal(invalidated, c.invalidated) {
			t.Errorf("%s: %s of %s tells %v, %v", c.rule, s.Name, iface, got, invalidated)
		}
	}
}

// hearAll has the peer hear every signal of a server.
func hearAll(t *testing.T, peer *dbustest.Peer, serving *godbus.Conn) <-chan *godbus.Signal {
	t.Helper()
	if err := peer.AddMatchSignal(godbus.WithMatchSender(serving.Names()[0])); err != nil {
		t.Fatal(err)
	}
	signals := make(chan *godbus.Signal, 100)
	peer.Signal(signals)
	return signals
}

// next returns the next signal that is not the bus's own.
func next(t *testing.T, signals <-chan *godbus.Signal) *godbus.Signal {
	t.Helper()
	for {
		select {
		case s := <-signals:
			if s.Sender != "org.freedesktop.DBus" {
				return s
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no signal came")
		}
	}
}

func TestManagerTellsOfObjects(t *testing.T) {
	l, serving, peer := serveLamps(t)
	signals := hearAll(t, peer, serving)
	l.set("one", "two", "ghost")
	var all map[godbus.ObjectPath]map[string]map[string]godbus.Variant
	if err := lampAt(peer, serving, lampPath).Call("org.freedesktop.DBus.ObjectManager.GetManagedObjects", 0).Store(&all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[othersPath+"/two"]["test.Lamp1"]["Maker"].Value() != "Edison" {
		t.Errorf("there are %v", all)
	}
	if err := bus.Added(serving, lampPath, othersPath+"/three", map[*bus.Interface]any{l.iface: l.state()}); err != nil {
		t.Fatal(err)
	}
	s := next(t, signals)
	var path godbus.ObjectPath
	var states map[string]map[string]godbus.Variant
	if err := godbus.Store(s.Body, &path, &states); err != nil || s.Path != lampPath || path != othersPath+"/three" || len(states["test.Lamp1"]) != 5 {
		t.Errorf("of a new object it is told %v, %v", s, err)
	}
	if err := bus.Removed(serving, lampPath, othersPath+"/three", l.iface); err != nil {
		t.Fatal(err)
	}
	s = next(t, signals)
	if !strings.HasSuffix(s.Name, ".InterfacesRemoved") || s.Body[0] != othersPath+"/three" || !slices.Equal(s.Body[1].([]string), []string{"test.Lamp1"}) {
		t.Errorf("of one that went it is told %v", s)
	}
}

func TestSignalIsForOnePeer(t *testing.T) {
	l, serving, peer := serveLamps(t)
	signals := make(chan *godbus.Signal, 10)
	peer.Signal(signals)
	if err := l.iface.Signal(serving, peer.Name(), lampPath, "Burnt", uint64(5)); err != nil {
		t.Fatal(err)
	}
	if s := next(t, signals); s.Name != "test.Lamp1.Burnt" || s.Body[0] != uint64(5) {
		t.Errorf("got %v", s)
	}
	for _, wrong := range []struct {
		member string
		arg    any
	}{{"Burnt", "noon"}, {"Lit", uint64(5)}} {
		if err := l.iface.Signal(serving, peer.Name(), lampPath, wrong.member, wrong.arg); err == nil {
			t.Errorf("%s with %v was sent", wrong.member, wrong.arg)
		}
	}
}
