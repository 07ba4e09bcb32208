package simulate

import (
	"time"

	"github.com/joulemux/joulemux/power"
)

// Machine is a computer whose devices all have the same model.
type Machine struct {
	Name string
	// Source says where the figures are from, or that they are assumed.
	Source  string
	Devices []Device
	// Battery is what it holds when full; zero is a machine without one. Base
	// is what the machine draws beside the devices.
	Battery power.Energy
	Base    power.Power
}

// Device is a place where the model runs.
type Device struct {
	ID    string
	Class power.DeviceClass
	// Rates are in tokens per second. Draws are what the device adds to that
	// of the idle machine.
	Prefill, Decode         float64
	PrefillDraw, DecodeDraw power.Power
	// Hold is drawn for as long as the model is resident and no job runs.
	Hold power.Power
	// Loading the model takes so long, at that draw.
	Load     time.Duration
	LoadDraw power.Power
	// SleepAfter is for how long Hold is drawn on after the model is gone.
	SleepAfter time.Duration
	// Source says where the figures are from, or that they are assumed.
	Source string
}

// LoadEnergy is what making the model resident takes.
func (d *Device) LoadEnergy() power.Energy { return d.LoadDraw.For(d.Load) }

// Prefilling returns how long it takes to read that many tokens.
func (d *Device) Prefilling(tokens int) time.Duration { return perSecond(tokens, d.Prefill) }

// Decoding returns how long it takes to write that many tokens.
func (d *Device) Decoding(tokens int) time.Duration { return perSecond(tokens, d.Decode) }

// Service returns how long a request takes once the model is resident, and
// what energy.
func (d *Device) Service(r *Request) (time.Duration, power.Energy) {
	reading, writing := d.Prefilling(r.Prompt), d.Decoding(r.Output)
	return reading + writing, d.PrefillDraw.For(reading) + d.DecodeDraw.For(writing)
}

func perSecond(tokens int, rate float64) time.Duration {
	return time.Duration(float64(tokens) / rate * float64(time.Second))
}
