package upower

import (
	"math"

	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/power"
)

// Values of UPower's enumerations, from org.freedesktop.UPower.Device.xml. A
// display device of type 0 is how a machine without a battery looks.
const (
	typeBattery = 2
	typeUPS     = 3

	stateCharging      = 1
	stateDischarging   = 2
	stateEmpty         = 3
	stateFull          = 4
	statePendingCharge = 5

	warningUnknown  = 0
	warningLow      = 3
	warningCritical = 4
	warningAction   = 5
)

// discharging reports whether the machine runs on battery. The batteries say
// so, if they know: beside a weak charger OnBattery is false, and they empty
// all the same.
func discharging(manager, device bus.Mirror) bool {
	state, _ := bus.Value[uint32](device, "State")
	switch state {
	case stateDischarging, stateEmpty:
		return true
	case stateCharging, stateFull, statePendingCharge:
		return false
	default:
		onBattery, _ := bus.Value[bool](manager, "OnBattery")
		return onBattery
	}
}

// charge returns how full the batteries are in percent, or last if UPower says
// what is no number. It is not computed from Energy and EnergyFull, of which
// the former is 0 on some machines.
func charge(device bus.Mirror, last float64) float64 {
	percentage, ok := bus.Value[float64](device, "Percentage")
	if !ok || math.IsNaN(percentage) {
		return last
	}
	return min(max(percentage, 0), 100)
}

// warning returns how urgent UPower takes the charge to be.
func warning(device bus.Mirror) power.Warning {
	level, _ := bus.Value[uint32](device, "WarningLevel")
	switch level {
	case warningUnknown:
		return power.Unwarned
	case warningLow:
		return power.WarningLow
	case warningCritical, warningAction:
		return power.WarningCritical
	default: // None; or for a UPS, that it discharges.
		return power.WarningNone
	}
}

// draw returns the magnitude of EnergyRate, whose sign has changed its meaning
// (UPower 1.90.3), or 0 for what cannot be a draw: UPower says 0 for unknown.
func draw(device bus.Mirror) power.Power {
	rate, _ := bus.Value[float64](device, "EnergyRate")
	if math.IsNaN(rate) || math.IsInf(rate, 0) {
		return 0
	}
	return power.Watts(math.Abs(rate))
}

// left returns Energy, or 0 for what cannot be one, or is not known.
func left(device bus.Mirror) power.Energy {
	wattHours, _ := bus.Value[float64](device, "Energy")
	if !(wattHours > 0) || math.IsInf(wattHours, 0) {
		return 0
	}
	return power.Joules(wattHours * 3600)
}
