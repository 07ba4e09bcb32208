package simulate_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/daemon/simulate"
	"github.com/joulemux/joulemux/power"
)

func optimal(t *testing.T, m *simulate.Machine, rules *route.Rules, requests []simulate.Request) simulate.Optimum {
	t.Helper()
	o, err := simulate.Optimal(m, rules, requests)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOptimumOfOneDevice(t *testing.T) {
	held := plain()
	held.Hold, held.Load, held.LoadDraw = 2*power.Watt, 5*time.Second, 10*power.Watt // 50 J: 25 s
	sleepy := held
	sleepy.SleepAfter = 10 * time.Second // another 20 J: 35 s
	exactly, soon, late := due(0, time.Second), due(30*time.Second, time.Second), due(10*time.Minute, 0)
	byClass := &route.Rules{
		Chat: exactly.Chat, Completion: route.Due{After: 25 * time.Second}, Background: route.Due{After: 100 * time.Second},
	}
	mixed := []simulate.Request{
		{Output: 4, Class: simulate.Background},
		{At: 5 * time.Second, Output: 4, Class: simulate.Completion},
		{At: 34 * time.Second, Output: 4, Class: simulate.Interactive},
	}
	for _, c := range []struct {
		rule   string
		device simulate.Device
		rules  *route.Rules
		ask    []simulate.Request
		want   simulate.Optimum
	}{
		{"loads once, in advance", held, exactly, asks(10, 0), simulate.Optimum{Energy: 60 * power.Joule}},
		{"keeps ready for a short while", held, exactly, asks(10, 0, 30), simulate.Optimum{Energy: (70 + 40) * power.Joule}},
		{"and reloads after a long one", held, exactly, asks(10, 0, 60), simulate.Optimum{Energy: (70 + 50) * power.Joule}},
		{"the break-even is between", held, exactly, asks(10, 0, 35), simulate.Optimum{Energy: (70 + 50) * power.Joule}},
		{"sleep that comes late is paid for", sleepy, exactly, asks(10, 0, 40), simulate.Optimum{Energy: (90 + 60) * power.Joule}},
		{"each time", sleepy, exactly, asks(10, 0, 300), simulate.Optimum{Energy: (90 + 70) * power.Joule}},
		{"who has the time waits for the next", held, late, asks(10, 0, 60), simulate.Optimum{Energy: 70 * power.Joule}},
		{"as long as that is in time", held, soon, asks(10, 0, 50), simulate.Optimum{Energy: (70 + 20) * power.Joule}},
		{"who has more of it lets the others go first", held, byClass, mixed, simulate.Optimum{Energy: 62 * power.Joule}},
		{"two at once are late", held, exactly, asks(10, 0, 0), simulate.Optimum{Late: 1, Energy: 70 * power.Joule}},
		{"the short one goes first", plain(), due(10*time.Second, 0), append(asks(9, 0), asks(1, 0)...), simulate.Optimum{Energy: 10 * power.Joule}},
		{"one that is late lets all others go first", plain(), due(10*time.Second, 0), append(asks(11, 0), asks(3, 0, 0, 0)...), simulate.Optimum{Late: 1, Energy: 20 * power.Joule}},
		{"nothing asked, nothing done", held, exactly, nil, simulate.Optimum{}},
	} {
		if got := optimal(t, machine(c.device), c.rules, c.ask); got != c.want {
			t.Errorf("%s: %v, want %v", c.rule, got, c.want)
		}
	}
}

func TestOptimumOfSeveralDevices(t *testing.T) {
	dear := plain()
	dear.DecodeDraw = 3 * power.Watt
	m := machine(plain(), dear)
	got := optimal(t, m, due(0, time.Second), asks(10, 0, 5, 10))
	if want := (simulate.Optimum{Energy: (10 + 30 + 10) * power.Joule}); got != want {
		t.Errorf("who is in the way goes elsewhere: %v, want %v", got, want)
	}
	if _, err := simulate.Optimal(m, due(0, 0), asks(1, make([]float64, 9)...)); err == nil {
		t.Error("takes more requests than it can look through")
	}
	if _, err := simulate.Optimal(machine(), due(0, 0), nil); err == nil {
		t.Error("knows the optimum of no device")
	}
}

// Of whole seconds only, the optimum begins at whole seconds: every bound on
// the times is one, and they differ by what answers take. So it can be found
// by trying them all.
func TestTryingEverythingFindsNothingBetter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	whole := func(n int) time.Duration { return time.Duration(r.IntN(n)) * time.Second }
	late := 0
	for range 80 {
		m, n := machine(), 1+r.IntN(4)
		for range 1 + r.IntN(2)*r.IntN(5-n) { // four requests on one device, or three on two
			d := plain()
			d.DecodeDraw = power.Power(1+r.IntN(9)) * power.Watt
			d.Hold = power.Power(r.IntN(4)) * power.Watt
			d.Load, d.LoadDraw, d.SleepAfter = whole(4), d.Hold+power.Power(r.IntN(3))*power.Watt, whole(4)
			m.Devices = append(m.Devices, d)
		}
		var requests []simulate.Request
		at := time.Duration(0)
		for range n {
			at += whole(6)
			requests = append(requests, simulate.Request{At: at, Output: 1 + r.IntN(3), Class: simulate.Interactive})
		}
		rules := due(whole(12), whole(3))
		got, want := optimal(t, m, rules, requests), tryAll(m, rules, requests)
		if got != want {
			t.Fatalf("%v, but there is %v\n%+v\n%+v\n%+v", got, want, m.Devices, requests, rules.Chat)
		}
		late += got.Late
	}
	if late == 0 {
		t.Error("nobody was ever late")
	}
}

