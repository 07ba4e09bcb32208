// Package upower tells what UPower says of how the machine is powered.
//
// It knows what UPower's properties mean and where they mislead. It opens no
// bus: the bus.Monitor that is given its Service does, and calls it. What a
// supply is good for is decided elsewhere.
package upower

import (
	"context"
	"math"
	"sync/atomic"

	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/power"
)

// source is how supplies name us.
const source = "upower"

// Watcher turns UPower's properties into supplies.
type Watcher struct {
	report func(context.Context, power.Supply)

	// What follows belongs to the monitor, which never calls us twice at once.
	told   bool
	supply power.Supply // What was reported last, if told.
	charge float64      // The last one that was a number.

	draw atomic.Int64 // A power.Power; 0 if unknown.
	left atomic.Int64 // A power.Energy; 0 if unknown.
}

// New returns a watcher that calls report with each supply that differs from
// the one before. An unknown supply says that UPower is not there.
func New(report func(context.Context, power.Supply)) *Watcher {
	return &Watcher{report: report, charge: math.NaN()}
}

// Service is what the monitor has to watch. Of UPower's many devices only the
// composite one is of interest: the others republish twice a minute.
func (w *Watcher) Service() bus.Service {
	return bus.Service{
		Name:  "org.freedesktop.UPower",
		Start: true, // Where no desktop uses it, nobody else starts it.
		Objects: []bus.Object{
			{
				Path:      "/org/freedesktop/UPower",
				Interface: "org.freedesktop.UPower",
				Wanted:    []string{"OnBattery"},
			},
			{
				Path:      "/org/freedesktop/UPower/devices/DisplayDevice",
				Interface: "org.freedesktop.UPower.Device",
				Wanted:    []string{"Type", "IsPresent", "State", "Percentage", "WarningLevel", "EnergyRate", "Energy"},
			},
		},
		Changed: w.changed,
	}
}

// Draw returns what the batteries give, and whether that is known: while they
// give, and UPower knows how much. It changes with every report of a fuel
// gauge, about which nobody is told.
func (w *Watcher) Draw() (power.Power, bool) {
	draw := power.Power(w.draw.Load())
	return draw, draw > 0
}

// Left returns the energy that the batteries hold, and whether that is known:
// as Draw, without news of it, and while they discharge.
func (w *Watcher) Left() (power.Energy, bool) {
	left := power.Energy(w.left.Load())
	return left, left > 0
}

// changed takes the manager and the display device, or nil if there is no
// UPower.
func (w *Watcher) changed(ctx context.Context, objects []bus.Mirror) {
	supply := power.Supply{}
	if objects == nil {
		w.charge = math.NaN()
	} else {
		supply = w.read(objects[0], objects[1])
	}
	w.draw.Store(0)
	w.left.Store(0)
	if supply.Discharging {
		w.draw.Store(int64(draw(objects[1])))
		w.left.Store(int64(left(objects[1])))
	}
	if w.told && supply == w.supply {
		return
	}
	w.told, w.supply = true, supply
	w.report(ctx, supply)
}

// read returns the supply.
func (w *Watcher) read(manager, device bus.Mirror) power.Supply {
	kind, ok1 := bus.Value[uint32](device, "Type")
	present, ok2 := bus.Value[bool](device, "IsPresent")
	if !ok1 || !ok2 {
		return power.Supply{}
	}
	if !present || kind != typeBattery && kind != typeUPS {
		return power.Supply{Source: source}
	}
	w.charge = charge(device, w.charge)
	if math.IsNaN(w.charge) {
		return power.Supply{}
	}
	return power.Supply{
		Source:      source,
		Battery:     true,
		Discharging: discharging(manager, device),
		Charge:      power.Charge(w.charge),
		Warning:     warning(device),
	}
}
