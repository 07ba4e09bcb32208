package power_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/joulemux/joulemux/power"
)

// look is a look at a processor, some time after the first.
func look(after time.Duration, t power.Celsius, throttles int64) power.Thermal {
	return power.Thermal{At: time.Unix(1_000_000, 0).Add(after), Temperature: t, Throttles: throttles}
}

func TestHeat(t *testing.T) {
	const second = time.Second
	for _, c := range []struct {
		rule   string
		looks  []power.Thermal
		vetoed bool
		reason power.Reason
	}{
		{"a cool processor works", []power.Thermal{look(0, 60, 0)}, false, ""},
		{"below the limit it works", []power.Thermal{look(0, 94.9, 0)}, false, ""},
		{"at the limit it does not", []power.Thermal{look(0, 95, 0)}, true, power.ReasonHot},
		{"it is not back below the limit", []power.Thermal{look(0, 95, 0), look(second, 90, 0)}, true, power.ReasonCooling},
		{"nor just above the lower one", []power.Thermal{look(0, 95, 0), look(second, 85.1, 0)}, true, power.ReasonCooling},
		{"it is at the lower one", []power.Thermal{look(0, 95, 0), look(second, 85, 0)}, false, ""},
		{"between the limits it works if it did", []power.Thermal{look(0, 80, 0), look(second, 90, 0)}, false, ""},
		{"what was throttled before we looked is over", []power.Thermal{look(0, 60, 12)}, false, ""},
		{"throttled between two looks", []power.Thermal{look(0, 60, 12), look(second, 60, 13)}, true, power.ReasonThrottled},
		{"throttled within ten seconds", []power.Thermal{look(0, 60, 12), look(second, 60, 13), look(10*second, 60, 13)}, true, power.ReasonThrottled},
		{"throttled ten seconds ago", []power.Thermal{look(0, 60, 12), look(second, 60, 13), look(11*second, 60, 13)}, false, ""},
		{"throttled once more", []power.Thermal{look(0, 60, 12), look(second, 60, 13), look(9*second, 60, 14), look(15*second, 60, 14)}, true, power.ReasonThrottled},
		{"throttled ten seconds ago and not cool yet", []power.Thermal{look(0, 90, 12), look(second, 90, 13), look(11*second, 90, 13)}, true, power.ReasonCooling},
		{"throttled, nobody knows when", []power.Thermal{look(0, 60, 12), look(time.Hour, 60, 13)}, false, ""},
		{"a CPU with a higher count went offline", []power.Thermal{look(0, 60, 12), look(second, 60, 3)}, false, ""},
		{"an unknown temperature vetoes nothing", []power.Thermal{look(0, 0, 0)}, false, ""},
		{"nor does one that was lost", []power.Thermal{look(0, 95, 0), look(second, 0, 0)}, false, ""},
	} {
		var heat power.Heat
		for _, now := range c.looks {
			heat = power.DefaultHeatPolicy().Next(heat, now)
		}
		if heat.Vetoed != c.vetoed || heat.Reason != c.reason {
			t.Errorf("%s: vetoed %v (%s), want %v (%s)", c.rule, heat.Vetoed, heat.Reason, c.vetoed, c.reason)
		}
	}
	throttled := power.Thermal{At: time.Unix(1_000_001, 0), Throttled: time.Millisecond}
	if heat := power.DefaultHeatPolicy().Next(power.Heat{Last: look(0, 60, 0)}, throttled); !heat.Vetoed {
		t.Error("time that was spent slowed down does not veto")
	}
}

func TestHeatSaysWhy(t *testing.T) {
	for _, c := range []struct {
		heat power.Heat
		want string
	}{
		{power.Heat{Last: look(0, 60, 0)}, ""},
		{power.Heat{Vetoed: true, Reason: power.ReasonHot, Since: 97.2, Last: look(0, 99, 0)}, "too hot: 97 °C"},
		{power.Heat{Vetoed: true, Reason: power.ReasonThrottled, Last: look(0, 0, 4)}, "slowed down by heat"},
	} {
		if got := c.heat.Veto(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.heat, got, c.want)
		}
	}
	var heat power.Heat
	for i, c := range []struct {
		temperature power.Celsius
		want        string
	}{{60, ""}, {97, "too hot: 97 °C"}, {99, "too hot: 97 °C"}, {91, "cooling down: 91 °C"}, {88, "cooling down: 91 °C"}, {80, ""}, {95, "too hot: 95 °C"}} {
		heat = power.DefaultHeatPolicy().Next(heat, look(time.Duration(i)*time.Second, c.temperature, 0))
		if got := heat.Veto(); got != c.want {
			t.Errorf("at %v it says %q, want %q", c.temperature, got, c.want)
		}
	}
}

func TestHeatLaws(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	policy := power.DefaultHeatPolicy()
	var heat power.Heat
	now := look(0, 50, 0)
	for range 200_000 {
		last := heat
		now.At = now.At.Add(time.Duration(r.IntN(15_000)) * time.Millisecond)
		now.Temperature = power.Celsius(70 + r.Float64()*35)
		now.Throttles += int64(max(0, r.IntN(20)-18))
		heat = policy.Next(last, now)

		if again := policy.Next(heat, now); again != heat {
			t.Fatalf("looking twice at %+v: %+v, then %+v", now, heat, again)
		}
		hotter := now
		hotter.Temperature += power.Celsius(r.Float64() * 20)
		if h := policy.Next(last, hotter); heat.Vetoed && !h.Vetoed {
			t.Fatalf("%v is vetoed and %v is not, after %+v", now.Temperature, hotter.Temperature, last)
		}
		if between := now.Temperature > policy.Cool && now.Temperature < policy.Hot; between &&
			heat.Vetoed != last.Vetoed && heat.Reason != power.ReasonThrottled {
			t.Fatalf("between the limits the verdict changes: %+v, then %+v", last, heat)
		}
		if heat.Vetoed == (heat.Reason == "") {
			t.Fatalf("a veto has a reason, and nothing else has: %+v", heat)
		}
	}
}
