package simulate_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/daemon/simulate"
	"github.com/joulemux/joulemux/power"
)

// hybrid is the laptop of the published comparison: an NPU, an integrated GPU,
// a processor and an NVIDIA GPU (partly assumed).
func hybrid() simulate.Machine {
	device := func(id string, prefill, prefillWatts, decode, decodeWatts, hold, loadSeconds, loadWatts float64) simulate.Device {
		return simulate.Device{
			ID: id, Prefill: prefill, PrefillDraw: power.Watts(prefillWatts), Decode: decode, DecodeDraw: power.Watts(decodeWatts),
			Hold: power.Watts(hold), Load: seconds(loadSeconds), LoadDraw: power.Watts(loadWatts),
		}
	}
	return simulate.Machine{Name: "hybrid", Devices: []simulate.Device{
		device("npu", 284, 1.09, 7.6, 1.24, 0, 4, 6),
		device("igpu", 440, 15.4, 11.3, 14.11, 0, 4, 8),
		device("cpu", 25, 28, 10.3, 28, 0, 2, 8),
		device("dgpu", 1500, 50, 38, 50, 8, 5, 30),
	}}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// plain is a device that writes one token a second at one watt, and reads at
// no cost.
func plain() simulate.Device {
	return simulate.Device{ID: "plain", Prefill: 1e9, Decode: 1, DecodeDraw: power.Watt}
}

func machine(devices ...simulate.Device) *simulate.Machine {
	return &simulate.Machine{Name: "test", Devices: devices}
}

// due are rules by which an answer is due so long after its request.
func due(after, perToken time.Duration) *route.Rules {
	d := route.Due{After: after, PerToken: perToken}
	return &route.Rules{Chat: d, Completion: d, Background: d}
}

// asks are requests for answers of so many tokens at those seconds.
func asks(output int, at ...float64) []simulate.Request {
	var all []simulate.Request
	for _, t := range at {
		all = append(all, simulate.Request{At: seconds(t), Output: output, Class: simulate.Interactive})
	}
	return all
}

// random are n requests of all classes, close enough to be in each other's way.
func random(r *rand.Rand, n int) []simulate.Request {
	classes := []simulate.Class{simulate.Interactive, simulate.Completion, simulate.Background}
	all := make([]simulate.Request, n)
	at := time.Duration(0)
	for i := range all {
		at += seconds(30 * r.ExpFloat64())
		all[i] = simulate.Request{At: at, Prompt: 1 + r.IntN(4000), Output: 1 + r.IntN(400), Class: classes[r.IntN(3)]}
	}
	return all
}

func TestLowerBound(t *testing.T) {
	fast := plain()
	fast.Decode, fast.DecodeDraw = 10, 100*power.Watt // 10 J a token, not 1
	m := machine(plain(), fast)
	for _, c := range []struct {
		rule   string
		tokens int
		want   simulate.Least
	}{
		{"the cheapest device", 8, simulate.Least{Energy: 8 * power.Joule, Device: 0, InTime: true}},
		{"that is in time", 80, simulate.Least{Energy: 800 * power.Joule, Device: 1, InTime: true}},
		{"or if none is, the cheapest", 800, simulate.Least{Energy: 800 * power.Joule, Device: 0}},
	} {
		b := simulate.LowerBound(m, due(10*time.Second, 0), asks(c.tokens, 0))
		if b.Each[0] != c.want || b.Energy != c.want.Energy || (b.Infeasible == 1) == c.want.InTime {
			t.Errorf("%s: %+v, want %+v", c.rule, b, c.want)
		}
	}
	b := simulate.LowerBound(m, due(10*time.Second, 0), asks(8, 0, 0, 0))
	if b.Energy != 24*power.Joule || len(b.Each) != 3 {
		t.Errorf("nobody is in the way of another: %+v", b)
	}
}
