package upower_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"math"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/upower"
	"github.com/joulemux/joulemux/power"
)

const (
	devicePath  = "/org/freedesktop/UPower/devices/DisplayDevice"
	deviceIface = "org.freedesktop.UPower.Device"
)

// mirror is a display device as on any laptop, except for what a case says.
func mirror(except map[string]any) bus.Mirror {
	all := map[string]any{
		"Type": uint32(2), "IsPresent": true, "State": uint32(2), "Percentage": 62.0,
		"WarningLevel": uint32(1), "EnergyRate": 14.0,
	}
	maps.Copy(all, except)
	m := make(bus.Mirror)
	for name, v := range all {
		if v != nil {
			m[name] = godbus.MakeVariant(v)
		}
	}
	return m
}

// observer is a watcher that remembers what it has reported last.
type observer struct {
	*upower.Watcher
	reported []power.Supply
	changed  func(context.Context, []bus.Mirror)
}

func newObserver() *observer {
	o := new(observer)
	o.Watcher = upower.New(func(_ context.Context, s power.Supply) { o.reported = append(o.reported, s) })
	o.changed = o.Service().Changed
	return o
}

func TestWhatUPowerMeans(t *testing.T) {
	type has = map[string]any
	battery := onBattery(62, power.WarningNone)
	with := func(c power.Charge) power.Supply { return onBattery(c, power.WarningNone) }
	warned := func(w power.Warning) power.Supply { return onBattery(62, w) }
	line := onLine(62)
	for _, c := range []struct {
		rule      string
		onBattery bool
		device    has
		want      power.Supply
	}{
		{"a laptop on battery", true, has{}, battery},
		{"a weak charger", false, has{}, battery},
		{"charging", false, has{"State": uint32(1)}, line},
		{"charging, as OnBattery has yet to hear", true, has{"State": uint32(1)}, line},
		{"empty", true, has{"State": uint32(3), "Percentage": 0.0}, with(0)},
		{"full", false, has{"State": uint32(4)}, line},
		{"charging is put off", false, has{"State": uint32(5)}, line},
		{"unknown state on battery", true, has{"State": uint32(0)}, battery},
		{"unknown state on line power", false, has{"State": uint32(0)}, line},
		{"discharging is put off", true, has{"State": uint32(6)}, battery},
		{"a state of the future", false, has{"State": uint32(99)}, line},
		{"no state", true, has{"State": nil}, battery},
		{"a desktop", false, has{"Type": uint32(0), "Percentage": 0.0}, desktop},
		{"a desktop that is said to be on battery", true, has{"Type": uint32(0)}, desktop},
		{"a UPS", true, has{"Type": uint32(3)}, battery},
		{"a mouse", true, has{"Type": uint32(5)}, desktop},
		{"a battery that is not in", true, has{"IsPresent": false}, desktop},
		{"no type", true, has{"Type": nil}, power.Supply{}},
		{"a type that is none", true, has{"Type": "battery"}, power.Supply{}},
		{"nothing of whether it is present", true, has{"IsPresent": nil}, power.Supply{}},
		{"more than full", true, has{"Percentage": 104.5}, with(100)},
		{"less than empty", true, has{"Percentage": -1.0}, with(0)},
		{"endlessly full", true, has{"Percentage": math.Inf(1)}, with(100)},
		{"a charge that is no number", true, has{"Percentage": math.NaN()}, power.Supply{}},
		{"a charge of another type", true, has{"Percentage": uint32(62)}, power.Supply{}},
		{"no warnings known", true, has{"WarningLevel": uint32(0)}, warned(power.Unwarned)},
		{"a discharging UPS is no warning", true, has{"WarningLevel": uint32(2)}, warned(power.WarningNone)},
		{"low", true, has{"WarningLevel": uint32(3)}, warned(power.WarningLow)},
		{"critical", true, has{"WarningLevel": uint32(4)}, warned(power.WarningCritical)},
		{"about to act", true, has{"WarningLevel": uint32(5)}, warned(power.WarningCritical)},
		{"a warning of the future", true, has{"WarningLevel": uint32(6)}, warned(power.WarningNone)},
		{"a warning of another type", true, has{"WarningLevel": "low"}, warned(power.Unwarned)},
	} {
		o := newObserver()
		manager := bus.Mirror{"OnBattery": godbus.MakeVariant(c.onBattery)}
		o.changed(t.Context(), []bus.Mirror{manager, mirror(c.device)})
		if got := o.reported[len(o.reported)-1]; got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.rule, got, c.want)
		}
	}
}

