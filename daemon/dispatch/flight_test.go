package dispatch_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/cache"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/pull"
	"github.com/joulemux/joulemux/power"
)

// asker is a client in the background.
type asker struct {
	sink
	err   error
	after time.Duration
	done  chan struct{}
}

// ask runs a job until the client leaves, if he does.
func (r *rig) ask(t *testing.T, j job.Job, leaves time.Duration, chunk func(context.Context) error) *asker {
	t.Helper()
	a := &asker{done: make(chan struct{})}
	a.chunk = chunk
	begun := time.Now()
	go func() {
		defer close(a.done)
		ctx := t.Context()
		if leaves > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, leaves)
			defer cancel()
		}
		a.err = r.Run(ctx, j, a)
		a.after = time.Since(begun)
	}()
	synctest.Wait()
	return a
}

// both has two ask the same at once, and returns when both are answered.
func (r *rig) both(t *testing.T, j job.Job) (first, second *asker) {
	t.Helper()
	first, second = r.ask(t, j, 0, nil), r.ask(t, j, 0, nil)
	<-first.done
	<-second.done
	return first, second
}

func TestTwoWhoAskTheSameAreAnsweredOnce(t *testing.T) {
	scenario(t, keeping, func(t *testing.T, r *rig) {
		first := r.ask(t, fixed("hi"), 0, nil)
		time.Sleep(1500 * time.Millisecond)
		second := r.ask(t, fixed("hi"), 0, nil)
		if second.text.String() != "Hello, " {
			t.Errorf("what is there comes to the second as %q", second.text.String())
		}
		other := fixed("hi")
		other.Class = job.Background // is decided by something else
		third := r.ask(t, other, 0, nil)
		<-first.done
		<-second.done
		<-third.done
		if r.jobs() != 2 || first.err != nil || second.err != nil || first.text.String() != "Hello, world" || second.text.String() != "Hello, world" {
			t.Errorf("%d jobs; %q, %v; %q, %v", r.jobs(), first.text.String(), first.err, second.text.String(), second.err)
		}
		if first.after != 3*time.Second || second.after != 1500*time.Millisecond {
			t.Errorf("they took %v and %v", first.after, second.after)
		}
		if a, b := first.report, second.report; a.FromCache() || !spent(a) || !b.FromCache() || spent(b) || b.FirstToken != 0 || b.Total != 1500*time.Millisecond || b.Decision.Backend != "ollama-igpu" {
			t.Errorf("got %+v and %+v", a, b)
		}
		if s := r.cache.Stats(); s.Joined != 1 || s.Misses != 2 || s.Hits != 0 {
			t.Errorf("got %+v", s)
		}
		if e := r.kept(); len(e) != 3 {
			t.Errorf("the ledger has %+v", e)
		}
	})
}

func TestFirstMayLeaveAndTheOthersAreAnswered(t *testing.T) {
	scenario(t, keeping, func(t *testing.T, r *rig) {
		first := r.ask(t, fixed("hi"), 1200*time.Millisecond, nil)
		late := fixed("hi")
		late.Deadline = 1700 * time.Millisecond
		second, third := r.ask(t, fixed("hi"), 0, nil), r.ask(t, late, 0, nil)
		<-first.done
		<-second.done
		<-third.done
		if !errors.Is(first.err, job.Cancelled) || first.after != 1200*time.Millisecond {
			t.Errorf("the first: %v after %v", first.err, first.after)
		}
		if second.err != nil || second.text.String() != "Hello, world" || second.after != 3*time.Second {
			t.Errorf("the second: %v, %q after %v", second.err, second.text.String(), second.after)
		}
		if !errors.Is(third.err, job.DeadlinePassed) || third.after != 1700*time.Millisecond {
			t.Errorf("the third: %v after %v", third.err, third.after)
		}
		if e := r.kept(); len(e) != 2 || e[0].Failed != "" || !e[0].Cost.Known() || e[1].Backend != ledger.Cache || r.jobs() != 1 {
			t.Errorf("the ledger has %+v", e)
		}
	})
}

