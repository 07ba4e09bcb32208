package dispatch_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// anyLeave is what a user may have said of who may leave.
func anyLeave(r *rand.Rand) *job.Leave {
	return &job.Leave{
		When:    []job.When{"", job.WhenNamed, job.WhenNeeded, job.WhenCheaper}[r.IntN(4)],
		Clients: [][]string{nil, {"editor"}, {"editor", "mail"}, {job.Anybody}}[r.IntN(4)],
		Classes: [][]job.Class{nil, {job.Interactive}, {job.Background}, {job.Interactive, job.Background}}[r.IntN(4)],
	}
}

// stays says why j may not leave, or "".
func stays(l *job.Leave, j job.Job) string {
	named := j.Target == "cloud" || j.Target == "ollama-cloud"
	switch {
	case !slices.Contains(l.Clients, job.Anybody) && (!j.Vouched || j.Client == "" || !slices.Contains(l.Clients, j.Client)):
		return "its client may not"
	case !slices.Contains(l.Classes, j.Class):
		return "its class may not"
	case !named && (j.Kind == job.Embed || l.When != job.WhenNeeded && l.When != job.WhenCheaper):
		return "it does not name it"
	default:
		return ""
	}
}

// TestNothingLeavesWithoutLeave runs jobs of all kinds on servers here that fail at
// random: whatever the user says, at first and in fallback, nothing is sent
// elsewhere that may not be.
func TestNothingLeavesWithoutLeave(t *testing.T) {
	left, kept := 0, 0
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			leave := anyLeave(r)
			h := newRig(t, func(h *rig) {
				h.leave = leave
				for _, s := range []*server{h.npu, h.igpu, h.nvidia, h.cpu, h.cloud} {
					s.script = erratic(rand.New(rand.NewPCG(seed, r.Uint64())))
				}
				h.cloud.check = func(j job.Job) {
					if why := stays(leave, j); why != "" {
						t.Errorf("seed %d: a job leaves, and %s: %+v of %+v", seed, why, j, leave)
					}
				}
			})
			var jobs sync.WaitGroup
			for range 20 {
				g := someone(r)
				g.Client, g.Vouched = []string{"", "editor", "mail", "*"}[r.IntN(4)], r.IntN(3) > 0
				g.Kind = []job.Kind{job.Chat, job.Chat, job.Embed}[r.IntN(3)]
				if r.IntN(3) == 0 {
					g.Target = []string{"cloud", "ollama-cloud"}[r.IntN(2)]
				}
				if stays(leave, g.Job) != "" {
					kept++
				}
				jobs.Go(func() { g.run(t, h) })
			}
			jobs.Wait()
			left += h.cloud.count()
		})
	}
	if left == 0 || kept == 0 {
		t.Errorf("%d jobs left, and %d might not have", left, kept)
	}
}

func TestAFallbackLeavesOnlyByLeave(t *testing.T) {
	for client, want := range map[string]error{"editor": nil, "mail": job.BackendFailed} {
		synctest.Test(t, func(t *testing.T) {
			h := newRig(t, func(h *rig) {
				h.leave = &job.Leave{When: job.WhenNeeded, Clients: []string{"editor"}, Classes: []job.Class{job.Interactive}}
				for _, s := range []*server{h.npu, h.igpu, h.nvidia, h.cpu} {
					s.script = fails(job.BackendFailed, "boom")
				}
			})
			j := chat()
			j.Client, j.Vouched = client, true
			var out sink
			err := h.Run(t.Context(), j, &out)
			if !errors.Is(err, want) {
				t.Errorf("%s: %v", client, err)
			}
			if sent := h.cloud.count() > 0; sent != (want == nil) {
				t.Errorf("%s: it leaves: %v", client, sent)
			}
		})
	}
}