func TestChargeThatIsNoNumberLeavesTheLast(t *testing.T) {
	o := newObserver()
	for _, device := range []map[string]any{{}, {"Percentage": math.NaN()}, {"Percentage": math.NaN(), "State": uint32(1)}} {
		o.changed(t.Context(), []bus.Mirror{nil, mirror(device)})
	}
	if len(o.reported) != 2 || o.reported[1] != onLine(62) {
		t.Errorf("reported %+v", o.reported)
	}
	o.changed(t.Context(), nil)
	o.changed(t.Context(), []bus.Mirror{nil, mirror(map[string]any{"Percentage": math.NaN()})})
	if len(o.reported) != 3 || o.reported[2].Known() {
		t.Errorf("after UPower was away: reported %+v", o.reported)
	}
}

func TestDraw(t *testing.T) {
	for _, c := range []struct {
		rule   string
		device map[string]any
		want   power.Power
	}{
		{"while discharging", nil, 14 * power.Watt},
		{"whatever its sign", map[string]any{"EnergyRate": -14.0}, 14 * power.Watt},
		{"not while charging", map[string]any{"State": uint32(1)}, 0},
		{"not without a battery", map[string]any{"Type": uint32(0)}, 0},
		{"zero is unknown", map[string]any{"EnergyRate": 0.0}, 0},
		{"no number", map[string]any{"EnergyRate": math.NaN()}, 0},
		{"endless", map[string]any{"EnergyRate": math.Inf(-1)}, 0},
		{"another type", map[string]any{"EnergyRate": "14"}, 0},
		{"not there", map[string]any{"EnergyRate": nil}, 0},
	} {
		o := newObserver()
		o.changed(t.Context(), []bus.Mirror{nil, mirror(c.device)})
		if got, ok := o.Draw(); got != c.want || ok != (c.want > 0) {
			t.Errorf("%s: %v, %t, want %v", c.rule, got, ok, c.want)
		}
	}
}

func TestLeft(t *testing.T) {
	for _, c := range []struct {
		rule   string
		device map[string]any
		want   power.Energy
	}{
		{"while discharging", map[string]any{"Energy": 48.0}, 172_800 * power.Joule},
		{"not while charging", map[string]any{"Energy": 48.0, "State": uint32(1)}, 0},
		{"zero is unknown", map[string]any{"Energy": 0.0}, 0},
		{"no number", map[string]any{"Energy": math.NaN()}, 0},
		{"endless", map[string]any{"Energy": math.Inf(1)}, 0},
		{"another type", map[string]any{"Energy": "48"}, 0},
		{"not there", map[string]any{"Energy": nil}, 0},
	} {
		o := newObserver()
		o.changed(t.Context(), []bus.Mirror{nil, mirror(c.device)})
		if got, ok := o.Left(); got != c.want || ok != (c.want > 0) {
			t.Errorf("%s: %v, %t, want %v", c.rule, got, ok, c.want)
		}
	}
}

// FuzzProperties has UPower say whatever the wire can carry: data is a message
// whose body is the properties of the manager and those of the device.
func FuzzProperties(f *testing.F) {
	manager := bus.Mirror{"OnBattery": godbus.MakeVariant(true)}
	for _, device := range []bus.Mirror{
		mirror(nil),
		mirror(map[string]any{"Percentage": math.NaN(), "EnergyRate": math.Inf(1)}),
		mirror(map[string]any{"Type": "battery", "State": []string{"a"}}),
	} {
		body := []any{map[string]godbus.Variant(manager), map[string]godbus.Variant(device)}
		m := godbus.Message{Type: godbus.TypeMethodReply, Body: body, Headers: map[godbus.HeaderField]godbus.Variant{
			godbus.FieldReplySerial: godbus.MakeVariant(uint32(1)),
			godbus.FieldSignature:   godbus.MakeVariant(godbus.SignatureOf(body...)),
		}}
		var b bytes.Buffer
		if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := godbus.DecodeMessage(bytes.NewReader(data))
		if err != nil || len(m.Body) != 2 {
			return
		}
		manager, _ := m.Body[0].(map[string]godbus.Variant)
		device, _ := m.Body[1].(map[string]godbus.Variant)
		o := newObserver()
		o.changed(t.Context(), []bus.Mirror{manager, device})
		got := o.reported[0]
		if !(got.Charge >= 0 && got.Charge <= 100) || got.Battery && !got.Known() {
			t.Errorf("reported %+v", got)
		}
		if draw, ok := o.Draw(); draw < 0 || ok != (draw > 0) {
			t.Errorf("the draw is %v, %t", draw, ok)
		}
	})
}