func TestWhenAllLeaveTheJobEnds(t *testing.T) {
	scenario(t, keeping, func(t *testing.T, r *rig) {
		first, second := r.ask(t, fixed("hi"), 500*time.Millisecond, nil), r.ask(t, fixed("hi"), 1500*time.Millisecond, nil)
		<-first.done
		<-second.done
		e := r.kept()
		if len(e) != 1 || e[0].Failed != job.Cancelled || e[0].Total != 1500*time.Millisecond || !errors.Is(second.err, job.Cancelled) {
			t.Errorf("%v; the ledger has %+v", second.err, e)
		}
		if s := expect(t, r, fixed("hi"), "ollama-igpu"); s.report.FromCache() {
			t.Error("half an answer is kept")
		}
	})
}

func TestWhoWaitsInLineIsToldForWhatAsBefore(t *testing.T) {
	scenario(t, keeping, func(t *testing.T, r *rig) {
		busy := r.ask(t, on("igpu"), 0, nil)
		j := fixed("hi")
		j.Target, j.Deadline = "igpu", time.Second
		err := r.Run(t.Context(), j, new(sink))
		if !errors.Is(err, job.DeadlinePassed) || !strings.Contains(err.Error(), "waiting in line for ollama-igpu") {
			t.Errorf("got %v", err)
		}
		<-busy.done
	})
}

func TestErrorsGoToAll(t *testing.T) {
	scenario(t, func(r *rig) {
		keeping(r)
		r.igpu.script = func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			_ = begin(job.Head{Status: 200})
			_ = emit(job.Chunk{Text: "a"})
			time.Sleep(time.Second)
			return job.Errorf(job.BackendFailed, "boom")
		}
	}, func(t *testing.T, r *rig) {
		j := fixed("hi")
		j.Target = "igpu"
		first, second := r.both(t, j)
		for _, a := range []*asker{first, second} {
			if !errors.Is(a.err, job.BackendFailed) || !strings.Contains(a.err.Error(), "boom") || a.text.String() != "a" {
				t.Errorf("got %v after %q", a.err, a.text.String())
			}
		}
		if r.jobs() != 1 || len(r.kept()) != 1 {
			t.Errorf("%d jobs were run, and %d recorded", r.jobs(), len(r.kept()))
		}
	})
}

func TestRefusalIsOneForAllInTheLedger(t *testing.T) {
	scenario(t, func(r *rig) {
		keeping(r)
		r.igpu.script = func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			time.Sleep(time.Second)
			_ = begin(job.Head{Status: 400})
			return emit(job.Chunk{Text: "no", Last: true})
		}
	}, func(t *testing.T, r *rig) {
		j := fixed("hi")
		j.Target = "igpu"
		r.both(t, j)
		if e := r.kept(); r.jobs() != 1 || len(e) != 2 || e[0].Failed != job.Invalid || e[1].Failed != job.Invalid {
			t.Errorf("%d jobs; the ledger has %+v", r.jobs(), e)
		}
	})
}

func TestFallbackIsToldToAll(t *testing.T) {
	scenario(t, func(r *rig) {
		keeping(r)
		r.igpu.script = func(context.Context, func(job.Head) error, func(job.Chunk) error) error {
			time.Sleep(time.Second)
			return job.Errorf(job.BackendFailed, "boom")
		}
	}, func(t *testing.T, r *rig) {
		first, second := r.both(t, fixed("hi"))
		for _, a := range []*asker{first, second} {
			if a.err != nil || len(a.routed) != 2 || a.routed[0] != "ollama-igpu" || a.routed[1] != a.report.Decision.Backend || a.begun != 1 {
				t.Errorf("%v, routed to %v", a.err, a.routed)
			}
		}
	})
}

func TestSlowReaderHoldsUpNobody(t *testing.T) {
	scenario(t, keeping, func(t *testing.T, r *rig) {
		slow := r.ask(t, fixed("hi"), 0, func(context.Context) error { time.Sleep(20 * time.Second); return nil })
		fast := r.ask(t, fixed("hi"), 0, nil)
		<-fast.done
		if fast.err != nil || fast.after != 3*time.Second {
			t.Errorf("%v after %v", fast.err, fast.after)
		}
		<-slow.done
		if slow.err != nil || slow.text.String() != "Hello, world" || r.jobs() != 1 {
			t.Errorf("%v after %v: %q", slow.err, slow.after, slow.text.String())
		}
	})
}

