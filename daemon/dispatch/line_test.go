package dispatch_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// Unload implements backend.Unloader.
func (s *server) Unload(_ context.Context, model string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unloaded = append(s.unloaded, model)
	return nil
}

// lets returns the models that a server was asked to let go of.
func (s *server) lets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.unloaded)
}

func on(target string) job.Job {
	j := chat()
	j.Target = target
	return j
}

func TestASlotIsOneJobsAtATime(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		begun := time.Now()
		var jobs sync.WaitGroup
		var mu sync.Mutex
		var first []time.Duration
		for range 3 {
			jobs.Go(func() {
				s := new(sink)
				if err := r.Run(t.Context(), on("igpu"), s); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				first = append(first, s.report.FirstToken)
			})
		}
		jobs.Wait()
		// Each answer takes 3 s.
		slices.Sort(first)
		if want := []time.Duration{0, 3 * time.Second, 6 * time.Second}; !slices.Equal(first, want) || time.Since(begun) != 9*time.Second {
			t.Errorf("first tokens came after %v", first)
		}
	})
}

func TestWhoWaitsInLineMayLeave(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		go func() { _ = r.Run(t.Context(), on("igpu"), new(sink)) }()
		synctest.Wait()
		j := on("igpu")
		j.Deadline = time.Second
		s := new(sink)
		err := r.Run(t.Context(), j, s)
		if !errors.Is(err, job.DeadlinePassed) || !strings.Contains(err.Error(), "waiting in line for ollama-igpu") || len(s.routed) > 0 {
			t.Errorf("%v, routed to %v", err, s.routed)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Run(ctx, on("igpu"), s); !errors.Is(err, job.Cancelled) {
			t.Error(err)
		}
		if s := expect(t, r, on("igpu"), "ollama-igpu"); s.report.FirstToken != time.Second {
			t.Errorf("who stays has his turn after %v", s.report.FirstToken)
		}
	})
}

func TestTheTierOfOnesTurnCounts(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		go func() { _ = r.Run(t.Context(), on("nvidia"), new(sink)) }()
		synctest.Wait()
		time.AfterFunc(time.Second, func() { r.supply(t, 2) })
		// On critical no job runs on a discrete GPU, named or not.
		if err := r.Run(t.Context(), on("nvidia"), new(sink)); !errors.Is(err, job.PowerPolicy) {
			t.Error(err)
		}
	})
}

func TestAGPUIsLetGoOnBattery(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		j := on("nvidia")
		expect(t, r, j, "ollama-nvidia")
		synctest.Wait()
		if got := r.nvidia.lets(); !slices.Equal(got, []string{"m:latest"}) {
			t.Errorf("it was asked to let go of %q", got)
		}
		if !slices.Equal(r.letGo, []string{"ollama-nvidia"}) {
			t.Errorf("an observer hears of %q", r.letGo)
		}
		if keep := r.nvidia.jobs[0].KeepAlive; keep == nil || *keep > time.Minute {
			t.Errorf("it was told to keep the model for %v", keep)
		}
		if b := r.backends.Current().Find("ollama-nvidia"); b.Model("m").Resident {
			t.Error("the model is said to be resident")
		}
		expect(t, r, on("igpu"), "ollama-igpu")
		synctest.Wait()
		if got := r.igpu.lets(); len(got) > 0 || *r.igpu.jobs[0].KeepAlive < time.Minute {
			t.Errorf("where it costs nothing to hold, it was asked to let go of %q", got)
		}
	})
}

func TestAGPUIsLetGoWhenThePlugIsPulled(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		if err := r.tiers.Supply(t.Context(), power.Supply{Source: "upower"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // line power has to be steady
		expect(t, r, on("nvidia"), "ollama-nvidia")
		time.Sleep(time.Second)
		if got := r.nvidia.lets(); len(got) > 0 {
			t.Errorf("on mains it lets go of %q at once", got)
		}
		r.supply(t, 80)
		synctest.Wait()
		if got := r.nvidia.lets(); len(got) != 1 {
			t.Errorf("on battery it lets go of %q", got)
		}
	})
}

func TestOnTheLastTiersWhatCostsNothingGoesSooner(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		expect(t, r, on("igpu"), "ollama-igpu")
		time.Sleep(20 * time.Minute)
		if got := r.igpu.lets(); len(got) > 0 {
			t.Errorf("after 20 minutes on battery it lets go of %q", got)
		}
		r.supply(t, 15)
		synctest.Wait()
		if got := r.igpu.lets(); len(got) != 1 {
			t.Errorf("on a low battery it lets go of %q", got)
		}
	})
}

// TestWhoCameFirstHasTheFirstChoice has many jobs wait for line power, and
// looks who is first in the line of the one backend that they may run on.
func TestWhoCameFirstHasTheFirstChoice(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		r.supply(t, 15)
		var jobs sync.WaitGroup
		for i := range 20 {
			j := on("npu")
			j.Class, j.ID = job.Background, string(rune('a'+i))
			jobs.Go(func() {
				if err := r.Run(t.Context(), j, new(sink)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		r.supply(t, 80)
		jobs.Wait()
		var order strings.Builder
		for _, j := range r.npu.jobs {
			order.WriteString(j.ID)
		}
		if order.String() != "abcdefghijklmnopqrst" {
			t.Errorf("they ran in the order %s", order.String())
		}
	})
}

// TestWhoeverIsPlacedAgainSeesWhatIsThereNow has a job wait on a low battery
// for an hour, in which its server loses the model.
func TestWhoeverIsPlacedAgainSeesWhatIsThereNow(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		r.supply(t, 15)
		j := chat()
		j.Class = job.Background
		s, done := new(sink), make(chan error, 1)
		go func() { done <- r.Run(t.Context(), j, s) }()
		time.Sleep(time.Hour)
		r.npu.mu.Lock()
		r.npu.models = nil
		r.npu.mu.Unlock()
		r.supply(t, 80)
		if err := <-done; err != nil || !slices.Equal(s.routed, []string{"ollama-igpu"}) {
			t.Errorf("it went to %v, %v", s.routed, err)
		}
	})
}

