package ledger

import (
	"math"
	"math/rand/v2"
	"testing"
	"testing/quick"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.Local)

// answer is a measured job: 2 s to load and 100 J, 0.5 s to read 50 tokens, 4 s
// to write 100, and 90 J for both.
func answer() Entry {
	return Entry{
		ID: "a", Arrived: noon.Add(-8 * time.Second), Ended: noon,
		Backend: "ollama-igpu", Model: "qwen2.5:0.5b", Hardware: power.IntegratedGPU, Client: "editor",
		Kind: job.Generate, Class: job.Interactive, Completion: true, Tier: power.Battery, OnBattery: true,
		PromptTokens: 50, Tokens: 100, MaxTokens: 200,
		Load: 2 * time.Second, Prefill: 500 * time.Millisecond, Decode: 4 * time.Second,
		FirstToken: 2600 * time.Millisecond, Total: 6600 * time.Millisecond,
		Cost: power.Cost{
			Energy: 190 * power.Joule, Gross: 230 * power.Joule, Load: 100 * power.Joule,
			Quality: power.Measured, Scope: "package", Source: "rapl", Uncertainty: 0.05, Coverage: 1, Shared: 1,
		},
	}
}

// but returns the answer changed.
func but(change func(*Entry)) Entry {
	e := answer()
	change(&e)
	return e
}

func TestOneJobTeachesItsFigures(t *testing.T) {
	l := Learned{}.With(answer())
	for name, got := range map[string][2]any{
		"energy per token written": {l.TokenEnergy.Value(), 800 * power.Joule / 1000},
		"energy per token read":    {l.PromptEnergy.Value(), 200 * power.Joule / 1000},
		"time per token written":   {l.TokenTime.Value(), 40 * time.Millisecond},
		"time per token read":      {l.PromptTime.Value(), 10 * time.Millisecond},
		"tokens written a second":  {l.DecodeRate(), 25.0},
		"tokens read a second":     {l.PrefillRate(), 100.0},
		"energy of loading":        {l.LoadEnergy.Value(), 100 * power.Joule},
		"time of loading":          {l.LoadTime.Value(), 2 * time.Second},
		"overhead":                 {l.Overhead.Value(), 100 * time.Millisecond},
		"jobs":                     {l.TokenEnergy.Count(), 1},
		"when":                     {l.TokenEnergy.Seen(), noon},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %v, want %v", name, got[0], got[1])
		}
	}
}

func TestWhatWasReadBeforeTeachesNothingOfReading(t *testing.T) {
	for cached, want := range map[int]struct {
		time   time.Duration
		energy power.Energy
		count  int
	}{
		40: {50 * time.Millisecond, power.Joule, 1},
		50: {0, 0, 0},
		60: {0, 0, 0}, // it tells nonsense
	} {
		l := Learned{}.With(but(func(e *Entry) { e.Cached = cached }))
		if l.PromptTime.Value() != want.time || l.PromptEnergy.Value() != want.energy || l.PromptTime.Count() != want.count || l.TokenTime.Count() != 1 {
			t.Errorf("of %d tokens: %v and %v", cached, l.PromptTime.Value(), l.PromptEnergy.Value())
		}
	}
}

func TestATimeOfWhichNobodyTellsWhatItWasIsNoOverhead(t *testing.T) {
	untold := but(func(e *Entry) { e.Load, e.Prefill, e.Decode = 0, 0, 0 })
	if l := (Learned{}).With(untold); l.Overhead.Count() != 0 {
		t.Errorf("it learned %v", l.Overhead.Value())
	}
}

