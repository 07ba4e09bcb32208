package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
)

// Held implements dispatch.Ledger.
func (r *rig) Held(backend string, onBattery bool, draw power.Power) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = append(r.held, fmt.Sprintf("%s, on battery %v: %v", backend, onBattery, draw))
}

// nvidiaGPU is a GPU's counter, which draws the same whatever happens.
type nvidiaGPU struct {
	draw   power.Power
	mu     sync.Mutex
	asleep bool
	reads  []time.Duration // since it began
	began  time.Time
}

func (*nvidiaGPU) Domain() power.Domain {
	return power.Domain{Name: "gpu", Scope: power.ScopeDiscreteGPU, Source: power.SourceNVML, Cumulative: true, Most: 200 * power.Watt}
}

func (g *nvidiaGPU) Read(context.Context) (power.Reading, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.asleep {
		return power.Reading{}, power.ErrAsleep
	}
	since := time.Since(g.began)
	g.reads = append(g.reads, since)
	return power.Reading{At: time.Now(), Energy: g.draw.For(since)}, nil
}

func (g *nvidiaGPU) sleeps(now bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asleep = now
}

// after returns when it was read after some time.
func (g *nvidiaGPU) after(d time.Duration) (list []time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, at := range g.reads {
		if at > d {
			list = append(list, at)
		}
	}
	return list
}

// knownToHold is what is learned of a GPU that was measured so often.
func knownToHold(draw power.Power, times int, at time.Time) map[string]ledger.Learned {
	var l ledger.Learned
	for range times {
		l.HoldDraw = l.HoldDraw.With(draw, at)
	}
	return map[string]ledger.Learned{"ollama-nvidia": l}
}

// costly gives the NVIDIA GPU models whose load takes 220 J, by what is assumed of
// it: 4 s at 55 W.
func costly(r *rig) {
	r.nvidia.models = nil
	for _, name := range []string{"m", "n"} {
		r.nvidia.models = append(r.nvidia.models, job.Model{Name: name, Digest: name, Size: 3_000_000_000, Resident: true})
	}
}

// empty has the server hold no model.
func (s *server) empty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.models = slices.Clone(s.models)
	for i := range s.models {
		s.models[i].Resident = false
	}
}

func TestWhatHoldingAModelTakesIsMeasuredWhileItIsHeld(t *testing.T) {
	const (
		start = 5 * time.Second        // line power is steady
		ended = start + 3*time.Second  // the job
		calm  = ended + 10*time.Second // the device
		told  = "ollama-nvidia, on battery false: 8.0 W"
		week  = 7*24*time.Hour + time.Hour
		later = 3 * time.Minute // than models are held here
	)
	jobOn := func(target string) func(*testing.T, *rig) {
		return func(t *testing.T, r *rig) {
			if err := r.Run(t.Context(), on(target), new(sink)); err != nil {
				t.Error(err)
			}
		}
	}
	nvidia := jobOn("ollama-nvidia")
	for rule, c := range map[string]struct {
		change func(*testing.T, *rig)
		jobs   func(*testing.T, *rig)
		want   []string        // with 8 W
		reads  []time.Duration // after the last job
	}{
		"after a job":           {nil, nvidia, []string{told}, []time.Duration{calm, calm + 2*time.Second}},
		"not of another device": {nil, jobOn("ollama-igpu"), nil, nil},
		"not if it is known": {func(_ *testing.T, r *rig) {
			r.onLine = knownToHold(8*power.Watt, 3, time.Now())
		}, nvidia, nil, nil},
		"again if that is not enough": {func(_ *testing.T, r *rig) {
			r.onLine = knownToHold(8*power.Watt, 2, time.Now())
		}, nvidia, []string{told}, []time.Duration{calm, calm + 2*time.Second}},
		"again if that was long ago": {func(_ *testing.T, r *rig) {
			r.onLine = knownToHold(8*power.Watt, 3, time.Now().Add(-week))
		}, nvidia, []string{told}, []time.Duration{calm, calm + 2*time.Second}},
		"not if nothing is to be learned": {func(_ *testing.T, r *rig) {
			s := dispatch.DefaultSettings()
			s.Learn = false
			r.Configure(s)
		}, nvidia, nil, nil},
		"not where the model goes before": {func(_ *testing.T, r *rig) {
			r.onLine = knownToHold(20*power.Watt, 3, time.Now().Add(-week)) // 220 J are 11 s
		}, nvidia, nil, nil},
		"not on battery, where it goes at once": {func(t *testing.T, r *rig) { r.supply(t, 80) }, nvidia, nil, nil},
		"a job in between puts it off": {nil, func(t *testing.T, r *rig) {
			nvidia(t, r)
			time.Sleep(6 * time.Second)
			nvidia(t, r)
		}, []string{told}, []time.Duration{calm + 9*time.Second, calm + 11*time.Second}},
		"a job during it spoils it": {nil, func(t *testing.T, r *rig) {
			nvidia(t, r)
			time.Sleep(11 * time.Second)
			nvidia(t, r)
		}, []string{told}, []time.Duration{ended + 24*time.Second, ended + 26*time.Second}},
		"a model that goes during it spoils it": {nil, func(t *testing.T, r *rig) {
			nvidia(t, r)
			time.Sleep(11 * time.Second)
			r.supply(t, 80)
		}, nil, nil},
		"another supply during it spoils it": {func(_ *testing.T, r *rig) {
			s := dispatch.DefaultSettings()
			s.Residency.HoldOnBattery = true
			r.Configure(s)
		}, func(t *testing.T, r *rig) {
			nvidia(t, r)
			time.Sleep(11 * time.Second)
			r.supply(t, 80)
		}, nil, []time.Duration{calm + 2*time.Second}},
		"another model that was asked puts it off": {nil, func(t *testing.T, r *rig) {
			nvidia(t, r)
			time.Sleep(6 * time.Second)
			j := on("ollama-nvidia")
			j.Model = "n"
			if err := r.Run(t.Context(), j, new(sink)); err != nil {
				t.Error(err)
			}
		}, []string{told}, []time.Duration{calm + 9*time.Second, calm + 11*time.Second}},
		"a backend that goes during it spoils it": {nil, func(t *testing.T, r *rig) {
			nvidia(t, r)
			time.Sleep(11 * time.Second)
			r.configureBackends(power.IntegratedGPU)
		}, nil, []time.Duration{calm + 2*time.Second}},
		"not after a job that failed": {func(_ *testing.T, r *rig) {
			r.nvidia.script = fails(job.BackendFailed, "out of memory")
		}, func(t *testing.T, r *rig) { _ = r.Run(t.Context(), on("ollama-nvidia"), new(sink)) }, nil, nil},
		"nor one that was refused": {func(_ *testing.T, r *rig) {
			r.nvidia.script = func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
				return errors.Join(begin(job.Head{Status: 400}), emit(job.Chunk{Last: true}))
			}
		}, nvidia, nil, nil},
		"a model that somebody else lets go spoils it": {nil, func(t *testing.T, r *rig) {
			nvidia(t, r)
			time.Sleep(11 * time.Second)
			r.nvidia.empty()
		}, nil, []time.Duration{calm + 2*time.Second}},
		"nobody waits for it at the end": {nil, func(t *testing.T, r *rig) {
			nvidia(t, r)
			time.Sleep(time.Second)
			stopped := time.Now()
			r.stop()
			if late := time.Since(stopped); late > 0 {
				t.Errorf("the end took %v", late)
			}
		}, nil, nil},
	} {
		gpu := &nvidiaGPU{draw: 8 * power.Watt}
		scenario(t, func(r *rig) {
			costly(r)
			gpu.began, gpu.asleep = time.Now(), true
			r.metered.Sensors = []meter.Sensor{gpu}
		}, func(t *testing.T, r *rig) {
			plugIn(t, r)
			if c.change != nil {
				c.change(t, r)
			}
			time.Sleep(start)
			time.AfterFunc(time.Second, func() { gpu.sleeps(false) }) // a job wakes it
			c.jobs(t, r)
			last := time.Since(gpu.began)
			time.Sleep(later)
			synctest.Wait()
			if !slices.Equal(r.held, c.want) {
				t.Errorf("%s: told is %q, want %q", rule, r.held, c.want)
			}
			if got := gpu.after(last); !slices.Equal(got, c.reads) {
				t.Errorf("%s: it was read at %v, want %v", rule, got, c.reads)
			}
		})
	}
}

