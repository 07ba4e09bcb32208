package residency_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/residency"
	"github.com/joulemux/joulemux/power"
)

const (
	mains   = power.Mains
	battery = power.Battery
)

// dgpu is a discrete GPU of which everything is known but the gaps.
var dgpu = residency.Holding{Class: power.NVIDIA, HoldDraw: 8 * power.Watt, LoadEnergy: 150 * power.Joule, SleepAfter: 10 * time.Second}

func TestKeep(t *testing.T) {
	unknown := residency.Holding{Class: power.NVIDIA}
	slow := dgpu
	slow.LoadEnergy = 15 * 1000 * power.Joule
	chatty, rare := dgpu, dgpu
	for range 20 {
		chatty.Gaps = chatty.Gaps.With(26 * time.Second)
		rare.Gaps = rare.Gaps.With(20 * time.Minute)
	}
	wanted := dgpu
	wanted.Waiting = 1
	npu := residency.Holding{Class: power.NPU, HoldDraw: power.Watt, LoadEnergy: 24 * power.Joule}
	cpu := residency.Holding{Class: power.CPU}
	for _, c := range []struct {
		name      string
		tier      power.Tier
		onBattery bool
		holding   residency.Holding
		want      time.Duration
		reason    residency.Reason
	}{
		{"a GPU on line power holds to the break-even", mains, false, dgpu, 18750 * time.Millisecond, residency.ReasonBreakEven},
		{"so does one of which nothing is known", mains, false, unknown, 18750 * time.Millisecond, residency.ReasonBreakEven},
		{"and a server on nobody knows what", mains, false, residency.Holding{Class: power.Unclassified}, 18750 * time.Millisecond, residency.ReasonBreakEven},
		{"on battery it holds nothing", battery, true, dgpu, 0, residency.ReasonOnBattery},
		{"the tier being what it may", mains, true, dgpu, 0, residency.ReasonOnBattery},
		{"unless somebody waits for it", battery, true, wanted, 18750 * time.Millisecond, residency.ReasonWaiting},
		{"as long as the tier permits", power.Critical, true, wanted, 10 * time.Second, residency.ReasonWaiting},
		{"a held tier is no battery", battery, false, dgpu, 18750 * time.Millisecond, residency.ReasonBreakEven},
		{"what is dear to load stays as long as it may", mains, false, slow, 5 * time.Minute, residency.ReasonTier},
		{"and not that long on a careful tier", power.Saver, false, slow, time.Minute, residency.ReasonTier},
		{"who comes back after 26 s is awaited for 30 s", mains, false, chatty, 30 * time.Second, residency.ReasonLearned},
		{"who comes back after 20 minutes is not, after 20 times", mains, false, rare, 1875 * time.Millisecond, residency.ReasonLearned},
		{"an NPU that draws to hold has its break-even", battery, true, npu, 24 * time.Second, residency.ReasonBreakEven},
		{"what takes nothing stays", battery, true, cpu, time.Hour, residency.ReasonFree},
		{"but not while the battery runs out", power.Low, true, cpu, 10 * time.Minute, residency.ReasonFree},
	} {
		rules := residency.DefaultRules()
		k := rules.Keep(c.tier, c.onBattery, c.holding)
		if k.For != c.want || k.Reason != c.reason {
			t.Errorf("%s: %v, want %v: %s", c.name, k, c.want, c.reason)
		}
		if k.Stop != c.holding.Class.Discrete() {
			t.Errorf("%s: to stop is %v", c.name, k.Stop)
		}
	}
}

func TestAUserMayHaveItHeldOnBattery(t *testing.T) {
	rules := residency.DefaultRules()
	rules.HoldOnBattery = true
	if k := rules.Keep(battery, true, dgpu); k.Reason != residency.ReasonBreakEven {
		t.Error(k)
	}
}