// TestLongAnswerIsNeitherKeptNorShared runs one of which only an eighth may be
// held: it goes as fast as its reader reads, and what he has read is forgotten.
func TestLongAnswerIsNeitherKeptNorShared(t *testing.T) {
	var emitted []time.Duration
	scenario(t, func(r *rig) {
		r.cache = cache.New(cache.Settings{Bytes: 8000, Idle: time.Hour})
		r.igpu.script = func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			began := time.Now()
			_ = begin(job.Head{Status: 200})
			for i := range 10 {
				if err := emit(job.Chunk{Text: strings.Repeat(string(rune('a'+i)), 600)}); err != nil {
					return err
				}
				emitted = append(emitted, time.Since(began))
			}
			return emit(job.Chunk{Text: "end", Last: true})
		}
	}, func(t *testing.T, r *rig) {
		j := fixed("hi")
		j.Target = "igpu"
		first := r.ask(t, j, 0, func(context.Context) error { time.Sleep(time.Second); return nil })
		second := r.ask(t, j, 0, nil)
		<-first.done
		<-second.done
		for _, a := range []*asker{first, second} {
			text := a.text.String()
			if a.err != nil || len(text) != 6003 || text[599:601] != "ab" || !strings.HasSuffix(text, "jjend") {
				t.Errorf("%v: %d bytes", a.err, len(text))
			}
		}
		if r.jobs() != 2 || r.cache.Stats().Entries != 0 || second.report.FromCache() {
			t.Errorf("%d jobs, %+v", r.jobs(), r.cache.Stats())
		}
		if first.after < 3*time.Second {
			t.Errorf("a slow reader had all after %v", first.after)
		}
	})
	if len(emitted) < 10 || emitted[9] < time.Second {
		t.Errorf("pieces came after %v: nothing holds the backend up", emitted)
	}
}

func TestPanicIsTheCallersAsBefore(t *testing.T) {
	scenario(t, func(r *rig) {
		keeping(r)
		r.igpu.script = func(context.Context, func(job.Head) error, func(job.Chunk) error) error {
			time.Sleep(time.Second)
			panic("server")
		}
	}, func(t *testing.T, r *rig) {
		var callers sync.WaitGroup
		for range 2 {
			callers.Go(func() {
				defer func() {
					if p := recover(); p != "server" {
						t.Errorf("recovered %v", p)
					}
				}()
				_ = r.Run(t.Context(), fixed("hi"), new(sink))
			})
		}
		callers.Wait()
		func() {
			defer func() { _ = recover() }()
			r.igpu.script = answers("a")
			_ = r.Run(t.Context(), fixed("ho"), &sink{chunk: func(context.Context) error { panic("sink") }})
		}()
		if r.Running() != 0 {
			t.Errorf("%d still run", r.Running())
		}
		expect(t, r, fixed("hi"), "ollama-igpu")
	})
}

func TestStopEndsSharedJobs(t *testing.T) {
	scenario(t, keeping, func(t *testing.T, r *rig) {
		first, second := r.ask(t, fixed("hi"), 0, nil), r.ask(t, fixed("hi"), 0, nil)
		r.Stop()
		<-first.done
		<-second.done
		if !errors.Is(first.err, job.Stopping) || !errors.Is(second.err, job.Stopping) {
			t.Errorf("got %v and %v", first.err, second.err)
		}
		if e := r.kept(); len(e) != 1 || e[0].Failed != job.Stopping {
			t.Errorf("the ledger has %+v", e)
		}
	})
}