func TestNobodyRunsWithoutADesk(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		r.stop()
		if err := r.Run(t.Context(), chat(), new(sink)); !errors.Is(err, job.Stopping) {
			t.Error(err)
		}
	})
}

// begin begins a job, and returns where its end is told.
func begin(t *testing.T, r *rig, j job.Job, s *sink) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context(), j, s) }()
	synctest.Wait()
	return done
}

func TestWhoLookedBeforeTheTierChangedChangesItBackForNobody(t *testing.T) {
	scenario(t, func(r *rig) { r.nvidia.script = answers(make([]string, 15)...) }, func(t *testing.T, r *rig) {
		r.supply(t, 15)
		j := on("nvidia")
		j.Class = job.Background
		waits := begin(t, r, j, new(sink))
		time.Sleep(8 * time.Second)
		runs := begin(t, r, on("nvidia"), new(sink))
		time.Sleep(time.Second)
		if err := r.tiers.Supply(t.Context(), power.Supply{Source: "upower"}); err != nil {
			t.Fatal(err)
		}
		// Line power is mains once it has been steady for 3 s. Just before, a job
		// comes for which servers are asked that have not been for 10 s.
		time.Sleep(2900 * time.Millisecond)
		r.npu.slow(140 * time.Millisecond)
		if err := errors.Join(r.Run(t.Context(), on("npu"), new(sink)), <-runs); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-waits:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("on mains a job waits on for a better tier")
		}
	})
}

func TestJobsOfOneNameAreTwo(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		j := on("igpu")
		j.ID = "again" // as clients name a request that they repeat
		first, second := new(sink), new(sink)
		one := begin(t, r, j, first)
		two := begin(t, r, j, second)
		if err := errors.Join(<-one, <-two); err != nil {
			t.Fatal(err)
		}
		if second.report.FirstToken != 3*time.Second || second.report.ID != "again" {
			t.Errorf("the second begins after %v as %s, the first takes 3 s", second.report.FirstToken, second.report.ID)
		}
		expect(t, r, j, "ollama-igpu")
	})
}

func TestAClientThatPanicsGivesItsSlotBack(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("whoever called hears nothing of it")
				}
			}()
			s := &sink{chunk: func(context.Context) error { panic("bang") }}
			_ = r.Run(t.Context(), on("igpu"), s)
		}()
		j := on("igpu")
		j.Deadline = time.Minute
		expect(t, r, j, "ollama-igpu")
	})
}

func TestNobodyWaitsForADeskThatIsClosed(t *testing.T) {
	scenario(t, func(r *rig) { r.igpu.script = silent(5 * time.Second) }, func(t *testing.T, r *rig) {
		runs := begin(t, r, on("igpu"), new(sink))
		waits := begin(t, r, on("igpu"), new(sink))
		r.stop()
		synctest.Wait()
		select {
		case err := <-waits:
			if !errors.Is(err, job.Stopping) {
				t.Error(err)
			}
		default:
			t.Error("it waits for ever")
		}
		if err := <-runs; err != nil {
			t.Error("one that is under way ends with ", err)
		}
	})
}

func TestABackendMayGoWhileJobsStandInItsLine(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		runs := begin(t, r, on("npu"), new(sink))
		j, s := chat(), new(sink)
		j.Class = job.Background
		waits := begin(t, r, j, s)
		r.configureBackends(power.IntegratedGPU, power.NVIDIA, power.CPU)
		if err := errors.Join(<-runs, <-waits); err != nil || !slices.Equal(s.routed, []string{"ollama-igpu"}) {
			t.Errorf("%v, routed to %v", err, s.routed)
		}
	})
}

// TestWhatWasReadWhileAJobStoodInLineIsNotLearnedFrom: when it was routed, nobody had
// read what its prompt begins with.
func TestWhatWasReadWhileAJobStoodInLineIsNotLearnedFrom(t *testing.T) {
	prompt := strings.Repeat("what all of them begin with, ", 400)
	scenario(t, func(r *rig) {
		r.slots = 1
		r.igpu.models = []job.Model{{Name: "m", Digest: "d", Resident: true}}
		r.igpu.script = func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			time.Sleep(time.Second)
			u := job.Usage{PromptTokens: 50, Tokens: 10, Prefill: time.Second, Decode: time.Second}
			return errors.Join(begin(job.Head{Status: 200}), emit(job.Chunk{Last: true, Usage: u}))
		}
	}, func(t *testing.T, r *rig) {
		j := chat()
		j.Target, j.Prompt, j.PromptBytes = "ollama-igpu", job.PromptOf(prompt), len(prompt)
		r.both(t, j)
		if e := r.kept(); len(e) != 2 || e[0].Cached != 0 || e[1].Cached != 50 {
			t.Errorf("the entries are %+v", e)
		}
	})
}