func TestKeepSaysWhyInNumbers(t *testing.T) {
	rules := residency.DefaultRules()
	for _, c := range []struct {
		holding residency.Holding
		want    string
	}{
		{dgpu, "stays 18.8s: holding it longer takes more than loading it (8.0 W held, 150 J to load)"},
		{residency.Holding{Class: power.NVIDIA, HoldDraw: 10 * power.Watt}, "stays 15s: holding it longer takes more than loading it (10.0 W held, 150 J to load, assumed)"},
		{residency.Holding{Class: power.CPU}, "stays 1h0m0s: holding it takes nothing here"},
	} {
		if got := rules.Keep(mains, false, c.holding).String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestClientsGetNoMoreThanTheVerdict(t *testing.T) {
	rules := residency.DefaultRules()
	gpu, cpu := rules.Keep(mains, false, dgpu), rules.Keep(mains, false, residency.Holding{Class: power.CPU})
	away := rules.Keep(battery, true, residency.Holding{Class: power.CPU})
	dying := rules.Keep(power.Critical, true, residency.Holding{Class: power.CPU})
	for _, c := range []struct {
		name  string
		keep  residency.Keep
		asked string
		want  time.Duration
		edit  bool
	}{
		{"nothing asked of what costs", gpu, "", gpu.For, true},
		{"for ever", gpu, "-1s", gpu.For, true},
		{"longer", gpu, "10m", gpu.For, true},
		{"shorter", gpu, "2s", 2 * time.Second, false},
		{"not at all", gpu, "0s", 0, false},
		{"nothing asked of what is free", cpu, "", time.Hour, false},
		{"nothing asked of what is free, on battery", away, "", time.Hour, true},
		{"for ever of what is free", cpu, "-1s", time.Hour, true},
		{"nothing asked while the battery runs out", dying, "", time.Minute, true},
	} {
		var asked *time.Duration
		if c.asked != "" {
			d, err := time.ParseDuration(c.asked)
			if err != nil {
				t.Fatal(err)
			}
			asked = &d
		}
		if got := c.keep.Within(asked); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if edit := c.keep.Edit(asked); (edit != nil) != c.edit || edit != nil && *edit != c.want {
			t.Errorf("%s: to set is %v", c.name, edit)
		}
	}
}

func TestTail(t *testing.T) {
	rules := residency.DefaultRules()
	known := dgpu
	for range 50 {
		known.Gaps = known.Gaps.With(12 * time.Second).With(time.Hour)
	}
	wanted := known
	wanted.Waiting = 1
	for _, c := range []struct {
		name    string
		holding residency.Holding
		keep    time.Duration
		joules  float64
	}{
		{"all of it while no gap is known", dgpu, 20 * time.Second, 8 * 30},
		{"which is the device's own delay at least", dgpu, 0, 8 * 10},
		{"until the next job, where that comes", known, 20 * time.Second, 8 * (11.0/2 + 30.0/2)},
		{"where jobs wait it is theirs", wanted, 20 * time.Second, 0},
		{"nothing where nothing draws", residency.Holding{Class: power.CPU, SleepAfter: time.Second}, time.Hour, 0},
		{"a GPU of which nothing is known", residency.Holding{Class: power.DiscreteGPU}, 10 * time.Second, 160},
	} {
		if got := rules.Tail(c.holding, c.keep).Joules(); math.Abs(got-c.joules) > 2 {
			t.Errorf("%s: %v J, want %v", c.name, got, c.joules)
		}
	}
	if got := rules.Tail(dgpu, math.MaxInt64); got <= 0 {
		t.Errorf("for ever takes %v", got)
	}
}

// habit returns somebody's gaps: some come back soon, some late, most do both.
func habit(seed uint64) func() time.Duration {
	r := rand.New(rand.NewPCG(seed, 7))
	median, spread, away := math.Exp(r.Float64()*6), 0.1+1.5*r.Float64(), r.Float64()*r.Float64()
	return func() time.Duration {
		s := median * math.Exp(spread*r.NormFloat64())
		if r.Float64() < away {
			s = 900 * r.ExpFloat64()
		}
		return time.Duration(min(s, 1e6) * float64(time.Second))
	}
}

// holding returns some device that it costs to hold a model on.
func holding(seed uint64) residency.Holding {
	r := rand.New(rand.NewPCG(seed, 8))
	return residency.Holding{
		Class: power.NVIDIA, HoldDraw: power.Watts(1 + 15*r.Float64()), LoadEnergy: power.Joules(10 + 600*r.Float64()),
		SleepAfter: time.Duration(r.Float64() * 15 * float64(time.Second)), Waiting: r.IntN(2) * r.IntN(3),
	}
}

// spent is what gaps take of who lets go of a model after keep.
func spent(h residency.Holding, gaps []time.Duration, keep time.Duration) (joules float64) {
	for _, gap := range gaps {
		joules += h.HoldDraw.For(min(gap, keep+h.SleepAfter)).Joules()
		if gap > keep {
			joules += h.LoadEnergy.Joules()
		}
	}
	return joules
}

// known is what they take of who knows how long each is.
func known(h residency.Holding, gaps []time.Duration) (joules float64) {
	for _, gap := range gaps {
		one := []time.Duration{gap}
		joules += min(spent(h, one, 0), spent(h, one, gap))
	}
	return joules
}

func TestBreakEvenIsNeverWorseThanTwiceTheBest(t *testing.T) {
	rules := residency.DefaultRules()
	worst := 0.0
	for seed := range uint64(2000) {
		h, draw := holding(seed), habit(seed)
		h.Waiting = 0
		k := rules.Keep(mains, false, h)
		if k.Reason != residency.ReasonBreakEven {
			continue // the tier permits no more, and the user has to answer for it
		}
		gaps := []time.Duration{k.For + 1} // the worst that can come
		for range 20 {
			gaps = append(gaps, draw())
		}
		for n := range gaps {
			ratio := spent(h, gaps[n:n+1], k.For) / known(h, gaps[n:n+1])
			if worst = max(worst, ratio); ratio > 2.000001 {
				t.Fatalf("seed %d: a gap of %v takes %v times what it has to, with %v", seed, gaps[n], ratio, k)
			}
		}
		if ratio := spent(h, gaps, k.For) / known(h, gaps); ratio > 2 {
			t.Fatalf("seed %d: %v times", seed, ratio)
		}
	}
	if worst < 1.9 {
		t.Errorf("the worst is %v: nothing came close to the bound", worst)
	}
}

func TestLearnedIsNeverExpectedToBeWorseThanBreakEven(t *testing.T) {
	rules := residency.DefaultRules()
	for seed := range uint64(500) {
		h, draw := holding(seed), habit(seed)
		h.Waiting = 0
		expected := func(keep time.Duration) float64 {
			return h.LoadEnergy.Joules()*h.Gaps.Longer(keep) + rules.Tail(h, keep).Joules()
		}
		even := rules.Keep(mains, false, h)
		for n := 1; n <= 60; n++ {
			h.Gaps = h.Gaps.With(draw())
			k := rules.Keep(mains, false, h)
			if n < rules.Samples {
				if k != even {
					t.Fatalf("seed %d: %v after %d gaps", seed, k, n)
				}
				continue
			}
			if e, b := expected(k.For), expected(even.For); e > b*1.000001 {
				t.Fatalf("seed %d: %v is expected to take %v J, %v takes %v J", seed, k, e, even, b)
			}
		}
	}
}

// Whatever comes, what was learned takes no more than it is trusted with.
func TestFewGapsCannotMisleadFar(t *testing.T) {
	rules := residency.DefaultRules()
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 6))
		h, draw := holding(seed), habit(seed)
		h.Waiting = 0
		if residency.BreakEven(h.LoadEnergy, h.HoldDraw) > rules.Tiers[mains].Costly {
			continue
		}
		n := rules.Samples + r.IntN(40)
		for range n {
			h.Gaps = h.Gaps.With(draw())
		}
		k := rules.Keep(mains, false, h)
		for _, gap := range []time.Duration{k.For, k.For + 1, k.For + h.SleepAfter, time.Hour, draw()} {
			gaps := []time.Duration{gap}
			if ratio := spent(h, gaps, k.For) / known(h, gaps); ratio > 1.001*(1+float64(n)/2) {
				t.Fatalf("seed %d: after %d gaps, one of %v takes %v times what it has to, with %v", seed, n, gap, ratio, k)
			}
		}
	}
}

