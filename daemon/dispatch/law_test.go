package dispatch_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
)

// ends counts how a job ended, as its client sees it.
type ends struct {
	sink
	last  int
	after bool // something came after the last chunk
}

func (e *ends) Chunk(ctx context.Context, c job.Chunk, r *dispatch.Report) error {
	e.after = e.after || e.last > 0
	if c.Last {
		e.last++
	}
	if (r != nil) != c.Last {
		return errors.New("the report does not come with the last chunk")
	}
	return e.sink.Chunk(ctx, c, r)
}

// erratic is a script that does anything a server may do, by chance.
func erratic(r *rand.Rand) script {
	var mu sync.Mutex
	chance := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return r.IntN(n)
	}
	return func(ctx context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
		switch chance(6) {
		case 0:
			return job.Errorf(job.Busy, "queue")
		case 1:
			return job.Errorf(job.BackendFailed, "boom")
		case 2:
			return silent(time.Duration(chance(100))*time.Second)(ctx, begin, emit)
		case 3: // dies in the middle
			if err := begin(job.Head{Status: 200}); err != nil {
				return err
			}
			if err := emit(job.Chunk{Text: "a"}); err != nil {
				return err
			}
			return job.Errorf(job.BackendFailed, "its stream ended")
		default:
			return answers("a", "b", "c")(ctx, begin, emit)
		}
	}
}

// TestEveryJobEndsExactlyOnce runs jobs on servers that fail at random, with
// clients that leave at random and a daemon that stops in the midst of it.
func TestEveryJobEndsExactlyOnce(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			h := newRig(t, func(h *rig) {
				for _, s := range []*server{h.npu, h.igpu, h.nvidia, h.cpu} {
					s.script = erratic(rand.New(rand.NewPCG(seed, r.Uint64())))
				}
			})
			var jobs sync.WaitGroup
			var attempts atomic.Int64
			for range 30 {
				leaves, starts := time.Duration(1+r.IntN(200))*time.Second, time.Duration(r.IntN(60))*time.Second
				deadline := time.Duration(r.IntN(3)) * 20 * time.Second
				jobs.Go(func() {
					time.Sleep(starts)
					ctx, cancel := context.WithTimeout(t.Context(), leaves)
					defer cancel()
					j := chat()
					j.Deadline = deadline
					var client ends
					err := h.Run(ctx, j, &client)
					attempts.Add(int64(len(client.routed)))
					var typed *job.Error
					switch {
					case err == nil && client.last != 1:
						t.Errorf("seed %d: ended well with %d last chunks", seed, client.last)
					case err != nil && client.last != 0:
						t.Errorf("seed %d: a last chunk, and then %v", seed, err)
					case err != nil && !errors.As(err, &typed):
						t.Errorf("seed %d: the error %v has no type", seed, err)
					case client.begun > 1 || client.after:
						t.Errorf("seed %d: begun %d times, more after the end: %v", seed, client.begun, client.after)
					}
				})
			}
			time.AfterFunc(time.Duration(30+r.IntN(60))*time.Second, h.Stop)
			jobs.Wait()
			if n := h.Running(); n != 0 {
				t.Errorf("seed %d: %d jobs never ended", seed, n)
			}
			if n := len(h.entries); n != int(attempts.Load()) {
				t.Errorf("seed %d: the ledger has %d attempts of %d", seed, n, attempts.Load())
			}
		})
	}
}
