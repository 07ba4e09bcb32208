package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/dbustest"
)

// The service that most tests watch: one property, a number.
const (
	numbers     = "test.Numbers"
	numbersPath = "/test/numbers"
	nobody      = "nobody"
)

// lines are those of a log.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

// watched runs a monitor of one-number services by their names, and returns
// what it tells: "NAME VALUE", or "NAME nobody". The monitor ends with the
// test, and must leave nothing behind.
func watched(t *testing.T, b *dbustest.Bus, names ...string) <-chan string {
	t.Helper()
	return logged(t, b, slog.New(slog.DiscardHandler), names...)
}

// logged is watched with a log.
func logged(t *testing.T, b *dbustest.Bus, log *slog.Logger, names ...string) <-chan string {
	t.Helper()
	told := make(chan string, 10_000)
	var services []bus.Service
	for _, name := range names {
		services = append(services, bus.Service{
			Name:    name,
			Objects: []bus.Object{{Path: numbersPath, Interface: name, Wanted: []string{"Number"}}},
			Changed: func(_ context.Context, objects []bus.Mirror) { told <- name + " " + tell(objects) },
		})
	}
	run(t, bus.NewMonitor(b.Address(), log, services...))
	return told
}

func tell(objects []bus.Mirror) string {
	if objects == nil {
		return nobody
	}
	var numbers []string
	for _, o := range objects {
		n, ok := bus.Value[uint32](o, "Number")
		if !ok {
			numbers = append(numbers, "NaN")
			continue
		}
		numbers = append(numbers, fmt.Sprint(n))
	}
	return strings.Join(numbers, " ")
}

func run(t *testing.T, m *bus.Monitor) {
	t.Helper()
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the monitor ended with %v", err)
		}
		dbustest.Eventually(t, "no goroutine stays behind", func() bool { return runtime.NumGoroutine() <= before })
	})
}

// expect waits for the next thing told, and for those after it.
func expect(t *testing.T, told <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-told:
			if got != w {
				t.Fatalf("told %q, want %q", got, w)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("never told %q", w)
		}
	}
}

// serveNumber makes a peer the owner of a name with a number to tell.
func serveNumber(p *dbustest.Peer, name string, n uint32) *atomic.Uint32 {
	var number atomic.Uint32
	number.Store(n)
	p.Serve(numbersPath, func(string) map[string]any { return map[string]any{"Number": number.Load()} })
	p.Own(name)
	return &number
}

func number(n uint32) map[string]any { return map[string]any{"Number": n} }

func TestMonitorFollowsAServiceThatComesAndGoes(t *testing.T) {
	b := dbustest.Start(t)
	first, second := b.Connect(t), b.Connect(t)
	told := watched(t, b, numbers)
	expect(t, told, "test.Numbers nobody")
	serveNumber(first, numbers, 1)
	expect(t, told, "test.Numbers 1")
	first.Changed(numbersPath, numbers, number(2))
	expect(t, told, "test.Numbers 2")
	first.Disown(numbers)
	expect(t, told, "test.Numbers nobody")
	first.Changed(numbersPath, numbers, number(3)) // He no longer counts.
	serveNumber(second, numbers, 4)
	expect(t, told, "test.Numbers 4")
	_ = second.Close()
	expect(t, told, "test.Numbers nobody")
}

func TestMonitorFindsAServiceThatWasThereBefore(t *testing.T) {
	b := dbustest.Start(t)
	serveNumber(b.Connect(t), numbers, 1)
	expect(t, watched(t, b, numbers), "test.Numbers 1")
}

func TestOneOwnerMayHaveManyNames(t *testing.T) {
	b := dbustest.Start(t)
	p := b.Connect(t)
	serveNumber(p, "test.One", 1)
	p.Own("test.Two")
	told := watched(t, b, "test.One", "test.Two", "test.Three")
	all := []string{<-told, <-told, <-told}
	slices.Sort(all)
	if want := []string{"test.One 1", "test.Three nobody", "test.Two 1"}; !slices.Equal(all, want) {
		t.Fatalf("told %q, want %q", all, want)
	}
	p.Changed(numbersPath, "test.Two", number(2))
	expect(t, told, "test.Two 2")
}

func TestInvalidatedPropertiesAreReadAgain(t *testing.T) {
	b := dbustest.Start(t)
	p := b.Connect(t)
	n := serveNumber(p, numbers, 1)
	told := watched(t, b, numbers)
	expect(t, told, "test.Numbers 1")
	n.Store(2)
	p.Changed(numbersPath, numbers, nil, "Letter")
	p.Changed(numbersPath, numbers, map[string]any{"Letter": "b"}) // Neither is wanted.
	p.Changed(numbersPath, numbers, nil, "Letter", "Number")
	expect(t, told, "test.Numbers 2")
}

