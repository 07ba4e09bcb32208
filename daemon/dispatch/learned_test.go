package dispatch_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/power"
)

// taught is what jobs teach that have each taken so much per token, at so many
// tokens per second.
func taught(jobs int, perToken power.Energy, rate int) (l ledger.Learned) {
	for range jobs {
		const tokens = 100
		l = l.With(ledger.Entry{
			Ended: time.Now(), PromptTokens: tokens, Tokens: tokens,
			Prefill: time.Second, Decode: tokens * time.Second / time.Duration(rate), FirstToken: 1100 * time.Millisecond,
			Cost: power.Cost{
				Energy:  power.Energy(tokens) * perToken * power.Energy(tokens/rate+1) / power.Energy(tokens/rate),
				Quality: power.Measured, Coverage: 1,
			},
		})
	}
	return l
}

func plugIn(t *testing.T, r *rig) {
	t.Helper()
	_ = r.tiers.Supply(t.Context(), power.Supply{Source: "upower"})
}

func TestWhatJobsTookStandsForWhatWasAssumed(t *testing.T) {
	// On battery, by the priors: the igpu needs 119 J and 9.9 s, the npu 66 J and
	// 21.9 s, and a second is worth 15 J.
	for rule, c := range map[string]struct {
		learned map[string]ledger.Learned
		change  func(*testing.T, *rig)
		want    string
		quality power.Quality
	}{
		"nothing is known": {nil, nil, "ollama-igpu", power.Estimated},
		"a backend that takes more than was assumed loses": {
			map[string]ledger.Learned{"ollama-igpu": taught(3, 5*power.Joule, 20)}, nil, "ollama-npu", power.Estimated,
		},
		"one that takes less wins": {
			map[string]ledger.Learned{"ollama-npu": taught(3, power.Joule/10, 20)}, nil, "ollama-npu", power.Derived,
		},
		"two jobs are too few": {
			map[string]ledger.Learned{"ollama-igpu": taught(2, 5*power.Joule, 20)}, nil, "ollama-igpu", power.Estimated,
		},
		"on line power other figures count": {
			map[string]ledger.Learned{"ollama-nvidia": taught(3, 50*power.Joule, 20)},
			func(t *testing.T, r *rig) {
				r.onLine = map[string]ledger.Learned{"ollama-nvidia": taught(3, power.Joule, 50)}
				plugIn(t, r)
			}, "ollama-nvidia", power.Derived,
		},
		"unless there are none yet": {
			map[string]ledger.Learned{"ollama-nvidia": taught(3, 50*power.Joule, 20)}, plugIn, "ollama-igpu", power.Estimated,
		},
		"unless nothing is to be learned": {
			map[string]ledger.Learned{"ollama-igpu": taught(3, 5*power.Joule, 20)},
			func(_ *testing.T, r *rig) {
				s := dispatch.DefaultSettings()
				s.Learn = false
				r.Configure(s)
			}, "ollama-igpu", power.Estimated,
		},
	} {
		scenario(t, nil, func(t *testing.T, r *rig) {
			r.learned = c.learned
			if c.change != nil {
				c.change(t, r)
				time.Sleep(5 * time.Second) // line power has to be steady
				synctest.Wait()
			}
			s := new(sink)
			if err := r.Run(t.Context(), chat(), s); err != nil {
				t.Fatal(err)
			}
			if d := s.report.Decision; d.Backend != c.want || d.Quality != c.quality {
				t.Errorf("%s: it went to %s, by figures that are %s: %s", rule, d.Backend, d.Quality, d.Reason())
			}
		})
	}
}

// told are answers of so many tokens each that a program got yesterday.
func told(n, tokens int) (list []ledger.Entry) {
	for range n {
		list = append(list, ledger.Entry{
			Ended: time.Now().Add(-24 * time.Hour), Model: "m:latest", Kind: job.Chat, Class: job.Interactive, Client: "editor", Tokens: tokens,
		})
	}
	return list
}

