package dispatch_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
)

func TestTheLedgerHasEveryAttempt(t *testing.T) {
	scenario(t, func(r *rig) { r.igpu.frozen, r.igpu.script = true, silent(time.Hour) }, func(t *testing.T, r *rig) {
		j := chat()
		j.ID, j.Client, j.Model = "j", "editor", "M"
		s := expect(t, r, j, "ollama-igpu", "ollama-npu")
		if len(r.entries) != 2 {
			t.Fatalf("the entries are %+v", r.entries)
		}
		failed, answered := r.entries[0], r.entries[1]
		if failed.ID != "j" || failed.Backend != "ollama-igpu" || failed.Failed != job.BackendFailed || failed.FirstToken != 0 || failed.Total != 3*time.Second {
			t.Errorf("of the attempt that failed it has %+v", failed)
		}
		if answered.ID != "j.2" || answered.Backend != "ollama-npu" || answered.Failed != "" || answered.Tokens != 3 || answered.Total != 3*time.Second {
			t.Errorf("of the one that answered it has %+v", answered)
		}
		for _, e := range r.entries {
			if e.Client != "editor" || e.Model != "M:latest" || e.Class != job.Interactive || e.Tier != power.Battery || !e.OnBattery || e.Ended.Before(e.Arrived) {
				t.Errorf("of the job it has %+v", e)
			}
		}
		if sum := failed.Cost.Energy + answered.Cost.Energy; sum != s.report.Cost.Energy {
			t.Errorf("the client was told %v, and the ledger %v", s.report.Cost.Energy, sum)
		}
	})
}

func TestTheLedgerHasWhatWasGivenUp(t *testing.T) {
	refuses := func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
		return errors.Join(begin(job.Head{Status: 400}), emit(job.Chunk{Last: true}))
	}
	for name, c := range map[string]struct {
		script script
		leaves time.Duration
		want   job.Code
	}{
		"a client that leaves has still drained the battery": {silent(time.Hour), 5 * time.Second, job.Cancelled},
		"so has a request that the backend refuses":          {refuses, time.Hour, job.Invalid},
	} {
		scenario(t, func(r *rig) { r.igpu.script = c.script }, func(t *testing.T, r *rig) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), c.leaves, context.Canceled)
			defer cancel()
			_ = r.Run(ctx, chat(), new(sink))
			if len(r.entries) != 1 || r.entries[0].Failed != c.want || r.entries[0].Cost.Quality != power.Estimated {
				t.Errorf("%s: the entries are %+v", name, r.entries)
			}
		})
	}
}

func TestTimesThatMayBeOfALoadAreNotOfReading(t *testing.T) {
	took := func(load time.Duration) script {
		return func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			u := job.Usage{PromptTokens: 50, Tokens: 10, Load: load, Prefill: 5 * time.Second, Decode: time.Second}
			return errors.Join(begin(job.Head{Status: 200}), emit(job.Chunk{Last: true, Usage: u}))
		}
	}
	for name, c := range map[string]struct {
		resident bool
		load     time.Duration
		want     time.Duration
	}{
		"of a model that was there":                    {true, 0, 5 * time.Second},
		"where the server tells what loading took":     {false, time.Second, 5 * time.Second},
		"of a model that was not, where it tells none": {false, 0, 0},
	} {
		scenario(t, func(r *rig) {
			r.igpu.models, r.igpu.script = []job.Model{{Name: "m", Digest: "d", Resident: c.resident}}, took(c.load)
		}, func(t *testing.T, r *rig) {
			j := chat()
			j.Target = "ollama-igpu"
			if err := r.Run(t.Context(), j, new(sink)); err != nil || len(r.entries) != 1 || r.entries[0].Prefill != c.want {
				t.Errorf("%s: %v, %+v", name, err, r.entries)
			}
		})
	}
}

