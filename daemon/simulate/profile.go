package simulate

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/power"
)

//go:embed machines/*.json
var shipped embed.FS

// Shipped returns the names of the machines that come with the program, the
// one that most is said about first.
func Shipped() []string { return []string{"hybrid", "strix", "thinkpad"} }

// Named returns the shipped machine of that name.
func Named(name string) (Machine, error) {
	text, err := ShippedFile(name)
	if err != nil {
		return Machine{}, err
	}
	return ParseMachine(text)
}

// ShippedFile returns the file of a shipped machine, to begin one's own with.
func ShippedFile(name string) ([]byte, error) {
	if !slices.Contains(Shipped(), name) {
		return nil, fmt.Errorf("no machine is called %q; there are %s", name, strings.Join(Shipped(), ", "))
	}
	return shipped.ReadFile(path.Join("machines", name+".json"))
}

// profile is a machine as its file has it.
type profile struct {
	Name      string          `json:"name"`
	Says      string          `json:"says"`
	BatteryWh float64         `json:"battery_wh"`
	BaseWatts float64         `json:"base_watts"`
	Sources   sources         `json:"sources"`
	Devices   []deviceProfile `json:"devices"`
}

// deviceProfile is a device as its machine's file has it.
type deviceProfile struct {
	ID                     string  `json:"id"`
	Class                  string  `json:"class"`
	PrefillTokensPerSecond float64 `json:"prefill_tokens_per_second"`
	PrefillWatts           float64 `json:"prefill_watts"`
	DecodeTokensPerSecond  float64 `json:"decode_tokens_per_second"`
	DecodeWatts            float64 `json:"decode_watts"`
	HoldWatts              float64 `json:"hold_watts"`
	LoadSeconds            float64 `json:"load_seconds"`
	LoadWatts              float64 `json:"load_watts"`
	SleepAfterSeconds      float64 `json:"sleep_after_seconds"`
	Sources                sources `json:"sources"`
}

// sources are where figures are from, by their keys. What is not there is
// assumed.
type sources map[string]string

// bounded is a figure of a file, and within what it must be.
type bounded struct {
	key         string
	value       float64
	least, most float64
}

// A machine's figures, and the widest bounds within which nothing overflows.
func (p *profile) figures() []bounded {
	return []bounded{
		{"battery_wh", p.BatteryWh, 0, 1e5},
		{"base_watts", p.BaseWatts, 0, 1e4},
	}
}

func (p *deviceProfile) figures() []bounded {
	const slowest = 1e-3
	return []bounded{
		{"prefill_tokens_per_second", p.PrefillTokensPerSecond, slowest, 1e6},
		{"prefill_watts", p.PrefillWatts, 0, 1e4},
		{"decode_tokens_per_second", p.DecodeTokensPerSecond, slowest, 1e6},
		{"decode_watts", p.DecodeWatts, 0, 1e4},
		{"hold_watts", p.HoldWatts, 0, 1e4},
		{"load_seconds", p.LoadSeconds, 0, 3600},
		{"load_watts", p.LoadWatts, 0, 1e4},
		{"sleep_after_seconds", p.SleepAfterSeconds, 0, 3600},
	}
}

// ParseMachine reads a machine's file, which is JSON with the units in its
// keys. The error has every problem, each with its key.
func ParseMachine(text []byte) (Machine, error) {
	var p profile
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return Machine{}, fmt.Errorf("not a machine: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Machine{}, errors.New("not a machine: something follows it")
	}
	if err := p.validate(); err != nil {
		return Machine{}, err
	}
	return p.machine(), nil
}

// validate reports every problem at once.
func (p *profile) validate() error {
	const most = 16
	errs := faults("", p.figures(), p.Sources)
	if p.Name == "" {
		errs = append(errs, errors.New("name: missing"))
	}
	if n := len(p.Devices); n == 0 || n > most {
		errs = append(errs, fmt.Errorf("devices: there are %d, want 1 to %d", n, most))
	}
	ids := make(map[string]bool)
	for i := range p.Devices {
		d, at := &p.Devices[i], fmt.Sprintf("devices[%d].", i)
		if d.ID == "" || ids[d.ID] {
			errs = append(errs, fmt.Errorf("%sid: want one of its own, got %q", at, d.ID))
		}
		ids[d.ID] = true
		if _, err := power.ParseDeviceClass(d.Class); err != nil {
			errs = append(errs, fmt.Errorf("%sclass: %w", at, err))
		}
		errs = append(errs, faults(at, d.figures(), d.Sources)...)
	}
	return errors.Join(errs...)
}

// faults says what is wrong with figures and with where they are from.
func faults(at string, figures []bounded, s sources) (errs []error) {
	keys := make(map[string]bool)
	for _, f := range figures {
		keys[f.key] = true
		if f.value < f.least || f.value > f.most {
			errs = append(errs, fmt.Errorf("%s%s: want %v to %v, got %v", at, f.key, f.least, f.most, f.value))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		if !keys[key] {
			errs = append(errs, fmt.Errorf("%ssources.%s: there is no such figure", at, key))
		}
	}
	return errs
}

// machine returns what a valid file says.
func (p *profile) machine() Machine {
	m := Machine{
		Name: p.Name, Source: p.Sources.of(p.figures()),
		Battery: power.Joules(p.BatteryWh * 3600), Base: power.Watts(p.BaseWatts),
	}
	for i := range p.Devices {
		m.Devices = append(m.Devices, p.Devices[i].device())
	}
	return m
}

func (p *deviceProfile) device() Device {
	class, _ := power.ParseDeviceClass(p.Class) // It was valid.
	return Device{
		ID: p.ID, Class: class, Source: p.Sources.of(p.figures()),
		Prefill: p.PrefillTokensPerSecond, PrefillDraw: power.Watts(p.PrefillWatts),
		Decode: p.DecodeTokensPerSecond, DecodeDraw: power.Watts(p.DecodeWatts),
		Hold: power.Watts(p.HoldWatts), SleepAfter: seconds(p.SleepAfterSeconds),
		Load: seconds(p.LoadSeconds), LoadDraw: power.Watts(p.LoadWatts),
	}
}

func seconds(s float64) time.Duration {
	return time.Duration(math.Round(s * float64(time.Second)))
}

// of says where figures are from, each on a line.
func (s sources) of(figures []bounded) string {
	var lines []string
	for _, f := range figures {
		lines = append(lines, fmt.Sprintf("%s %v: %s", f.key, f.value, cmp.Or(s[f.key], "assumed")))
	}
	return strings.Join(lines, "\n")
}
