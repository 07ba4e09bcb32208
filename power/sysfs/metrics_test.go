package sysfs_test

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/sysfs"
)

// table makes a gpu_metrics as the driver does: ones where nothing is told.
func table(size int, format, content byte, fields map[int]uint16) []byte {
	b := slices.Repeat([]byte{0xff}, size)
	binary.LittleEndian.PutUint16(b, uint16(size))
	b[2], b[3] = format, content
	for offset, milliwatts := range fields {
		binary.LittleEndian.PutUint16(b[offset:], milliwatts)
	}
	return b
}

const milliwatt = power.Watt / 1000

func TestParseGPUMetrics(t *testing.T) {
	apu := map[power.Scope]power.Power{power.ScopePackage: 15000 * milliwatt, power.ScopeUncore: 700 * milliwatt}
	for _, c := range []struct {
		name string
		b    []byte
		want map[power.Scope]power.Power // nil for an error
	}{
		{"2.0", table(120, 2, 0, map[int]uint16{44: 15000, 50: 700}), apu},
		{"2.1", table(120, 2, 1, map[int]uint16{40: 15000, 46: 700}), apu},
		{"2.2", table(128, 2, 2, map[int]uint16{40: 15000, 46: 700}), apu},
		{"2.3", table(152, 2, 3, map[int]uint16{40: 15000, 46: 700}), apu},
		{"2.4", table(168, 2, 4, map[int]uint16{40: 15000, 46: 700}), apu},
		{"2.4 at less than a watt", table(168, 2, 4, map[int]uint16{40: 900}), map[power.Scope]power.Power{power.ScopePackage: 900 * milliwatt}},
		{"2.2 of Renoir, in watts", table(128, 2, 2, map[int]uint16{40: 15}), map[power.Scope]power.Power{}},
		{
			"3.0", table(264, 3, 0, map[int]uint16{112: 18400, 114: 1, 116: 2310, 124: 6200, 126: 0}),
			map[power.Scope]power.Power{power.ScopePackage: 83936 * milliwatt, power.ScopeNPU: 2310 * milliwatt, power.ScopeUncore: 6200 * milliwatt},
		},
		{"3.0 that tells nothing", table(264, 3, 0, nil), map[power.Scope]power.Power{}},
		{"3.0 of a kernel that adds a page's rest", append(table(264, 3, 0, nil), 0), map[power.Scope]power.Power{}},
		{"a discrete GPU's", table(120, 1, 3, nil), nil},
		{"a revision to come", table(264, 3, 1, nil), nil},
		{"cut short", table(264, 3, 0, nil)[:263], nil},
		{"of another size", table(260, 3, 0, nil), nil},
		{"no header", []byte{8, 1, 3}, nil},
	} {
		got, err := sysfs.ParseGPUMetrics(c.b)
		if (err != nil) != (c.want == nil) || !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
}

func FuzzParseGPUMetrics(f *testing.F) {
	for _, r := range []struct {
		size            int
		format, content byte
	}{{120, 1, 3}, {120, 2, 0}, {120, 2, 1}, {128, 2, 2}, {152, 2, 3}, {168, 2, 4}, {264, 3, 0}} {
		f.Add(table(r.size, r.format, r.content, nil))
		f.Add(table(r.size, r.format, r.content, map[int]uint16{40: 15000, 112: 18400, 114: 0}))
		f.Add(make([]byte, r.size))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		draws, err := sysfs.ParseGPUMetrics(b)
		if err != nil && draws != nil {
			t.Errorf("%v and an error: %v", draws, err)
		}
		for scope, p := range draws {
			if p < 0 || p > (1<<32)*milliwatt {
				t.Errorf("%s draws %d µW", scope, p)
			}
		}
	})
}
