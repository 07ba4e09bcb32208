package daemon

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
)

// told is a sensor by what it says of itself.
type told power.Domain

func (s told) Domain() power.Domain                            { return power.Domain(s) }
func (told) Read(context.Context) (r power.Reading, err error) { return r, power.ErrUnavailable }

func TestTheHelpersSensorsJoinOurs(t *testing.T) {
	apu := told{Name: "apu", Scope: power.ScopePackage, Source: "amdgpu"}
	npu := told{Name: "npu", Scope: power.ScopeNPU, Source: "amdgpu", Within: "apu"}
	rapl := told{Name: "package-0", Scope: power.ScopePackage, Source: "rapl", Cumulative: true}
	helped := told{Name: "package-0", Scope: power.ScopePackage, Source: "rapl helper", Cumulative: true}
	core := told{Name: "core-0", Scope: power.ScopeCore, Source: "rapl", Within: "package-0", Cumulative: true}
	for _, c := range []struct {
		rule       string
		ours, more []meter.Sensor
		want       string
	}{
		{"where we may read nothing, all is the helper's", nil, []meter.Sensor{helped, core}, "rapl helper package-0, rapl core-0 in package-0"},
		{"what we may read ourselves needs no helper", []meter.Sensor{rapl}, []meter.Sensor{helped, core}, "rapl package-0, rapl core-0 in package-0"},
		{"a counter is better than samples, and rails are within it", []meter.Sensor{apu, npu}, []meter.Sensor{helped}, "amdgpu npu in package-0, rapl helper package-0"},
		{"without a helper nothing changes", []meter.Sensor{apu, npu}, nil, "amdgpu apu, amdgpu npu in apu"},
	} {
		var got []string
		for _, s := range join(slices.Clone(c.ours), c.more) {
			d := s.Domain()
			said := d.Source + " " + d.Name
			if d.Within != "" {
				said += " in " + d.Within
			}
			got = append(got, said)
		}
		if list := strings.Join(got, ", "); list != c.want {
			t.Errorf("%s: %s, want %s", c.rule, list, c.want)
		}
	}
}

// held is a sensor that holds something while it is read.
type held struct {
	told
	rested *int
}

func (h held) Rest() { *h.rested++ }

func TestARailWhosePackageHasAnotherSensorIsStillLetGoOf(t *testing.T) {
	rested := 0
	npu := held{told{Name: "npu", Scope: power.ScopeNPU, Source: "amdgpu", Within: "apu"}, &rested}
	ours := []meter.Sensor{told{Name: "apu", Scope: power.ScopePackage, Source: "amdgpu"}, npu}
	helped := told{Name: "package-0", Scope: power.ScopePackage, Source: "rapl helper", Cumulative: true}
	for _, s := range join(ours, []meter.Sensor{helped}) {
		if r, ok := s.(meter.Rester); ok {
			r.Rest()
		}
	}
	if rested != 1 {
		t.Errorf("the rail was let go of %d times", rested)
	}
}

func TestAMachineThatIsAwakeHasSleptNoLonger(t *testing.T) {
	least, most := suspended(), suspended()
	for range 10_000 {
		now := suspended()
		least, most = min(least, now), max(most, now)
	}
	// The meter takes 10 ms for what reading two clocks may be wrong by.
	if most-least > 5*time.Millisecond || least < -time.Millisecond {
		t.Errorf("it is told to have slept between %v and %v", least, most)
	}
}
