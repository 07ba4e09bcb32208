package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
)

// Attempted, Ended and Unloaded implement dispatch.Observer.
func (r *rig) Attempted(*ledger.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen++
}

func (r *rig) Ended(e *dispatch.End) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, *e)
}

func (r *rig) Unloaded(backend string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.letGo = append(r.letGo, backend)
}

// outcomes counts how jobs ended, as an observer was told, and checks that each
// has what is to be told of it.
func outcomes(told []dispatch.End) map[job.Code]int {
	all := make(map[job.Code]int)
	for _, e := range told {
		all[e.Code]++
		if (e.Report != nil) != (e.Code == "") || e.Backend == "" && (e.Model != "" || len(e.Fallbacks) > 0 || e.Report != nil) {
			all["and something is wrong with it"]++
		}
	}
	return all
}

// outcomesOf counts how they ended, as their clients saw it.
func outcomesOf(guests []*guest) map[job.Code]int {
	all := make(map[job.Code]int)
	for _, g := range guests {
		var e *job.Error
		if errors.As(g.err, &e) {
			all[e.Code]++
		} else {
			all[""]++
		}
	}
	return all
}

// last returns what the observer was told last, having been told so often.
func (r *rig) last(t *testing.T, count int) dispatch.End {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.told) != count {
		t.Fatalf("the observer was told of %d jobs, want %d", len(r.told), count)
	}
	return r.told[count-1]
}

func TestObserverIsToldWhatBecameOfAJob(t *testing.T) {
	scenario(t, func(r *rig) {
		r.igpu.script = fails(job.Busy, "queue")
	}, func(t *testing.T, r *rig) {
		_ = r.Run(t.Context(), chat(), &sink{})
		e := r.last(t, 1)
		if e.Code != "" || e.Backend != "ollama-npu" || e.Model != "m:latest" || e.Kind != job.Chat || e.Class != job.Interactive || e.Report.Total != 3*time.Second {
			t.Errorf("an answer after a fallback: %+v", e)
		}
		if len(e.Fallbacks) != 1 || e.Fallbacks[0].Backend != "ollama-igpu" || e.Fallbacks[0].Code() != job.Busy {
			t.Errorf("its fallbacks are %+v", e.Fallbacks)
		}

		j := chat()
		j.Target = "igpu"
		_ = r.Run(t.Context(), j, &sink{})
		if e := r.last(t, 2); e.Code != job.Busy || e.Backend != "ollama-igpu" || len(e.Fallbacks) != 0 || e.Report != nil {
			t.Errorf("one that the only candidate failed: %+v", e)
		}

		j = chat()
		j.Model = "anything that a client may say"
		_ = r.Run(t.Context(), j, &sink{})
		if e := r.last(t, 3); e.Code != job.ModelNotFound || e.Backend != "" || e.Model != "" {
			t.Errorf("one that could not begin: %+v", e)
		}

		func() {
			defer func() { _ = recover() }()
			_ = r.Run(t.Context(), chat(), &sink{chunk: func(context.Context) error { panic("bang") }})
		}()
		if e := r.last(t, 4); e.Code != job.Cancelled || e.Backend != "ollama-npu" {
			t.Errorf("one whose sink panics: %+v", e)
		}

		r.npu.script = func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			return errors.Join(begin(job.Head{Status: 400}), emit(job.Chunk{Last: true}))
		}
		j = chat()
		j.Target = "npu"
		_ = r.Run(t.Context(), j, &sink{})
		if e := r.last(t, 5); e.Code != job.Invalid || e.Backend != "ollama-npu" {
			t.Errorf("one that the backend refuses: %+v", e)
		}

		r.Stop()
		_ = r.Run(t.Context(), chat(), &sink{})
		if e := r.last(t, 6); e.Code != job.Stopping || e.Backend != "" {
			t.Errorf("one that comes too late: %+v", e)
		}
	})
}

func TestFailureIsTheBackendsUnlessItSaysWhat(t *testing.T) {
	for _, f := range []dispatch.Failure{{Err: errors.New("?")}, {Err: fmt.Errorf("here: %w", job.Errorf(job.BackendFailed, "boom"))}} {
		if f.Code() != job.BackendFailed {
			t.Errorf("%v is %q", f.Err, f.Code())
		}
	}
}

func TestWaitingJobsAreCounted(t *testing.T) {
	scenario(t, func(r *rig) { r.slots = 1 }, func(t *testing.T, r *rig) {
		for range 3 {
			j := chat()
			j.Target = "npu"
			go func() { _ = r.Run(t.Context(), j, &sink{}) }()
		}
		synctest.Wait()
		if n := r.Waiting(job.Interactive); n != 2 || r.Waiting(job.Background) != 0 || r.Running() != 3 {
			t.Errorf("%d jobs wait of %d", n, r.Running())
		}
		time.Sleep(time.Minute)
		if n := r.Waiting(job.Interactive); n != 0 || r.Running() != 0 {
			t.Errorf("%d jobs wait of %d", n, r.Running())
		}
		if e := r.last(t, 3); e.Queued != 6*time.Second {
			t.Errorf("the last waited for %v", e.Queued)
		}
	})
}