// TestNothingElsewhereIsAskedUntilAJobGoesThere: at rest there is no packet, and
// neither is there one for jobs that stay.
func TestNothingElsewhereIsAskedUntilAJobGoesThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t, func(h *rig) {
			h.leave = &job.Leave{When: job.WhenNamed, Clients: []string{"editor"}, Classes: []job.Class{job.Interactive}}
		})
		for range 5 {
			var out sink
			if err := h.Run(t.Context(), chat(), &out); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		missing := chat()
		missing.Model = "none"
		if err := h.Run(t.Context(), missing, new(sink)); !errors.Is(err, job.ModelNotFound) {
			t.Fatal(err)
		}
		if n := h.cloud.probes; n != 0 {
			t.Errorf("it was asked %d times", n)
		}
		leaves := chat()
		leaves.Client, leaves.Vouched, leaves.Target = "editor", true, "cloud"
		for range 3 {
			if err := h.Run(t.Context(), leaves, new(sink)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		if n := h.cloud.probes; n != 1 {
			t.Errorf("it was asked %d times, want 1 before the first job", n)
		}
		for range 3 {
			h.backends.Look(t.Context())
			time.Sleep(time.Second)
		}
		if n := h.cloud.probes; n != 2 {
			t.Errorf("it was asked %d times, want 2 once somebody has looked", n)
		}
	})
}

// TestNothingIsFetchedElsewhere: which models another machine has is its own affair,
// whoever may leave for it.
func TestNothingIsFetchedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t, func(h *rig) {
			h.leave = &job.Leave{When: job.WhenCheaper, Clients: []string{job.Anybody}, Classes: []job.Class{job.Interactive}}
		})
		if id, err := h.Home(t.Context(), "new", ""); err != nil || id == "ollama-cloud" {
			t.Errorf("it is fetched by %q, %v", id, err)
		}
		for _, target := range []string{"cloud", "ollama-cloud"} {
			if id, err := h.Home(t.Context(), "new", target); !errors.Is(err, job.Unsupported) {
				t.Errorf("for the target %s it is fetched by %q, %v", target, id, err)
			}
		}
	})
}

// TestABackendThatIsToFetchAndIsDownSaysWhy: that the others cannot fetch is of no
// interest to whoever has named one.
func TestABackendThatIsToFetchAndIsDownSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t, func(h *rig) {
			h.npu.down = true
			for _, s := range []*server{h.igpu, h.nvidia, h.cpu} {
				s.lacks = []string{"pull"}
			}
		})
		if _, err := h.Home(t.Context(), "new", "npu"); !errors.Is(err, job.NoBackend) || !strings.Contains(err.Error(), errRefused.Error()) {
			t.Errorf("the NPU, which is down, says %v", err)
		}
		for _, target := range []string{"", "auto", "cpu"} {
			if _, err := h.Home(t.Context(), "new", target); !errors.Is(err, job.Unsupported) {
				t.Errorf("for the target %q it says %v", target, err)
			}
		}
	})
}

// TestWhatIsElsewhereIsTriedAgainByAJob: nobody asks whether a network is back.
func TestWhatIsElsewhereIsTriedAgainByAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t, func(h *rig) {
			h.leave = &job.Leave{Clients: []string{job.Anybody}, Classes: []job.Class{job.Interactive}}
		})
		ask := func() error {
			j := chat()
			j.Target = "cloud"
			return h.Run(t.Context(), j, new(sink))
		}
		if err := ask(); err != nil {
			t.Fatal(err)
		}
		h.cloud.down = true
		if err := ask(); !errors.Is(err, job.BackendFailed) {
			t.Fatal(err)
		}
		jobs := h.cloud.count()
		if err := ask(); !errors.Is(err, job.NoBackend) || h.cloud.count() != jobs {
			t.Errorf("while it pauses: %v, and it was asked %d times more", err, h.cloud.count()-jobs)
		}
		h.cloud.down = false
		time.Sleep(2 * time.Second)
		if err := ask(); err != nil {
			t.Errorf("once the pause is over: %v", err)
		}
		if n := h.cloud.probes; n != 1 {
			t.Errorf("it was asked %d times what it is", n)
		}
	})
}

