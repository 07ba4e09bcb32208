package meter

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
)

// resting is a rail that has to be left alone when nothing runs on it.
type resting struct {
	*rail
	rested atomic.Int64
}

func (r *resting) Rest() { r.rested.Add(1) }

func TestNothingIsReadWhileNothingRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg, dgpu)
		o := m.options()
		gpu := &resting{rail: m.rails["gpu"]}
		o.Sensors = []Sensor{m.rails["package-0"], gpu}
		meter := New(o)
		defer meter.Close()
		learn(meter)
		m.job(meter, power.CPU, 20*power.Watt, 3*time.Second)
		if gpu.reads != 0 {
			t.Errorf("the discrete GPU was read %d times for a job on the CPU", gpu.reads)
		}
		gpu.rested.Store(0)
		m.job(meter, power.NVIDIA, 20*power.Watt, 3*time.Second)
		if gpu.reads == 0 || gpu.rested.Load() != 1 {
			t.Errorf("for a job of its own it was read %d times, and let go of %d times", gpu.reads, gpu.rested.Load())
		}
		read := gpu.reads
		pass(time.Minute)
		quiet := m.rails["package-0"].reads
		pass(24 * time.Hour)
		if gpu.reads != read || m.rails["package-0"].reads != quiet {
			t.Error("a sensor was read in a day without jobs")
		}
	})
}

func TestASensorThatIsOnlyLookedAtRestsAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg, core)
		o := m.options()
		helped := []*resting{{rail: m.rails["package-0"]}, {rail: m.rails["core-0"]}}
		o.Sensors = []Sensor{helped[0], helped[1]}
		meter := New(o)
		defer meter.Close()
		meter.Start(context.Background())
		meter.Draws(context.Background())
		for _, h := range helped {
			if h.rested.Load() == 0 {
				t.Errorf("%s was not let go of", h.domain.Name)
			}
			h.rested.Store(0)
		}
		s := meter.Begin(context.Background(), work(power.CPU))
		pass(leastWindow)
		meter.Draws(context.Background())
		if helped[0].rested.Load() > 0 || helped[1].rested.Load() == 0 {
			t.Error("what a job needs was let go of, or what it does not was not")
		}
		s.End(context.Background(), 0, 0)
		pass(tailTime + time.Second)
		if helped[0].rested.Load() == 0 {
			t.Error("after the tail of the job its sensor was not let go of")
		}
	})
}

// sluggish is a rail that takes a while to read, or to let go of.
type sluggish struct {
	resting
	reads, rests time.Duration
}

func (s *sluggish) Read(ctx context.Context) (power.Reading, error) {
	time.Sleep(s.reads)
	return s.rail.Read(ctx)
}

func (s *sluggish) Rest() {
	time.Sleep(s.rests)
	s.resting.Rest()
}

func TestASensorThatAJobBeginsWithIsNotLetGoOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(dgpu)
		o := m.options()
		gpu := &sluggish{resting: resting{rail: m.rails["gpu"]}, reads: 50 * time.Millisecond}
		o.Sensors = []Sensor{gpu}
		meter := New(o)
		defer meter.Close()
		first := meter.Begin(context.Background(), work(power.NVIDIA))
		pass(100 * time.Millisecond)
		begun := make(chan *Span)
		time.AfterFunc(10*time.Millisecond, func() { begun <- meter.Begin(context.Background(), work(power.NVIDIA)) })
		first.End(context.Background(), 0, 0) // while the next one has it read
		next := <-begun
		if n := gpu.rested.Load(); n > 0 {
			t.Errorf("it was let go of %d times", n)
		}
		next.End(context.Background(), 0, 0)
		if n := gpu.rested.Load(); n != 1 {
			t.Errorf("after the last job it was let go of %d times", n)
		}
	})
}

func TestNobodyWaitsForASensorToBeLetGoOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg, dgpu)
		o := m.options()
		o.Sensors = []Sensor{m.rails["package-0"], &sluggish{resting: resting{rail: m.rails["gpu"]}, rests: time.Hour}}
		meter := New(o)
		defer meter.Close()
		gpu := meter.Begin(context.Background(), work(power.NVIDIA))
		cpu := meter.Begin(context.Background(), work(power.CPU))
		pass(time.Second)
		go gpu.End(context.Background(), 0, 0)
		pass(time.Millisecond)
		start := time.Now()
		cpu.Tokens(context.Background(), 1)
		cpu.End(context.Background(), 0, 0)
		if waited := time.Since(start); waited > 0 {
			t.Errorf("another job waited for %v", waited)
		}
		pass(time.Hour)
	})
}

func TestWhoLeavesWhileHeLooksHoldsNoSensor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		held := &resting{rail: m.rails["package-0"]}
		meter := New(Options{Sensors: []Sensor{held}})
		defer meter.Close()
		ctx, leave := context.WithTimeout(context.Background(), leastWindow/2)
		defer leave()
		meter.Draws(ctx)
		if rested := held.rested.Load(); rested != 1 {
			t.Errorf("it was let go of %d times", rested)
		}
	})
}