// stay is where and when a request is answered.
type stay struct{ device, from, to int }

// tryAll tries all devices and seconds for all requests.
func tryAll(m *simulate.Machine, rules *route.Rules, requests []simulate.Request) simulate.Optimum {
	best := simulate.Optimum{Late: len(requests) + 1}
	horizon := int(requests[len(requests)-1].At/time.Second) + 14 // all of the answers, and a little more
	var try func(stays []stay, late int)
	try = func(stays []stay, late int) {
		if len(stays) == len(requests) {
			if e := energy(m, requests, stays); late < best.Late || late == best.Late && e < best.Energy {
				best = simulate.Optimum{Late: late, Energy: e}
			}
			return
		}
		r := &requests[len(stays)]
		for device := range m.Devices {
			for from := int(r.At / time.Second); from < horizon; from++ {
				s := stay{device, from, from + r.Output}
				if !free(stays, s) {
					continue
				}
				missed := 0
				if time.Duration(s.to)*time.Second > r.At+r.Due(rules) {
					missed = 1
				}
				try(append(stays, s), late+missed)
			}
		}
	}
	try(nil, 0)
	return best
}

func free(stays []stay, s stay) bool {
	for _, o := range stays {
		if o.device == s.device && s.from < o.to && o.from < s.to {
			return false
		}
	}
	return true
}

// energy is what that takes, with the best choice for each time between two
// stays on a device.
func energy(m *simulate.Machine, requests []simulate.Request, stays []stay) (sum power.Energy) {
	for i := range m.Devices {
		d := &m.Devices[i]
		used := false
		for at, s := range stays {
			if s.device != i {
				continue
			}
			_, e := d.Service(&requests[at])
			sum += e
			used = true
			next := -1
			for _, o := range stays {
				if o.device == i && o.from >= s.to && (next < 0 || o.from < next) {
					next = o.from
				}
			}
			if next >= 0 {
				sum += between(d, time.Duration(next-s.to)*time.Second)
			}
		}
		if used {
			sum += d.LoadEnergy() + d.Hold.For(d.SleepAfter)
		}
	}
	return sum
}