func TestOnlyWhatIsKnownTeaches(t *testing.T) {
	tests := []struct {
		name          string
		entry         Entry
		energy, times bool // of a token written
	}{
		{"a measured job teaches both", answer(), true, true},
		{"so does a derived one", but(func(e *Entry) { e.Cost.Quality = power.Derived }), true, true},
		{"an estimate teaches no energy", but(func(e *Entry) { e.Cost.Quality = power.Estimated }), false, true},
		{"nor does what is unknown", but(func(e *Entry) { e.Cost.Quality = power.Unknown }), false, true},
		{"nor what was spent elsewhere", but(func(e *Entry) { e.Cost.Quality = power.None }), false, true},
		{"nor sensors that missed a part", but(func(e *Entry) { e.Cost.Coverage = 0.89 }), false, true},
		{"nor what may as well be another's", but(func(e *Entry) { e.Cost.Uncertainty = 0.9 }), false, true},
		{"an idle draw that nobody knows does no such harm", but(func(e *Entry) { e.Cost.Uncertainty = 0.6 }), true, true},
		{"a part that is small enough may be missing", but(func(e *Entry) { e.Cost.Coverage = 0.9 }), true, true},
		{"too short an answer teaches no rate", but(func(e *Entry) { e.Tokens = 7 }), false, false},
		{"eight tokens are enough", but(func(e *Entry) { e.Tokens = 8 }), true, true},
		{"what failed teaches nothing", but(func(e *Entry) { e.Failed = job.BackendFailed }), false, false},
		{"without times, energy cannot be divided", but(func(e *Entry) { e.Prefill, e.Decode = 0, 0 }), false, false},
		{"without a prompt it need not be", but(func(e *Entry) { e.PromptTokens, e.Prefill, e.Decode = 0, 0, 0 }), true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := Learned{}.With(tt.entry)
			if got := l.TokenEnergy.Count() == 1; got != tt.energy {
				t.Errorf("learned its energy: %v, want %v", got, tt.energy)
			}
			if got := l.TokenTime.Count() == 1; got != tt.times {
				t.Errorf("learned its times: %v, want %v", got, tt.times)
			}
		})
	}
}

func TestWhatIsLearnedTellsNoMoreThanWhatIsTold(t *testing.T) {
	finer := but(func(e *Entry) { e.Cost.Energy, e.Cost.Load = e.Cost.Energy-54_321, e.Cost.Load-12_345 })
	if got, want := (Learned{}).With(finer), (Learned{}).With(answer()); got != want {
		t.Errorf("learned %+v, and %+v from what callers cannot tell from it", got, want)
	}
}

func TestAnEmbeddingIsAllReading(t *testing.T) {
	l := Learned{}.With(but(func(e *Entry) { e.Tokens, e.Decode, e.Prefill = 0, 0, 0 }))
	if got, want := l.PromptEnergy.Value(), 90*power.Joule/50; got != want {
		t.Errorf("energy per token read is %v, want %v", got, want)
	}
}

func TestAResidentModelTeachesNoLoading(t *testing.T) {
	l := Learned{}.With(but(func(e *Entry) { e.Load, e.Cost.Load = 30*time.Millisecond, 0 }))
	if l.LoadTime.Count() != 0 || l.LoadEnergy.Count() != 0 {
		t.Errorf("learned that loading takes %v, %v", l.LoadTime.Value(), l.LoadEnergy.Value())
	}
}

func TestReadingAndWritingTakeWhatTheJobTook(t *testing.T) {
	check := func(joules, load, prefill, decode uint16, prompt, tokens uint8) bool {
		e := but(func(e *Entry) {
			e.Cost.Load = power.Energy(load) * power.Joule / 10
			e.Cost.Energy = e.Cost.Load + power.Energy(joules)*power.Joule/10
			e.Prefill, e.Decode = time.Duration(1+prefill)*time.Millisecond, time.Duration(1+decode)*time.Millisecond
			e.PromptTokens, e.Tokens = learnTokens+int(prompt), learnTokens+int(tokens)
		})
		l := Learned{}.With(e)
		sum := l.TokenEnergy.mean.value*float64(e.Tokens) + l.PromptEnergy.mean.value*float64(e.PromptTokens)
		work := float64(e.Cost.Energy - e.Cost.Load)
		return math.Abs(sum-work) <= float64(e.Tokens+e.PromptTokens) // a microjoule per token
	}
	if err := quick.Check(check, nil); err != nil {
		t.Error(err)
	}
}