func TestLearningIsWorthIt(t *testing.T) {
	rules := residency.DefaultRules()
	const people = 300
	var learned, even, best float64 // times what the clairvoyant takes
	for seed := range uint64(people) {
		h, draw := holding(seed), habit(seed)
		h.Waiting = 0
		unlearned := rules.Keep(mains, false, h)
		for range 40 {
			h.Gaps = h.Gaps.With(draw())
		}
		var gaps []time.Duration
		for range 300 {
			gaps = append(gaps, draw())
		}
		least := math.Inf(1)
		for keep := time.Duration(0); keep <= 5*time.Minute; keep += time.Second {
			least = min(least, spent(h, gaps, keep))
		}
		floor := people * known(h, gaps)
		learned += spent(h, gaps, rules.Keep(mains, false, h).For) / floor
		even += spent(h, gaps, unlearned.For) / floor
		best += least / floor
	}
	t.Logf("learned %.3f, break-even %.3f, the best that is always the same %.3f times the clairvoyant's energy", learned, even, best)
	if learned > 1.25 || even < 1.5 {
		t.Errorf("learned %.3f, break-even %.3f", learned, even)
	}
}

func TestMoreCarefulTiersKeepNoLonger(t *testing.T) {
	rules := residency.DefaultRules()
	classes := []power.DeviceClass{power.NVIDIA, power.DiscreteGPU, power.IntegratedGPU, power.NPU, power.CPU, power.Unclassified}
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 9))
		h, draw := holding(seed), habit(seed)
		h.Class = classes[r.IntN(len(classes))]
		for range r.IntN(40) {
			h.Gaps = h.Gaps.With(draw())
		}
		if r.IntN(4) == 0 {
			h.HoldDraw = 0
		}
		if r.IntN(4) == 0 {
			h.LoadEnergy = 0
		}
		for _, onBattery := range []bool{false, true} {
			last := rules.Keep(mains, onBattery, h)
			for _, tier := range power.Tiers()[1:] {
				k := rules.Keep(tier, onBattery, h)
				bound := rules.Tiers[tier].Costly
				if k.HoldDraw == 0 {
					bound = rules.Tiers[tier].Free
				}
				if k.For > last.For || k.For < 0 || k.For > bound {
					t.Fatalf("seed %d on %v: %v after %v, within %v: %+v", seed, tier, k, last, bound, h)
				}
				asked := time.Duration(r.Int64())
				if got := k.Within(&asked); got > k.For || got > asked {
					t.Fatalf("asked for %v of %v, got %v", asked, k, got)
				}
				if !strings.HasPrefix(k.String(), "stays ") || k.Reason == "" {
					t.Fatalf("no reason in %q", k)
				}
				last = k
			}
			if free, line := rules.Keep(mains, true, h), rules.Keep(mains, false, h); free.For > line.For {
				t.Fatalf("seed %d: %v on battery, %v on line power", seed, free, line)
			}
		}
	}
}