func between(d *simulate.Device, gap time.Duration) power.Energy {
	held := d.Hold.For(gap)
	if gap < d.Load {
		return held
	}
	return min(held, d.LoadEnergy()+d.Hold.For(min(d.SleepAfter, gap-d.Load)))
}

func TestNoOptimumIsBelowTheBound(t *testing.T) {
	rules := route.DefaultRules()
	m := hybrid()
	r := rand.New(rand.NewPCG(3, 4))
	for range 30 {
		requests := random(r, 5)
		bound := simulate.LowerBound(&m, &rules, requests)
		if got := optimal(t, &m, &rules, requests); got.Late == 0 && got.Energy < bound.Energy {
			t.Errorf("%v is below %v", got, bound.Energy)
		} else if got.Late < bound.Infeasible {
			t.Errorf("%d late of %d that must be", got.Late, bound.Infeasible)
		}
	}
}

func TestAnotherDeviceNeverHarms(t *testing.T) {
	rules := route.DefaultRules()
	r := rand.New(rand.NewPCG(5, 6))
	for range 30 {
		all, requests := hybrid(), random(r, 5)
		r.Shuffle(len(all.Devices), func(i, j int) { all.Devices[i], all.Devices[j] = all.Devices[j], all.Devices[i] })
		var before simulate.Optimum
		for n := range all.Devices {
			now := optimal(t, machine(all.Devices[:n+1]...), &rules, requests)
			if n > 0 && (now.Late > before.Late || now.Late == before.Late && now.Energy > before.Energy) {
				t.Errorf("with %s %v, and %v without", all.Devices[n].ID, now, before)
			}
			before = now
		}
	}
}

func TestReadinessNeverHarms(t *testing.T) {
	rules, cold := route.DefaultRules(), hybrid()
	warm, ready := cold.ReadyWhereFree(), cold.AlwaysReady()
	r := rand.New(rand.NewPCG(7, 8))
	for range 20 {
		requests := random(r, 5)
		a, b, c := optimal(t, &cold, &rules, requests), optimal(t, &warm, &rules, requests), optimal(t, &ready, &rules, requests)
		if a.Late != b.Late || b.Late != c.Late || a.Energy < b.Energy || b.Energy < c.Energy {
			t.Errorf("cold %v, warm %v, always ready %v", a, b, c)
		}
	}
}

func TestTightness(t *testing.T) {
	dear := plain()
	dear.DecodeDraw = 2 * power.Watt
	m, rules := machine(plain(), dear), due(0, time.Second)
	got, err := simulate.Tight(m, rules, [][]simulate.Request{
		asks(10, 0, 10), asks(10, 0, 20), // in nobody's way
		asks(10, 0, 5),    // 30 J for 20 J
		asks(10, 0, 5, 6), // one too many
	})
	want := simulate.Tightness{Windows: 4, InTime: 3, Median: 1, P95: 1.5, Max: 1.5, Equal: 2. / 3}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if got, err := simulate.Tight(m, rules, nil); err != nil || got != (simulate.Tightness{}) {
		t.Errorf("of nothing: %+v, %v", got, err)
	}
}

func TestWindows(t *testing.T) {
	all := asks(1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	for _, c := range []struct {
		size, most int
		want       []time.Duration // when they begin, in seconds
	}{
		{4, 3, []time.Duration{0, 3, 6}},
		{4, 1, []time.Duration{0}},
		{9, 5, []time.Duration{0, 0}},
		{11, 5, nil},
	} {
		got := simulate.Windows(all, c.size, c.most)
		if len(got) != len(c.want) {
			t.Errorf("%d windows of %d", len(got), c.size)
			continue
		}
		for i, w := range got {
			if len(w) != c.size || w[0].At != c.want[i]*time.Second {
				t.Errorf("window %d is %v", i, w)
			}
		}
	}
}