// samples are figures as they may occur, from nothing to absurd.
func samples(r *rand.Rand, n int) []power.Energy {
	all := make([]power.Energy, n)
	for i := range all {
		all[i] = power.Energy(math.Exp(r.Float64()*30) - 1)
	}
	return all
}

func averageOf(all []power.Energy) Average[power.Energy] {
	var a Average[power.Energy]
	for i, s := range all {
		a = a.With(s, noon.Add(time.Duration(i)))
	}
	return a
}

func TestAnAverageStaysWithinItsSamples(t *testing.T) {
	check := func(seed uint64, n uint8) bool {
		all := samples(rand.New(rand.NewPCG(seed, 0)), 1+int(n))
		least, most := all[0], all[0]
		var a Average[power.Energy]
		for i, s := range all {
			least, most = min(least, s), max(most, s)
			a = a.With(s, noon)
			if a.Value() < least || a.Value() > most || a.Count() != i+1 {
				t.Logf("%v of %d is outside of %v to %v", a.Value(), a.Count(), least, most)
				return false
			}
		}
		return true
	}
	if err := quick.Check(check, nil); err != nil {
		t.Error(err)
	}
}

func TestAFewSamplesCountAlike(t *testing.T) {
	check := func(seed uint64, n uint8) bool {
		r := rand.New(rand.NewPCG(seed, 0))
		all := samples(r, 1+int(n)%memory)
		a := averageOf(all)
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		b := averageOf(all)
		return math.Abs(a.mean.value-b.mean.value) <= 1e-9*a.mean.value
	}
	if err := quick.Check(check, nil); err != nil {
		t.Error(err)
	}
}

func TestThePastFades(t *testing.T) {
	all := make([]power.Energy, 100)
	for i := range all {
		all[i] = 10 * power.Joule
	}
	for range 60 {
		all = append(all, 2*power.Joule)
	}
	// What a hundred jobs taught is a fiftieth of the figure after 60 others.
	if got := averageOf(all).Value(); got > 2200*power.Joule/1000 {
		t.Errorf("%v after 60 jobs at 2 J, want less than 2.2 J", got)
	}
}

func TestNoSampleIsNoRate(t *testing.T) {
	if l := (Learned{}); l.DecodeRate() != 0 || l.PrefillRate() != 0 {
		t.Error("a rate was made up")
	}
}

func TestBetterKeepsWhatIsBasedOnMore(t *testing.T) {
	a := Learned{}.With(answer()).With(answer())
	b := Learned{}.With(but(func(e *Entry) { e.Tokens, e.Load = 5, 0 }))
	b.Overhead = averageOfTimes(1, 2, 3)
	got := better(a, b)
	if got.TokenTime != a.TokenTime || got.LoadTime != a.LoadTime || got.Overhead != b.Overhead {
		t.Errorf("got %+v", got)
	}
}

func TestWhatHoldingTookLongAgoIsForgotten(t *testing.T) {
	l := Learned{}.withHeld(8*power.Watt, noon).withHeld(8*power.Watt, noon.Add(HeldBelieved))
	if l.HoldDraw.Count() != 2 {
		t.Errorf("in time it was %+v", l.HoldDraw)
	}
	if l = l.withHeld(20*power.Watt, noon.Add(2*HeldBelieved+1)); l.HoldDraw.Count() != 1 || l.HoldDraw.Value() != 20*power.Watt {
		t.Errorf("got %+v", l.HoldDraw)
	}
}

func averageOfTimes(all ...time.Duration) (a Average[time.Duration]) {
	for _, d := range all {
		a = a.With(d, noon)
	}
	return a
}

func TestNothingIsLearnedFromWhatWasNotWorkedOn(t *testing.T) {
	e := Entry{Backend: Cache, Kind: job.Chat, Tokens: 50, PromptTokens: 50, Decode: time.Second, Prefill: time.Second, FirstToken: time.Second}
	if l := (Learned{}).With(e); l != (Learned{}) {
		t.Errorf("got %+v", l)
	}
}
