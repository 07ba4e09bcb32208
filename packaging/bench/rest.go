package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/packaging/rig"
)

// fullEnergy is what rig's battery holds, in microwatt-hours.
const fullEnergy = 60_000_000

// measureRest counts how often joulemuxd wakes up after jobs, at rest and when the
// charge changes, as its unit starts it; and after jobs as a shell does.
func measureRest(ctx context.Context, p plan) (rows []row, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w, err := newWorld(ctx, 4, 0, self, slackStart)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	fmt.Fprintf(os.Stderr, "rest: %v until joulemuxd is at rest, %v of watching it\n", p.settle, p.window)
	calm, err := w.calm(ctx, p)
	if err != nil {
		return nil, err
	}
	idle, err := w.idle(ctx, p.window)
	if err != nil {
		return nil, err
	}
	each, err := w.updates(ctx, p.updates, idle)
	return []row{
		calm,
		{
			what:     fmt.Sprintf("wakes at rest, %v after the last job", p.settle),
			joulemux: fmt.Sprintf("%.3f/s", idle), baseline: "-", value: idle, target: 0.1, unit: "/s",
		},
		{
			what:     fmt.Sprintf("wakes per UPower update, of %d", p.updates),
			joulemux: fmt.Sprintf("%.2f", each), baseline: fmt.Sprintf("%.3f/s at rest, taken off", idle), value: each, target: 5, unit: " wakes",
		},
	}, err
}

// calm has jobs run, and time pass until there is rest. Both joulemuxds live through
// the same.
func (w *world) calm(ctx context.Context, p plan) (r row, err error) {
	session, err := rig.StartBus(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	w.start = nil
	other, err := w.another(ctx, w.program(), "shell", w.machine.SysDir(), session)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, other.process.Close()) }()
	both := []daemon{w.joulemuxd, other}
	client := &http.Client{Transport: new(http.Transport)}
	for range p.requests / 2 {
		for _, d := range both {
			if err := errors.Join(chat(true, 0).ask(ctx, client, d.url), chat(false, 0).ask(ctx, client, d.url)); err != nil {
				return r, err
			}
		}
	}
	client.CloseIdleConnections()
	woken, err := watch(ctx, p.settle, both...)
	if err != nil {
		return r, err
	}
	return row{
		what:     fmt.Sprintf("wakes in %v after %d jobs", p.settle, p.requests/2*2),
		joulemux: strconv.Itoa(woken[0]), baseline: fmt.Sprintf("%d without the unit's timer slack", woken[1]),
		value: float64(woken[0]) / float64(max(1, woken[1])),
	}, nil
}

// idle returns the wakes per second of joulemuxd when nobody asks anything.
func (w *world) idle(ctx context.Context, window time.Duration) (float64, error) {
	woken, err := watch(ctx, window, w.joulemuxd)
	if err != nil {
		return 0, err
	}
	return float64(woken[0]) / window.Seconds(), nil
}

// watch returns how often each joulemuxd wakes up while time goes by.
func watch(ctx context.Context, window time.Duration, all ...daemon) ([]int, error) {
	before, err := wakesOf(all)
	if err != nil {
		return nil, err
	}
	if err := pass(ctx, window); err != nil {
		return nil, err
	}
	after, err := wakesOf(all)
	for i := range after {
		after[i] -= before[i]
	}
	return after, err
}

func wakesOf(all []daemon) (list []int, err error) {
	for _, d := range all {
		n, err := wakes(d.process.PID())
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

// updates returns the wakes per change of the charge, with those left out that
// would have been without.
func (w *world) updates(ctx context.Context, count int, idle float64) (float64, error) {
	watch, err := w.watchCharge()
	if err != nil {
		return 0, err
	}
	defer watch.close()
	start := time.Now()
	before, err := wakes(w.joulemuxd.process.PID())
	if err != nil {
		return 0, err
	}
	for n := range count {
		charge := 80 - 0.5*float64(n+1)
		energy := strconv.Itoa(int(charge * fullEnergy / 100))
		if err := w.machine.Set(map[string]rig.Attributes{"BAT0": {"energy_now": energy}}); err != nil {
			return 0, err
		}
		if err := watch.await(ctx, charge); err != nil {
			return 0, fmt.Errorf("a charge of %v %%: %w", charge, err)
		}
	}
	after, err := wakes(w.joulemuxd.process.PID())
	return (float64(after-before) - idle*time.Since(start).Seconds()) / float64(count), err
}

// chargeWatch sees the charge on both buses: UPower's, and joulemuxd's, which
// is rounded to whole percent.
type chargeWatch struct {
	system, session *godbus.Conn
	upower, ours    chan *godbus.Signal
	shown           float64
}

func (w *world) watchCharge() (*chargeWatch, error) {
	c := &chargeWatch{upower: make(chan *godbus.Signal, 64), ours: make(chan *godbus.Signal, 64), shown: 80}
	var err error
	c.system, err = listen(w.system, "/org/freedesktop/UPower/devices/DisplayDevice", c.upower)
	if err != nil {
		return nil, err
	}
	if c.session, err = listen(w.session, "/io/github/joulemux/Router1", c.ours); err != nil {
		return nil, errors.Join(err, c.system.Close())
	}
	return c, nil
}

func (c *chargeWatch) close() { _, _ = c.system.Close(), c.session.Close() }

// listen connects to a bus and has changes of an object's properties sent.
func listen(bus *rig.Bus, path godbus.ObjectPath, to chan *godbus.Signal) (*godbus.Conn, error) {
	conn, err := godbus.Connect(bus.Address())
	if err != nil {
		return nil, err
	}
	conn.Signal(to)
	err = conn.AddMatchSignal(godbus.WithMatchObjectPath(path), godbus.WithMatchMember("PropertiesChanged"))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// apart is the time between changes of the charge, so that no two are taken in
// at once.
const apart = 300 * time.Millisecond

// await waits until UPower shows the charge, and joulemuxd too where that makes
// another whole percent.
func (c *chargeWatch) await(ctx context.Context, charge float64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := changed(ctx, c.upower, "Percentage", charge); err != nil {
		return fmt.Errorf("UPower: %w", err)
	}
	if whole := math.Round(charge); whole != c.shown {
		if err := changed(ctx, c.ours, "Charge", whole); err != nil {
			return fmt.Errorf("joulemuxd: %w", err)
		}
		c.shown = whole
	}
	return pass(ctx, apart)
}

// changed waits for a signal that a property has that value.
func changed(ctx context.Context, signals chan *godbus.Signal, name string, want float64) error {
	for {
		select {
		case s, open := <-signals:
			if !open {
				return errors.New("the bus is gone")
			}
			if len(s.Body) < 2 {
				continue
			}
			properties, _ := s.Body[1].(map[string]godbus.Variant)
			if value, ok := properties[name].Value().(float64); ok && math.Abs(value-want) < 0.01 {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("%s never was %v: %w", name, want, ctx.Err())
		}
	}
}

// pass lets time go by.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