func TestAnswersOfOtherDaysTellHowLongTheNextIs(t *testing.T) {
	expected := func(t *testing.T, r *rig) int {
		j := chat()
		j.Client = "editor"
		d, err := r.Explain(t.Context(), j, nil)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // what was asked of the ledger is there
		return d.Job().Expected().Median()
	}
	scenario(t, nil, func(t *testing.T, r *rig) {
		r.earlier = told(100, 12)
		first := expected(t, r)
		if prior := chat().Expected().Median(); first != prior {
			t.Errorf("whoever asks first waited for the ledger: %d tokens are expected of him, and not %d", first, prior)
		}
		if got := expected(t, r); got != 12 {
			t.Errorf("%d tokens are expected", got)
		}
	})
	scenario(t, nil, func(t *testing.T, r *rig) {
		s := dispatch.DefaultSettings()
		s.Learn = false
		r.Configure(s)
		r.earlier = told(100, 12)
		expected(t, r)
		if got := expected(t, r); got == 12 {
			t.Error("it is learned from what was not to be")
		}
	})
}

func TestWhatAJobWasIsRecorded(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		j := chat()
		j.Completion, j.MaxTokens = true, 50
		expect(t, r, j, "ollama-igpu")
		if e := r.entries[0]; e.Kind != job.Chat || !e.Completion || e.MaxTokens != 50 {
			t.Errorf("recorded is %+v", e)
		}
	})
}

func TestACostThatNoSensorTellsIsByTheDrawThatWasLearned(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		r.learned = map[string]ledger.Learned{"ollama-igpu": taught(3, power.Joule/2, 20)}
		j := chat()
		j.Target = "igpu"
		s := expect(t, r, j, "ollama-igpu")
		// Half a joule a token at 20 tokens per second is 10 W.
		if c := s.report.Cost; c.Source != "10.0 W learned x 3.00 s" || c.Quality != power.Estimated {
			t.Errorf("the cost is %+v", c)
		}
	})
}

func TestAFrozenRunnerIsGivenTheTimeThatWasLearned(t *testing.T) {
	scenario(t, func(r *rig) { r.igpu.script = silent(time.Minute) }, func(t *testing.T, r *rig) {
		r.learned = map[string]ledger.Learned{"ollama-igpu": taught(3, power.Joule/10, 1)}
		j := chat()
		j.MaxTokens, j.Target, j.Stream = 20, "igpu", false
		// Twenty tokens at one per second: a minute of silence is no failure.
		_ = r.Run(t.Context(), j, new(sink))
		if e := r.entries[0]; e.Failed != "" && e.Total < 30*time.Second {
			t.Errorf("given up after %v: %s", e.Total, e.Failed)
		}
	})
}

func TestLearnedFiguresMakeTheEstimate(t *testing.T) {
	c := job.Candidate{
		Model: &job.Model{Size: 4e9},
		Profile: job.Profile{
			Draw: 10 * power.Watt, FirstToken: time.Second, Prefill: 100, Decode: 10, LoadRate: 1e9,
		},
	}
	j := job.Job{Kind: job.Chat, PromptBytes: 400}
	assumed := c.Estimate(&j, 50)
	if assumed.Load != 5*time.Second || assumed.FirstToken != 7*time.Second || assumed.Total != 12*time.Second || assumed.Energy != 120*power.Joule {
		t.Errorf("by assumptions: %+v", assumed)
	}
	c.Profile.LoadTime, c.Profile.LoadEnergy = 2*time.Second, 30*power.Joule
	c.Profile.TokenEnergy, c.Profile.PromptEnergy = 2*power.Joule, power.Joule/10
	if e := c.Estimate(&j, 50); e.Load != 2*time.Second || e.Total != 9*time.Second || e.Energy != (30+10+100)*power.Joule {
		t.Errorf("by what was learned: %+v", e)
	}
	c.Model.Resident, j.Kind = true, job.Embed
	if e := c.Estimate(&j, 50); e.Total != 2*time.Second || e.Energy != 10*power.Joule {
		t.Errorf("of an embedding, with the model there: %+v", e)
	}
}
