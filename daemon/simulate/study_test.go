package simulate_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/joulemux/joulemux/daemon/simulate"
)

// study is the published comparison, of the baselines.
func study(t *testing.T, seeds int) simulate.Study {
	t.Helper()
	m, err := simulate.Named("hybrid")
	if err != nil {
		t.Fatal(err)
	}
	return simulate.Study{
		Machine: m, Traces: simulate.Seeds(seeds, simulate.DefaultWorkload()), Options: simulate.DefaultOptions(),
		Policies: simulate.Baselines(), Reference: policy(t, simulate.Reference),
	}
}

func summaries(t *testing.T, s simulate.Study) map[string]simulate.Summary {
	t.Helper()
	list, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]simulate.Summary)
	for _, one := range list {
		named[one.Policy] = one
	}
	return named
}

// TestBaselinesAreAsThePrototypeHadThem compares with 40 runs of an earlier
// simulation of the same machine, whose traces had another generator's random
// numbers and whose GPU may have slept at once.
func TestBaselinesAreAsThePrototypeHadThem(t *testing.T) {
	got := summaries(t, study(t, 40))
	for name, want := range map[string]struct{ ratio, missed, hold float64 }{
		"ollama":     {9.6, 0, 0.78},
		"break-even": {3.65, 0.004, 0.26},
		"watts":      {0.28, 0.458, 0},
		"fixed":      {1.43, 0.148, 0},
	} {
		s := got[name]
		if math.Abs(math.Log(s.Ratio.Median/want.ratio)) > math.Log(1.25) {
			t.Errorf("%s: %.2f times the bound, want about %.2f", name, s.Ratio.Median, want.ratio)
		}
		if math.Abs(s.Missed-want.missed) > 0.06 || math.Abs(s.HoldShare-want.hold) > 0.1 {
			t.Errorf("%s: %.3f missed and %.2f held, want about %.3f and %.2f", name, s.Missed, s.HoldShare, want.missed, want.hold)
		}
	}
	if s := got[simulate.Reference]; s.Against.P10 != 1 || s.Against.P95 != 1 || s.Emptied != 0 || s.Infeasible != 0 {
		t.Errorf("the reference is %+v", s)
	}
}

func TestStudyIsTheSameOnAnyNumberOfProcessors(t *testing.T) {
	s := study(t, 6)
	many := summaries(t, s)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if one := summaries(t, s); !reflect.DeepEqual(one, many) {
		t.Error("they differ")
	}
}

func TestStudyEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := study(t, 2)
	if _, err := s.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestVariationsLeaveTheStudyAsItIs(t *testing.T) {
	s := study(t, 1)
	was := study(t, 1)
	ratio := make(map[string]float64)
	for _, v := range simulate.Variations(&s.Machine) {
		ratio[v.Name] = summaries(t, v.Of(s))["break-even"].Ratio.Median
	}
	s.Policies, was.Policies = nil, nil // functions are never equal
	s.Reference, was.Reference = simulate.Policy{}, simulate.Policy{}
	if !reflect.DeepEqual(s, was) {
		t.Error("a variation has changed it")
	}
	if ratio["as it is"] != ratio["hold 8 W"] || ratio["as it is"] != ratio["load 5s"] {
		t.Errorf("what changes nothing changes something: %v", ratio)
	}
	rising := []string{"hold 4 W", "hold 8 W", "hold 14 W"}
	for i, of := range append(rising, "load 2s", "load 5s", "load 15s")[1:] {
		if before := append(rising, "load 2s", "load 5s", "load 15s")[i]; of != "load 2s" && ratio[before] >= ratio[of] {
			t.Errorf("%s takes no more than %s: %v", of, before, ratio)
		}
	}
	if ratio["GPU awake 10s more"] <= ratio["as it is"] {
		t.Errorf("to stay awake takes nothing: %v", ratio)
	}
}

func TestFiguresAreLearnedFromJobs(t *testing.T) {
	s := study(t, 10)
	s.Options.Figures, s.Options.Noise = simulate.FiguresLearned, 0.05
	for i := range s.Traces {
		r, err := simulate.Run(&s.Machine, &s.Traces[i], policy(t, "break-even"), &s.Options)
		if err != nil {
			t.Fatal(err)
		}
		if fit := simulate.Fit(r.Jobs[len(r.Jobs)/2:]); fit < 0.96 {
			t.Errorf("trace %d: R² of predicted against measured joules is %.3f", i, fit)
		}
		if r.Jobs[0].Predicted == r.Jobs[0].Energy || r.Jobs[0].Measured == r.Jobs[0].Energy {
			t.Errorf("trace %d: the first job is %+v", i, r.Jobs[0])
		}
	}
}

// TestPredictedJoulesAreThoseMeasured has machines begin with what is assumed
// of their classes, and learn from measurements that are off by 5 %. The later
// halves of their days are what is predicted, each job before it is learned from.
func TestPredictedJoulesAreThoseMeasured(t *testing.T) {
	for _, name := range simulate.Shipped() {
		m, err := simulate.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []simulate.LinePower{simulate.NeverOnLine, simulate.FlipsLine, simulate.AlwaysOnLine} {
			w := simulate.DefaultWorkload()
			w.Line = line
			o := simulate.DefaultOptions()
			o.Figures, o.Noise = simulate.FiguresLearned, 0.05
			var all []simulate.Job
			var fits []float64
			for seed := range uint64(40) {
				trace := simulate.Generate(seed, w)
				o.Seed = seed
				r, err := simulate.Run(&m, &trace, simulate.Joulemux(), &o)
				if err != nil {
					t.Fatal(err)
				}
				later := r.Jobs[len(r.Jobs)/2:]
				all, fits = append(all, later...), append(fits, simulate.Fit(later))
			}
			pooled, of := simulate.Fit(all), simulate.SpreadOf(fits)
			t.Logf("%s, line power %s: R² is %.4f over %d jobs, and in a run %.4f in the median, %.4f in one of ten and %.4f in the worst;%s",
				name, line, pooled, len(all), of.Median, of.P10, slices.Min(fits), byDevice(&m, all))
			if pooled < 0.96 {
				t.Errorf("%s, line power %s: R² of predicted against measured joules is %.4f", name, line, pooled)
			}
		}
	}
}

// byDevice says how jobs fit on each device.
func byDevice(m *simulate.Machine, all []simulate.Job) (says string) {
	for _, d := range m.Devices {
		on := slices.DeleteFunc(slices.Clone(all), func(j simulate.Job) bool { return j.Fate != simulate.Answered || j.Backend != d.ID })
		if len(on) > 1 {
			says += fmt.Sprintf(" %s %.4f of %d", d.ID, simulate.Fit(on), len(on))
		}
	}
	return says
}
