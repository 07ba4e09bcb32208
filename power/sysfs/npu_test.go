package sysfs_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/powertest"
	"github.com/joulemux/joulemux/power/sysfs"
)

// region is a telemetry region with a register.
func region(size, offset int, value uint64) []byte {
	b := make([]byte, size)
	binary.LittleEndian.PutUint64(b[offset:], value)
	return b
}

func TestParseNPUEnergy(t *testing.T) {
	for _, c := range []struct {
		name, guid string
		b          []byte
		want       power.Energy
		fails      bool
	}{
		{"Meteor Lake", "0x130670b2", region(0x640, 0x628, 1<<14), power.Joule, false},
		{"Arrow Lake-H", "0x1306a0b2", region(0x640, 0x628, 1<<13), power.Joule / 2, false},
		{"Arrow Lake", "0x1306a0b3", region(0x640, 0x628, 1), 61, false},
		{"Arrow Lake-S", "0x1306a0b4", region(0x640, 0x628, 0), 0, false},
		{"Lunar Lake", "0x3072005", region(0x640, 0x5d0, 3<<14), 3 * power.Joule, false},
		{"Panther Lake", "0x3086000", region(0x678, 0x670, 3<<14), 3 * power.Joule, false},
		{"Wildcat Lake counts in hundreds", "0x308d000", region(0x678, 0x670, 3<<14), 300 * power.Joule, false},
		{"the upper half is something else", "0x130670b2", region(0x640, 0x628, 7<<32|1<<14), power.Joule, false},
		{"the highest count", "0x130670b2", region(0x640, 0x628, 1<<32-1), 262144*power.Joule - 62, false},
		{"another region", "0x130671b2", region(0x640, 0x628, 1<<14), 0, true},
		{"no guid", "", region(0x640, 0x628, 1<<14), 0, true},
		{"cut short", "0x130670b2", region(0x640, 0x628, 1<<14)[:0x62f], 0, true},
		{"empty", "0x130670b2", nil, 0, true},
	} {
		got, err := sysfs.ParseNPUEnergy(c.guid, c.b)
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%s: %d, %v, want %d", c.name, got, err, c.want)
		}
	}
	if _, err := sysfs.ParseNPUEnergy("0x1", nil); !errors.Is(err, power.ErrUnavailable) {
		t.Errorf("an unknown layout is %v", err)
	}
}

func FuzzParseNPUEnergy(f *testing.F) {
	for _, guid := range []string{"0x130670b2", "0x1306a0b2", "0x1306a0b3", "0x1306a0b4", "0x3072005", "0x3086000", "0x308d000"} {
		f.Add(guid, region(0x680, 0x670, 1<<32-1))
		f.Add(guid, region(0x680, 0x5d0, 1<<20))
		f.Add(guid, []byte{})
	}
	f.Fuzz(func(t *testing.T, guid string, b []byte) {
		if e, err := sysfs.ParseNPUEnergy(guid, b); e < 0 || e >= 100*262144*power.Joule || err != nil && e != 0 {
			t.Errorf("%d, %v", e, err)
		}
	})
}

func TestNPUEnergyOfRoot(t *testing.T) {
	m := powertest.Load(t, "meteor-lake").AsRoot()
	s := sensorOf(t, m.Sys(), "npu")
	want := power.Domain{
		Name: "npu", Scope: power.ScopeNPU, Source: "pmt", Within: "package-0",
		Cumulative: true, Range: 262144 * power.Joule, Most: 100 * power.Watt,
	}
	if d := s.Domain(); d != want {
		t.Errorf("it is of %+v, want %+v", d, want)
	}
	if r, err := s.Read(t.Context()); err != nil || r.Energy != power.Joules(1500.5) {
		t.Errorf("it shows %v, %v", r.Energy, err)
	}
	m.Set("sys/class/intel_pmt/telem1/telem", "short")
	if _, err := s.Read(t.Context()); err == nil {
		t.Error("a region that shrank is no error")
	}
}

func TestOccupancyIsLookedAtOnceASecond(t *testing.T) {
	const busyTime = "sys/bus/pci/devices/0000:00:0b.0/npu_busy_time_us"
	synctest.Test(t, func(t *testing.T) {
		m := powertest.Load(t, "meteor-lake")
		start := time.Now()
		o, ok := sysfs.NPUOccupancy(m.Sys())
		if !ok {
			t.Fatal("a Meteor Lake has no NPU")
		}
		m.Set(busyTime, "5512345\n")
		for _, c := range []struct {
			after, at, busy time.Duration
		}{
			{0, 0, 4512345 * time.Microsecond},
			{999 * time.Millisecond, 0, 4512345 * time.Microsecond},
			{time.Second, time.Second, 5512345 * time.Microsecond},
		} {
			time.Sleep(time.Until(start.Add(c.after)))
			if busy, at, err := o.Busy(); err != nil || busy != c.busy || !at.Equal(start.Add(c.at)) {
				t.Errorf("after %v: %v at %v, %v, want %v at %v", c.after, busy, at.Sub(start), err, c.busy, c.at)
			}
		}
		m.Set(busyTime, "")
		time.Sleep(time.Second)
		if _, _, err := o.Busy(); err == nil {
			t.Error("a driver that tells nothing is no error")
		}
	})
	for _, machine := range []string{"strix", "optimus", "vm"} {
		if _, ok := sysfs.NPUOccupancy(powertest.Load(t, machine).Sys()); ok {
			t.Errorf("%s has an NPU by Intel", machine)
		}
	}
}