func TestAModelIsHeldForAsLongAsItsMeasuredDrawMakesWorthwhile(t *testing.T) {
	for _, c := range []struct {
		draw      power.Power
		times     int
		age, want time.Duration
	}{
		{0, 0, 0, 27500 * time.Millisecond}, // 8 W are assumed
		{5 * power.Watt, 2, 0, 27500 * time.Millisecond},
		{5 * power.Watt, 3, 0, 44 * time.Second},
		{20 * power.Watt, 3, 29 * 24 * time.Hour, 11 * time.Second},
		{20 * power.Watt, 3, 31 * 24 * time.Hour, 27500 * time.Millisecond},
	} {
		scenario(t, costly, func(t *testing.T, r *rig) {
			plugIn(t, r)
			time.Sleep(5 * time.Second)
			r.onLine = knownToHold(c.draw, c.times, time.Now().Add(-c.age))
			if err := r.Run(t.Context(), on("ollama-nvidia"), new(sink)); err != nil {
				t.Fatal(err)
			}
			if got := r.nvidia.jobs[0].KeepAlive; got == nil || *got != c.want {
				t.Errorf("at %v, seen %d times, %v ago, its server is to keep it for %v, want %v", c.draw, c.times, c.age, got, c.want)
			}
		})
	}
}

func TestWhereSomebodyElseWorksHoldingIsNotWhatIsSeen(t *testing.T) {
	for draw, want := range map[power.Power]int{27 * power.Watt: 1, 28 * power.Watt: 0} { // of 55 W at work
		gpu := &nvidiaGPU{draw: draw, asleep: true}
		scenario(t, func(r *rig) {
			costly(r)
			gpu.began = time.Now()
			r.metered.Sensors = []meter.Sensor{gpu}
		}, func(t *testing.T, r *rig) {
			plugIn(t, r)
			time.Sleep(5 * time.Second)
			time.AfterFunc(time.Second, func() { gpu.sleeps(false) })
			if err := r.Run(t.Context(), on("ollama-nvidia"), new(sink)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if len(r.held) != want {
				t.Errorf("told is %q", r.held)
			}
		})
	}
}

func TestADeviceThatTakesNothingToHoldDoesNotWhateverWasLearnedOfItsName(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		r.onLine = map[string]ledger.Learned{"ollama-igpu": knownToHold(8*power.Watt, 3, time.Now())["ollama-nvidia"]}
		plugIn(t, r)
		time.Sleep(5 * time.Second)
		if err := r.Run(t.Context(), on("ollama-igpu"), new(sink)); err != nil {
			t.Fatal(err)
		}
		if got := r.igpu.jobs[0].KeepAlive; got != nil {
			t.Errorf("its server is to keep it for %v", *got)
		}
	})
}