func TestAServerElsewhereThatSaysWhenToComeBackIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t, func(h *rig) {
			h.leave = &job.Leave{Clients: []string{job.Anybody}, Classes: []job.Class{job.Interactive}}
			h.cloud.script = func(context.Context, func(job.Head) error, func(job.Chunk) error) error {
				return &job.Error{Code: job.Busy, Detail: "rate limit", RetryAfter: 30 * time.Second, Answer: &job.Answer{Status: 429}}
			}
		})
		ask := func() error {
			j := chat()
			j.Target = "cloud"
			return h.Run(t.Context(), j, new(sink))
		}
		if err := ask(); !errors.Is(err, job.Busy) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		err := ask()
		var e *job.Error
		if !errors.As(err, &e) || e.RetryAfter.Round(time.Second) != 20*time.Second || h.cloud.count() != 1 {
			t.Errorf("10 s later: %v after %v, and it was asked %d times", err, e.RetryAfter, h.cloud.count())
		}
		h.cloud.script = answers("a")
		time.Sleep(21 * time.Second)
		if err := ask(); err != nil {
			t.Errorf("when it may be asked: %v", err)
		}
	})
}

func TestWhatRanElsewhereTakesNothingHereButTheRadios(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t, func(h *rig) {
			h.leave = &job.Leave{Clients: []string{job.Anybody}, Classes: []job.Class{job.Interactive}}
		})
		j := chat()
		j.Target = "cloud"
		var out sink
		if err := h.Run(t.Context(), j, &out); err != nil {
			t.Fatal(err)
		}
		if keep := h.cloud.jobs[0].KeepAlive; keep != nil {
			t.Errorf("the server there is told to keep the model for %v", *keep)
		}
		c := out.report.Cost
		if c.Quality != power.None || c.Energy != 0 || c.Radio != 3*power.Joule {
			t.Errorf("it took %+v", c)
		}
		fields := out.report.Fields()
		if fields["energy_wh"] != 0.0 || fields["radio_joules"] != 3.0 || fields["hardware"] != "cloud" {
			t.Errorf("it says %v", fields)
		}
		if want := (job.Money{Nano: 3000, Currency: "EUR"}); out.report.Price != want || h.entries[0].Price != want {
			t.Errorf("it cost %+v, and the ledger has %+v", out.report.Price, h.entries[0].Price)
		}
	})
}

// TestAServerElsewhereMayTakeItsTime: it thinks, or has others to answer first.
func TestAServerElsewhereMayTakeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t, func(h *rig) {
			h.leave = &job.Leave{Clients: []string{job.Anybody}, Classes: []job.Class{job.Interactive}}
			h.cloud.script = silent(2 * time.Minute)
		})
		j := chat()
		j.Target = "cloud"
		var out sink
		if err := h.Run(t.Context(), j, &out); err != nil || out.text.String() != "late" {
			t.Errorf("%q, %v", out.text.String(), err)
		}
		if h.cloud.pings == 0 {
			t.Error("nobody asks whether it is still there")
		}
	})
}

// TestWhatAServerElsewhereChargesForWhatItDidNotCount: nobody knows, and that is no
// zero; for what it did not begin it charges nothing.
func TestWhatAServerElsewhereChargesForWhatItDidNotCount(t *testing.T) {
	tests := []struct {
		name   string
		script script
		want   job.Money
	}{
		{"a stream that broke", func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			return errors.Join(begin(job.Head{Status: 200}), emit(job.Chunk{Text: "a"}), job.Errorf(job.BackendFailed, "its stream ended"))
		}, job.Money{Currency: "EUR", Unknown: true}},
		{"a failure before the first token", fails(job.BackendFailed, "boom"), job.Money{Currency: "EUR"}},
		{"a refusal", func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			return errors.Join(begin(job.Head{Status: 400}), emit(job.Chunk{Raw: []byte("{}"), Last: true}))
		}, job.Money{Currency: "EUR"}},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			h := newRig(t, func(h *rig) {
				h.leave = &job.Leave{Clients: []string{job.Anybody}, Classes: []job.Class{job.Interactive}}
				h.cloud.script = tt.script
			})
			j := chat()
			j.Target = "cloud"
			_ = h.Run(t.Context(), j, new(sink))
			if len(h.entries) != 1 || h.entries[0].Price != tt.want {
				t.Errorf("%s: %+v, want %+v", tt.name, h.entries, tt.want)
			}
		})
	}
}