func TestWhatMayHaveBeenReadBeforeIsNotLearnedFrom(t *testing.T) {
	before, more := strings.Repeat("what was said until then, ", 400), strings.Repeat("and this, ", 500)
	for name, c := range map[string]struct {
		told   int
		second string
		want   int
	}{
		"the server tells":                 {30, before + more, 30},
		"it does not":                      {0, before + more, 50},
		"it does not, of something else":   {0, more + before, 0},
		"it does not, of much that is new": {0, before + more + more + more, 0},
	} {
		scenario(t, func(r *rig) {
			r.igpu.models = []job.Model{{Name: "m", Digest: "d", Resident: true}}
			r.igpu.script = func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
				u := job.Usage{PromptTokens: 50, Cached: c.told, Tokens: 10, Prefill: time.Second, Decode: time.Second}
				return errors.Join(begin(job.Head{Status: 200}), emit(job.Chunk{Last: true, Usage: u}))
			}
		}, func(t *testing.T, r *rig) {
			for _, prompt := range []string{before, c.second} {
				j := chat()
				j.Target, j.Prompt, j.PromptBytes = "ollama-igpu", job.PromptOf(prompt), len(prompt)
				if err := r.Run(t.Context(), j, new(sink)); err != nil {
					t.Fatal(err)
				}
			}
			if len(r.entries) != 2 || r.entries[0].Cached != c.told || r.entries[1].Cached != c.want {
				t.Errorf("%s: the entries are %+v", name, r.entries)
			}
		})
	}
}

// warming is a processor that draws 5 W, and from a time on 20 W more.
type warming struct{ begun, from time.Time }

func (warming) Domain() power.Domain {
	return power.Domain{Name: "package-0", Scope: power.ScopePackage, Source: "rapl", Cumulative: true}
}

func (w warming) Read(context.Context) (power.Reading, error) {
	now := time.Now()
	energy := (5 * power.Watt).For(now.Sub(w.begun)) + (20 * power.Watt).For(max(0, now.Sub(w.from)))
	return power.Reading{At: now, Energy: energy}, nil
}

func TestTheLedgerHasTheTailOfAnAnswerThatIsReadLate(t *testing.T) {
	sensor := func(r *rig) {
		r.metered.Sensors = []meter.Sensor{warming{time.Now(), time.Now().Add(10 * time.Second)}}
	}
	scenario(t, sensor, func(t *testing.T, r *rig) {
		r.meter.Start(t.Context())
		<-time.After(10 * time.Second)
		s := new(sink)
		s.chunk = func(context.Context) error {
			if s.report != nil {
				<-time.After(time.Minute)
			}
			return nil
		}
		if err := r.Run(t.Context(), chat(), s); err != nil {
			t.Fatal(err)
		}
		if c := r.entries[0].Cost; c.Tail != 40*power.Joule {
			t.Errorf("it has a tail of %v", c.Tail)
		}
	})
}

func TestAnswersThatStoodInOurLineAreMeasured(t *testing.T) {
	sensor := func(r *rig) {
		r.metered.Sensors = []meter.Sensor{warming{time.Now(), time.Now().Add(10 * time.Second)}}
		r.igpu.script = func(ctx context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			<-time.After(3 * time.Second) // and then all of it
			return errors.Join(begin(job.Head{Status: 200}), emit(job.Chunk{Text: "Hello", Last: true}))
		}
	}
	scenario(t, sensor, func(t *testing.T, r *rig) {
		r.meter.Start(t.Context())
		<-time.After(10 * time.Second)
		var jobs sync.WaitGroup
		for range 3 {
			jobs.Go(func() {
				j := chat()
				j.Stream, j.Target = false, "ollama-igpu"
				_ = r.Run(t.Context(), j, new(sink))
			})
		}
		jobs.Wait()
		for _, e := range r.entries {
			if c := e.Cost; c.Quality != power.Measured || c.Shared != 1 || c.Energy != 60*power.Joule {
				t.Errorf("%s is told %v, shared by %d", e.ID, c, c.Shared)
			}
		}
		if len(r.entries) != 3 {
			t.Errorf("there are %d entries", len(r.entries))
		}
	})
}
