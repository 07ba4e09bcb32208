package dispatch_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
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
