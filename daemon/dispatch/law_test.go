package dispatch_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// ends counts how a job ended, as its client sees it.
type ends struct {
	sink
	last  int
	after bool // something came after the last chunk
}

func (e *ends) Chunk(ctx context.Context, c job.Chunk, r *dispatch.Report) error {
	e.after = e.after || e.last > 0
	if (r != nil) != c.Last {
		return errors.New("the report does not come with the last chunk")
	}
	err := e.sink.Chunk(ctx, c, r)
	if c.Last && err == nil {
		e.last++
	}
	return err
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

// guest is a job that may come at random, and its client.
type guest struct {
	job.Job
	comes, leaves time.Duration
	ends
	err error // of Run
}

func someone(r *rand.Rand) *guest {
	g := &guest{Job: chat(), comes: time.Duration(r.IntN(60)) * time.Second, leaves: time.Duration(1+r.IntN(200)) * time.Second}
	g.Target = []string{"", "", "", "nvidia", "npu", "igpu"}[r.IntN(6)]
	g.Class = []job.Class{job.Interactive, job.Interactive, job.Background}[r.IntN(3)]
	g.LatencyCritical, g.PreferPowerEfficiency = r.IntN(4) == 0, r.IntN(4) == 0
	g.Deadline = time.Duration(r.IntN(3)) * 20 * time.Second
	if r.IntN(3) == 0 {
		g.MaxPower = power.Watts(20 * float64(1+r.IntN(3)))
	}
	if r.IntN(3) == 0 {
		g.MaxLatency = time.Duration(1+r.IntN(10)) * time.Second
	}
	return g
}

// run runs the guest's job, and checks how it ends.
func (g *guest) run(t *testing.T, h *rig) {
	t.Helper()
	time.Sleep(g.comes)
	ctx, cancel := context.WithTimeout(t.Context(), g.leaves)
	defer cancel()
	err := h.Run(ctx, g.Job, &g.ends)
	g.err = err
	var typed *job.Error
	switch {
	case err == nil && g.last != 1:
		t.Errorf("ended well with %d last chunks", g.last)
	case err != nil && g.last != 0:
		t.Errorf("a last chunk, and then %v", err)
	case err != nil && !errors.As(err, &typed):
		t.Errorf("the error %v has no type", err)
	case g.begun > 1 || g.after:
		t.Errorf("begun %d times, more after the end: %v", g.begun, g.after)
	}
}

// permitted says by which constraint a job may not be on a backend of that
// class now, or "". The servers have all models loaded, and priors.
func (r *rig) permitted(class power.DeviceClass, j job.Job) string {
	rules := gpuAsleep().Rules
	tier := r.tiers.Current().Tier
	rule := rules.For(tier)
	named := j.Target == string(class)
	profile := backend.Prior(class)
	switch {
	case j.Target != "" && !named:
		return "it is not the target"
	case j.Class == job.Background && rule.Background != route.Run:
		return "no background job runs"
	case class.Discrete() && rule.DiscreteGPU == route.Never:
		return "no GPU runs"
	case class.Discrete() && rule.DiscreteGPU != route.Always && !named && !(j.LatencyCritical && rule.DiscreteGPU == route.LatencyCritical):
		return "the GPU is for others"
	case j.MaxPower > 0 && profile.Draw > j.MaxPower:
		return "it draws too much"
	case j.MaxLatency > 0 && time.Since(j.Arrived)+profile.FirstToken > j.MaxLatency:
		return "it is too late"
	case r.heat.has(class):
		return "it is too hot"
	default:
		return ""
	}
}

// heat is which devices are too hot, as its owner marks them.
type heat struct {
	dispatch.Backends
	mu  sync.Mutex
	hot map[power.DeviceClass]bool
}

func (h *heat) set(c power.DeviceClass, hot bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hot[c] = hot
}

func (h *heat) has(c power.DeviceClass) bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hot[c]
}

func (h *heat) mark(s backend.Snapshot) backend.Snapshot {
	marked := slices.Clone(s)
	for i := range marked {
		if h.has(marked[i].Class) {
			marked[i].Vetoed = "too hot"
		}
	}
	return marked
}

func (h *heat) Wanted(ctx context.Context) backend.Snapshot { return h.mark(h.Backends.Wanted(ctx)) }

func (h *heat) Search(ctx context.Context) backend.Snapshot { return h.mark(h.Backends.Search(ctx)) }
func (h *heat) Current() backend.Snapshot                   { return h.mark(h.Backends.Current()) }

// weather changes the tier and the heat at random, at moments at which nothing
// else happens.
func (r *rig) weather(ctx context.Context, t *testing.T, random *rand.Rand) {
	t.Helper()
	for {
		select {
		case <-time.After(time.Duration(1+random.IntN(15))*time.Second + time.Millisecond):
		case <-ctx.Done():
			return
		}
		if random.IntN(3) == 0 {
			r.heat.set([]power.DeviceClass{power.NPU, power.IntegratedGPU, power.CPU}[random.IntN(3)], random.IntN(2) == 0)
			continue
		}
		s := power.Supply{Source: "upower", Battery: true, Discharging: random.IntN(4) > 0, Charge: power.Charge(random.IntN(100))}
		if r.tiers.Supply(ctx, s) != nil {
			return
		}
	}
}

// TestEveryJobEndsExactlyOnce runs jobs on servers that fail at random, with
// clients that leave at random and a daemon that stops in the midst of it,
// while the tier changes and devices get hot. And wherever a job is sent, at
// first and in fallback, it may be there at that moment.
func TestEveryJobEndsExactlyOnce(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			h := newRig(t, func(h *rig) {
				h.veto = true
				for class, s := range map[power.DeviceClass]*server{power.NPU: h.npu, power.IntegratedGPU: h.igpu, power.NVIDIA: h.nvidia, power.CPU: h.cpu} {
					s.script = erratic(rand.New(rand.NewPCG(seed, r.Uint64())))
					s.check = func(j job.Job) {
						if why := h.permitted(class, j); why != "" {
							t.Errorf("seed %d: on %v a job is sent to the %s, where %s: %+v", seed, h.tiers.Current().Tier, class, why, j.Annotations)
						}
					}
				}
			})
			var jobs sync.WaitGroup
			guests := make([]*guest, 30)
			for i := range guests {
				guests[i] = someone(r)
				jobs.Go(func() { guests[i].run(t, h) })
			}
			ctx, cancel := context.WithCancel(t.Context())
			var changes sync.WaitGroup
			changes.Go(func() { h.weather(ctx, t, rand.New(rand.NewPCG(seed, 2))) })
			time.AfterFunc(time.Duration(30+r.IntN(60))*time.Second, h.Stop)
			jobs.Wait()
			cancel()
			changes.Wait()
			attempts := 0
			for _, g := range guests {
				attempts += len(g.routed)
			}
			if n := h.Running(); n != 0 {
				t.Errorf("seed %d: %d jobs never ended", seed, n)
			}
			if n := len(h.entries); n != attempts || h.seen != attempts {
				t.Errorf("seed %d: the ledger has %d attempts of %d, an observer %d", seed, n, attempts, h.seen)
			}
			if got, want := outcomes(h.told), outcomesOf(guests); !maps.Equal(got, want) {
				t.Errorf("seed %d: an observer hears of %v, and clients of %v", seed, got, want)
			}
		})
	}
}