func TestOnlyTheOwnerIsBelieved(t *testing.T) {
	b := dbustest.Start(t)
	p, liar := b.Connect(t), b.Connect(t)
	serveNumber(p, numbers, 1)
	told := watched(t, b, numbers)
	expect(t, told, "test.Numbers 1")

	monitor := stranger(t, liar, p.Name())
	liar.Whisper(monitor, numbersPath, numbers, number(9))
	if err := liar.Send(ownerChange(monitor, p.Name(), liar.Name()), nil).Err; err != nil {
		t.Fatal(err)
	}
	liar.Sync()
	p.Changed(numbersPath, numbers, number(2))
	expect(t, told, "test.Numbers 2")
}

// stranger returns the unique name of who is neither p nor among the known.
func stranger(t *testing.T, p *dbustest.Peer, known ...string) string {
	t.Helper()
	names := slices.DeleteFunc(p.Everybody(), func(n string) bool { return slices.Contains(known, n) })
	if len(names) != 1 {
		t.Fatalf("strangers are %q", names)
	}
	return names[0]
}

// ownerChange is a forged NameOwnerChanged.
func ownerChange(to, from, owner string) *godbus.Message {
	body := []any{numbers, from, owner}
	return &godbus.Message{Type: godbus.TypeSignal, Body: body, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(to),
		godbus.FieldPath:        godbus.MakeVariant(godbus.ObjectPath("/org/freedesktop/DBus")),
		godbus.FieldInterface:   godbus.MakeVariant("org.freedesktop.DBus"),
		godbus.FieldMember:      godbus.MakeVariant("NameOwnerChanged"),
		godbus.FieldSignature:   godbus.MakeVariant(godbus.SignatureOf(body...)),
	}}
}

func TestNonsenseIsSkipped(t *testing.T) {
	b := dbustest.Start(t)
	p := b.Connect(t)
	serveNumber(p, numbers, 1)
	told := watched(t, b, numbers)
	expect(t, told, "test.Numbers 1")

	for _, body := range [][]any{
		{numbers},
		{numbers, "changed", []string{}},
		{numbers, map[string]string{"Number": "5"}, []string{}},
		{numbers, map[string]godbus.Variant{}, "Number"},
		{numbers, map[string]godbus.Variant{"Number": godbus.MakeVariant(uint32(5))}, []string{}, "more"},
		{"test.Other", map[string]godbus.Variant{"Number": godbus.MakeVariant(uint32(5))}, []string{}},
	} {
		p.Tell(stranger(t, p), numbersPath, body...)
	}
	p.Tell(stranger(t, p), numbersPath)
	p.Tell(stranger(t, p), "/test/other", numbers, map[string]godbus.Variant{"Number": godbus.MakeVariant(uint32(5))}, []string{})
	p.Changed(numbersPath, numbers, map[string]any{"Number": map[string]string{"five": "5"}})
	expect(t, told, "test.Numbers NaN")
	p.Changed(numbersPath, numbers, number(2))
	expect(t, told, "test.Numbers 2")
}

func TestServiceThatDoesNotTellIsAbsentUntilItSpeaks(t *testing.T) {
	for rule, getAll := range map[string]any{
		"an error":      func(string) (int32, *godbus.Error) { return 0, godbus.NewError("test.Error.Broken", nil) },
		"no properties": func(string) (string, *godbus.Error) { return "Number", nil },
		"nothing":       func(string) *godbus.Error { return nil },
		"too much":      func(string) (a, b map[string]godbus.Variant, e *godbus.Error) { return },
	} {
		t.Run(rule, func(t *testing.T) {
			b := dbustest.Start(t)
			p := b.Connect(t)
			p.Answer(numbersPath, getAll)
			p.Own(numbers)
			told := watched(t, b, numbers)
			expect(t, told, "test.Numbers nobody")
			p.Serve(numbersPath, func(string) map[string]any { return number(1) })
			p.Changed(numbersPath, numbers, nil)
			expect(t, told, "test.Numbers 1")
		})
	}
}

func TestServiceThatHangsHoldsNobodyUp(t *testing.T) {
	b := dbustest.Start(t)
	hung, well := b.Connect(t), b.Connect(t)
	hang := make(chan struct{})
	defer close(hang)
	hung.Answer(numbersPath, func(string) *godbus.Error { <-hang; return nil })
	hung.Own("test.Hung")
	serveNumber(well, "test.Well", 1)
	told := watched(t, b, "test.Hung", "test.Well")
	expect(t, told, "test.Well 1")
	well.Changed(numbersPath, "test.Well", number(2))
	expect(t, told, "test.Well 2")
	_ = hung.Close()
	expect(t, told, "test.Hung nobody")
}