// TestEverySharedJobEndsExactlyOnce runs few questions that many ask, on servers
// that fail at random, with clients that leave and read slowly at random.
func TestEverySharedJobEndsExactlyOnce(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 5))
			h := newRig(t, func(h *rig) {
				h.veto = true
				h.cache = cache.New(cache.Settings{Bytes: []int{100, 20_000, 1 << 20}[random.IntN(3)], Idle: time.Minute})
				for _, s := range []*server{h.npu, h.igpu, h.nvidia, h.cpu} {
					s.script = erratic(rand.New(rand.NewPCG(seed, random.Uint64())))
				}
			})
			var jobs sync.WaitGroup
			guests := make([]*guest, 40)
			for i := range guests {
				g := someone(random)
				g.comes = time.Duration(random.IntN(30)) * time.Second
				deadline, class := g.Deadline, g.Class
				g.Job = fixed([]string{"a", "b"}[random.IntN(2)])
				g.Deadline, g.Class = deadline, class
				if slow := time.Duration(random.IntN(3)) * time.Second; random.IntN(3) == 0 {
					g.chunk = func(ctx context.Context) error {
						select {
						case <-time.After(slow):
							return nil
						case <-ctx.Done():
							return context.Cause(ctx)
						}
					}
				}
				guests[i] = g
				jobs.Go(func() { g.run(t, h) })
			}
			ctx, cancel := context.WithCancel(t.Context())
			var changes sync.WaitGroup
			changes.Go(func() { h.weather(ctx, t, rand.New(rand.NewPCG(seed, 6))) })
			if random.IntN(2) == 0 {
				time.AfterFunc(time.Duration(20+random.IntN(40))*time.Second, h.Stop)
			}
			jobs.Wait()
			cancel()
			changes.Wait()
			if n := h.Running(); n != 0 {
				t.Errorf("seed %d: %d jobs never ended", seed, n)
			}
			h.balance(t, seed, guests)
			if seen, told := outcomesOf(guests), outcomes(h.told); !maps.Equal(seen, told) {
				t.Errorf("seed %d: an observer is told of %v, clients see %v", seed, told, seen)
			}
		})
	}
}

// balance checks that nothing is told to have been spent twice, and that whoever
// was answered has all of the answer.
func (r *rig) balance(t *testing.T, seed uint64, guests []*guest) {
	t.Helper()
	var whole, told power.Energy
	run, borrowed := 0, 0
	for _, e := range r.kept() {
		if e.Backend == ledger.Cache {
			borrowed++
			continue
		}
		run++
		whole += e.Cost.Energy
	}
	answered := 0
	for _, g := range guests {
		if g.report == nil || g.last == 0 {
			continue
		}
		told += g.report.Cost.Energy
		if g.report.FromCache() {
			answered++
		}
		if text := g.text.String(); text != "abc" && text != "late" {
			t.Errorf("seed %d: %q is an answer", seed, text)
		}
	}
	if told > whole || run < r.jobs() || borrowed != answered {
		t.Errorf("seed %d: %v of %v is told; %d attempts of %d and %d borrowed of %d are in the ledger", seed, told, whole, run, r.jobs(), borrowed, answered)
	}
}

// arriving fetches a model, a third of it each second, for the CPU.
type arriving struct{ r *rig }

func (a arriving) Pull(ctx context.Context, o pull.Order, each func(pull.Progress) error) error {
	for n := range int64(3) {
		if err := each(pull.Progress{Order: o, State: pull.Pulling, Completed: n, Total: 3}); err != nil {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	a.r.cpu.mu.Lock()
	defer a.r.cpu.mu.Unlock()
	a.r.cpu.models = []job.Model{{Name: o.Model, Digest: "new", Resident: true}}
	return nil
}

// waiter is a client who is told of the model for which he waits.
type waiter struct {
	sink
	told []int64
}

func (w *waiter) Fetching(p pull.Progress) error {
	w.told = append(w.told, p.Completed)
	return nil
}

func TestWhoSharesAnAnswerIsToldOfTheModelThatItWaitsFor(t *testing.T) {
	scenario(t, func(r *rig) {
		keeping(r)
		r.fetcher = arriving{r}
	}, func(t *testing.T, r *rig) {
		s := gpuAsleep()
		s.AutoPull = dispatch.PullOn
		r.Configure(s)
		j := fixed("hi")
		j.Model = "new"
		first, second := new(waiter), new(waiter)
		var both sync.WaitGroup
		both.Go(func() {
			if err := r.Run(t.Context(), j, first); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(1500 * time.Millisecond)
		if err := r.Run(t.Context(), j, second); err != nil {
			t.Error(err)
		}
		both.Wait()
		if !slices.Equal(first.told, []int64{0, 1, 2}) || !slices.Equal(second.told, []int64{1, 2}) {
			t.Errorf("they were told %v and %v", first.told, second.told)
		}
	})
}