func TestNoChangeIsLostInAFlood(t *testing.T) {
	const last = 3000
	b := dbustest.Start(t)
	p := b.Connect(t)
	serveNumber(p, numbers, 0)
	told := watched(t, b, numbers)
	expect(t, told, "test.Numbers 0")
	for n := range uint32(last) {
		p.Changed(numbersPath, numbers, number(n+1))
	}
	dbustest.Eventually(t, "the last number is told", func() bool { return <-told == fmt.Sprint(numbers, " ", last) })
}

func TestMonitorOutlivesTheBus(t *testing.T) {
	b := dbustest.Start(t)
	serveNumber(b.Connect(t), numbers, 1)
	log := make(lines, 10_000)
	told := logged(t, b, slog.New(slog.NewTextHandler(log, nil)), numbers)
	expect(t, told, "test.Numbers 1")
	b.Stop(t)
	expect(t, told, "test.Numbers nobody")
	b.Restart(t)
	serveNumber(b.Connect(t), numbers, 2)
	dbustest.Eventually(t, "the new service is found", func() bool { return <-told == "test.Numbers 2" })
	b.Stop(t)
	expect(t, told, "test.Numbers nobody")
	for _, want := range []string{"no bus to watch", "the bus is there to watch", "no bus to watch"} { // each once
		select {
		case line := <-log:
			if !strings.Contains(line, want) {
				t.Errorf("it says %q, and not %q", line, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("it never says %q", want)
		}
	}
}

func TestServiceIsStartedOnlyOnDemand(t *testing.T) {
	b := dbustest.Start(t)
	spy := b.Connect(t)
	rules := []string{"type='method_call'"}
	if err := spy.BusObject().Call("org.freedesktop.DBus.Monitoring.BecomeMonitor", 0, rules, uint32(0)).Err; err != nil {
		t.Fatal(err)
	}
	calls := make(chan *godbus.Message, 1000)
	spy.Eavesdrop(calls)

	told := make(chan string, 10)
	service := func(name string, start bool) bus.Service {
		return bus.Service{Name: name, Start: start, Changed: func(_ context.Context, objects []bus.Mirror) { told <- name }}
	}
	run(t, bus.NewMonitor(b.Address(), slog.New(slog.DiscardHandler), service("test.Asleep", false), service("test.Wanted", true)))
	<-told
	<-told
	// The last call of the beginning: what is in doubt came before it.
	other := b.Connect(t)
	other.Object("test.Last", "/").Call("test.Last.Call", 0)

	var started []any
	for m := range calls {
		switch m.Headers[godbus.FieldMember].Value() {
		case "StartServiceByName":
			started = append(started, m.Body[0])
		case "GetAll":
			t.Errorf("%v was asked, though nobody has that name", m.Headers[godbus.FieldDestination])
		case "Call":
			if !slices.Equal(started, []any{"test.Wanted"}) {
				t.Errorf("started %v", started)
			}
			return
		}
	}
}

func TestObjectsOfAServiceAreToldTogether(t *testing.T) {
	b := dbustest.Start(t)
	p := b.Connect(t)
	p.Serve("/a", func(string) map[string]any { return number(1) })
	p.Serve("/b", func(string) map[string]any { return number(2) })
	p.Own(numbers)
	told := make(chan string, 10)
	run(t, bus.NewMonitor(b.Address(), slog.New(slog.DiscardHandler), bus.Service{
		Name: numbers,
		Objects: []bus.Object{
			{Path: "/a", Interface: numbers, Wanted: []string{"Number"}},
			{Path: "/b", Interface: numbers, Wanted: []string{"Number"}},
		},
		Changed: func(_ context.Context, objects []bus.Mirror) { told <- tell(objects) },
	}))
	expect(t, told, "1 2")
	p.Changed("/b", numbers, number(3))
	expect(t, told, "1 3")
}

func TestWithoutABusNobodyIsThere(t *testing.T) {
	told := make(chan string, 10)
	run(t, bus.NewMonitor("unix:path="+t.TempDir()+"/none", slog.New(slog.DiscardHandler), bus.Service{
		Name:    numbers,
		Changed: func(_ context.Context, objects []bus.Mirror) { told <- tell(objects) },
	}))
	expect(t, told, nobody)
}
