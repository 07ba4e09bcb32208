package meter

import (
	"context"
	"errors"
	"strings"
	"sync"
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

// near reports whether two amounts are the same but for what a counter's
// period makes of them.
func near(a, b power.Energy) bool { return max(a-b, b-a) <= b/100+power.Joule/100 }

// learn has the meter see a pause in which the machine does nothing.
func learn(m *Meter) {
	m.Start(context.Background())
	pass(10 * time.Second)
}

// job runs one for that long while the package draws p.
func (m *machine) job(meter *Meter, c power.DeviceClass, p power.Power, d time.Duration) power.Cost {
	s := meter.Begin(context.Background(), work(c))
	m.draws("package-0", p)
	pass(d / 2)
	s.Tokens(context.Background(), 1)
	pass(d - d/2)
	return s.End(context.Background(), 0)
}

func TestCostOfAJob(t *testing.T) {
	tests := []struct {
		rule    string
		domains []power.Domain
		class   power.DeviceClass
		window  time.Duration
		prepare func(*machine)
		check   func(power.Cost) string
	}{
		{
			"what the machine draws anyway is not the job's",
			[]power.Domain{pkg},
			power.CPU, 10 * time.Second, nil,
			func(c power.Cost) string {
				return unless(near(c.Energy, 200*power.Joule) && near(c.Gross, 240*power.Joule) && c.Quality == power.Measured &&
					c.Scope == "package" && c.Source == "rapl" && c.Coverage > 0.99 && c.Shared == 1)
			},
		},
		{
			"nothing measured is told of a moment",
			[]power.Domain{pkg},
			power.CPU, 249 * time.Millisecond, nil,
			func(c power.Cost) string {
				return unless(c.Quality == power.Estimated && c.Source == "28.0 W assumed x 0.25 s" && c.Gross == 0)
			},
		},
		{
			"without a sensor the draw is assumed", nil, power.IntegratedGPU, 2 * time.Second, nil,
			func(c power.Cost) string {
				return unless(c.Quality == power.Estimated && c.Energy == 24*power.Joule && c.Coverage == 0)
			},
		},
		{
			"a sensor that cannot be read is none",
			[]power.Domain{pkg},
			power.CPU, 2 * time.Second,
			func(m *machine) { m.rails["package-0"].broken = true },
			func(c power.Cost) string { return unless(c.Quality == power.Estimated && c.Energy == 56*power.Joule) },
		},
		{
			"the package does not see a discrete GPU",
			[]power.Domain{pkg},
			power.NVIDIA, 2 * time.Second, nil,
			func(c power.Cost) string {
				return unless(c.Quality == power.Estimated && near(c.Energy, 40*power.Joule+110*power.Joule) &&
					c.Source == "rapl + 55.0 W assumed x 2.00 s" && c.Uncertainty == 0)
			},
		},
		{
			"its own sensor does",
			[]power.Domain{pkg, dgpu},
			power.NVIDIA, 10 * time.Second,
			func(m *machine) { m.draws("gpu", 40*power.Watt) },
			func(c power.Cost) string {
				return unless(c.Quality == power.Measured && near(c.Energy, 200*power.Joule+400*power.Joule) &&
					c.Scope == "dgpu+package" && c.Source == "nvml + rapl")
			},
		},
		{
			"samples of a draw are no counter",
			[]power.Domain{apu},
			power.IntegratedGPU, 10 * time.Second,
			func(m *machine) { m.rails["package-0"] = m.rails["apu"] },
			func(c power.Cost) string {
				return unless(c.Quality == power.Derived && c.Uncertainty > samplingError && c.Energy > 150*power.Joule)
			},
		},
		{
			"what runs elsewhere costs nothing here",
			[]power.Domain{pkg},
			power.Cloud, 2 * time.Second, nil,
			func(c power.Cost) string { return unless(c.Quality == power.None && c.Energy == 0) },
		},
		{
			"a suspend is a gap",
			[]power.Domain{pkg},
			power.CPU, 10 * time.Second,
			func(m *machine) { time.AfterFunc(13500*time.Millisecond, func() { m.sleep(time.Hour) }) },
			func(c power.Cost) string {
				return unless(c.Quality == power.Measured && c.Coverage > 0.89 && c.Coverage < 0.91 && near(c.Energy, 180*power.Joule))
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(tt.domains...)
				meter := New(m.options())
				defer meter.Close()
				if m.rails["package-0"] == nil {
					m.rails["package-0"] = newMachine(pkg).rails["package-0"]
				}
				if tt.prepare != nil {
					tt.prepare(m)
				}
				m.draws("package-0", 4*power.Watt)
				learn(meter)
				c := m.job(meter, tt.class, 24*power.Watt, tt.window)
				if fault := tt.check(c); fault != "" {
					t.Errorf("%s: %+v", fault, c)
				}
			})
		})
	}
}

func unless(ok bool) string {
	if ok {
		return ""
	}
	return "not so"
}

// sleep has the machine sleep.
func (m *machine) sleep(d time.Duration) {
	m.Lock()
	defer m.Unlock()
	m.suspended += d
}

func TestWhatWasLearnedStandsForWhatIsAssumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := New(Options{})
		defer meter.Close()
		w := work(power.IntegratedGPU)
		w.Learned = 17 * power.Watt
		s := meter.Begin(context.Background(), w)
		pass(2 * time.Second)
		if c := s.End(context.Background(), 0); c.Energy != 34*power.Joule || c.Quality != power.Estimated || c.Source != "17.0 W learned x 2.00 s" {
			t.Errorf("%+v", c)
		}
	})
}

func TestLoadAndTailAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		o := m.options()
		tails := map[string]power.Energy{}
		o.Tail = func(id string, e power.Energy) { tails[id] = e }
		meter := New(o)
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		s := meter.Begin(context.Background(), work(power.CPU))
		m.draws("package-0", 14*power.Watt) // loading
		pass(5 * time.Second)
		m.draws("package-0", 34*power.Watt) // reading, then writing
		pass(time.Second)
		s.Tokens(context.Background(), 1)
		pass(4 * time.Second)
		c := s.End(context.Background(), 5*time.Second)
		if !near(c.Load, 50*power.Joule) || !near(c.Energy, 50*power.Joule+150*power.Joule) {
			t.Errorf("%v, of which loading took %v", c, c.Load)
		}
		m.draws("package-0", 9*power.Watt) // the clocks come down slowly
		pass(3 * time.Second)
		if got := tails["cpu"]; !near(got, 10*power.Joule) {
			t.Errorf("the tail is %v", got)
		}
	})
}

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
		core := pkg
		core.Name, core.Scope, core.Within = "core-0", power.ScopeCore, "package-0"
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
		s.End(context.Background(), 0)
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
		first.End(context.Background(), 0) // while the next one has it read
		next := <-begun
		if n := gpu.rested.Load(); n > 0 {
			t.Errorf("it was let go of %d times", n)
		}
		next.End(context.Background(), 0)
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
		go gpu.End(context.Background(), 0)
		pass(time.Millisecond)
		start := time.Now()
		cpu.Tokens(context.Background(), 1)
		cpu.End(context.Background(), 0)
		if waited := time.Since(start); waited > 0 {
			t.Errorf("another job waited for %v", waited)
		}
		pass(time.Hour)
	})
}

func TestDrawsAreReadWhenSomebodyLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg, dgpu, apu)
		o := m.options()
		asleep := &resting{rail: m.rails["gpu"]}
		o.Sensors = []Sensor{m.rails["apu"], asleep, m.rails["package-0"]}
		meter := New(o)
		defer meter.Close()
		m.draws("package-0", 8*power.Watt)
		m.draws("apu", 5*power.Watt)
		for look := range 2 {
			start := time.Now()
			var said []string
			for _, d := range meter.Draws(context.Background()) {
				said = append(said, d.Domain.Name+" "+d.Draw.String())
			}
			if got := strings.Join(said, ", "); got != "apu 5.0 W, package-0 8.0 W" {
				t.Errorf("look %d: %s", look, got)
			}
			if look > 0 && time.Since(start) > 0 {
				t.Errorf("somebody who looks again waits %v", time.Since(start))
			}
			pass(time.Second)
		}
		if asleep.reads != 0 {
			t.Error("a device that is to be left alone was read")
		}
	})
}

func TestAnIdleDrawBelongsToItsConditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 8*power.Watt)
		meter.Conditions("mains")
		learn(meter)
		m.job(meter, power.CPU, 20*power.Watt, time.Second)
		meter.Conditions("battery")
		if b := meter.Balances()[0]; b.IdleDraw != 0 {
			t.Errorf("on battery nothing is known yet, but %v is told", b.IdleDraw)
		}
		meter.Conditions("mains")
		if b := meter.Balances()[0]; b.IdleDraw < 7*power.Watt || b.IdleDraw > 9*power.Watt {
			t.Errorf("on mains it is %v", b.IdleDraw)
		}
	})
}

func TestASensorThatHasToBeStartedLosesNoPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		meter.Start(context.Background())
		pass(time.Minute)
		m.fail(true)
		s := meter.Begin(context.Background(), work(power.CPU))
		pass(80 * time.Millisecond)
		m.fail(false)
		m.draws("package-0", 24*power.Watt)
		s.Tokens(context.Background(), 1)
		pass(10 * time.Second)
		c := s.End(context.Background(), 0)
		if b := meter.Balances()[0]; b.IdleDraw < 3*power.Watt || b.IdleDraw > 5*power.Watt || b.Idle < 236*power.Joule {
			t.Errorf("of the pause it knows %+v", b)
		}
		if !near(c.Energy, 200*power.Joule) || c.Coverage < 0.99 || c.Uncertainty > 0.2 {
			t.Errorf("the job is told %+v", c)
		}
	})
}

// fail has the package be readable or not.
func (m *machine) fail(broken bool) {
	m.Lock()
	defer m.Unlock()
	m.rails["package-0"].broken = broken
}

func TestABackendIsBilledOnceHoweverManyAsk(t *testing.T) {
	for _, domains := range [][]power.Domain{nil, {pkg}} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(domains...)
			meter := New(m.options())
			defer meter.Close()
			var open []*Span
			if len(domains) > 0 {
				m.draws("package-0", 4*power.Watt)
				learn(meter)
				m.draws("package-0", 32*power.Watt)
			}
			for range 16 {
				open = append(open, meter.Begin(context.Background(), work(power.CPU)))
			}
			sum := power.Energy(0)
			for i, s := range open { // one after the other, as the server has them wait
				pass(time.Second)
				for range 10 {
					s.Tokens(context.Background(), 1)
					pass(100 * time.Millisecond)
				}
				c := s.End(context.Background(), 0)
				if !near(c.Energy, 56*power.Joule) {
					t.Errorf("with %v job %d is told %v", domains, i, c)
				}
				sum += c.Energy
			}
			if !near(sum, 32*28*power.Joule) {
				t.Errorf("with %v all of them are told %v", domains, sum)
			}
		})
	}
}

func TestARailSaysNoMoreThanItsPackageHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg, npu)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 5*power.Watt)
		m.draws("npu", 8*power.Watt) // two sensors need not agree
		s := meter.Begin(context.Background(), work(power.NPU))
		pass(10 * time.Second)
		c := s.End(context.Background(), 0)
		sum := power.Energy(0)
		for _, b := range meter.Balances() {
			sum += b.Counted
		}
		if whole := m.rails["package-0"].total(); sum > whole || c.Energy > whole {
			t.Errorf("of %v the job is told %v, and %v are counted", whole, c.Energy, sum)
		}
	})
}

func TestWhoWritesMoreTakesMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		m.draws("package-0", 34*power.Watt)
		a, b := meter.Begin(context.Background(), work(power.CPU)), meter.Begin(context.Background(), work(power.CPU))
		for range 100 {
			a.Tokens(context.Background(), 2)
			b.Tokens(context.Background(), 1)
			pass(100 * time.Millisecond)
		}
		first, second := a.End(context.Background(), 0), b.End(context.Background(), 0)
		if !near(first.Energy, 200*power.Joule) || !near(second.Energy, 100*power.Joule) || first.Quality != power.Derived || first.Shared != 2 {
			t.Errorf("%+v and %+v", first, second)
		}
	})
}

func TestBrokenSensorsDoNotStopAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		s := meter.Begin(context.Background(), work(power.CPU))
		m.draws("package-0", 24*power.Watt)
		for _, broken := range []bool{false, true, false} {
			m.fail(broken)
			pass(4 * time.Second)
		}
		c := s.End(context.Background(), 0)
		if c.Quality != power.Measured || c.Coverage < 0.5 || c.Coverage > 0.75 {
			t.Errorf("%+v", c)
		}
		if _, err := m.rails["package-0"].Read(context.Background()); errors.Is(err, power.ErrUnavailable) {
			t.Error("the sensor has not been mended")
		}
	})
}

func TestAPauseUnderTwoConditionsTeachesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		meter.Conditions("battery")
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		m.job(meter, power.CPU, 20*power.Watt, time.Second)
		m.draws("package-0", 4*power.Watt)
		pass(time.Minute)
		meter.Conditions("line")
		pass(time.Second)
		m.job(meter, power.CPU, 20*power.Watt, time.Second)
		if b := meter.Balances()[0]; b.IdleDraw != 0 {
			t.Errorf("a minute on battery and a second on line power tell that it draws %v on line power", b.IdleDraw)
		}
	})
}

func TestAJobKnowsTheIdleDrawHoweverSeldomThereIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		meter.Start(context.Background())
		for job := range 3 {
			m.draws("package-0", 4*power.Watt)
			pass(time.Hour) // its counter may have passed its range more than once
			c := m.job(meter, power.CPU, 24*power.Watt, 10*time.Second)
			if !near(c.Energy, 200*power.Joule) || !near(c.Gross, 240*power.Joule) || c.Uncertainty > 0.2 {
				t.Errorf("job %d is told %+v", job, c)
			}
		}
	})
}

// slow is a rail that takes a while to read.
type slow struct {
	*rail
	takes time.Duration
	free  chan struct{} // holds one: whoever reads has it
}

func (s *slow) Read(ctx context.Context) (power.Reading, error) {
	<-s.free
	defer func() { s.free <- struct{}{} }()
	time.Sleep(s.takes)
	return s.rail.Read(ctx)
}

func TestATickThatIsLateDoesNotEndATail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		o := m.options()
		sensor := &slow{rail: m.rails["package-0"], takes: 20 * time.Millisecond, free: make(chan struct{}, 1)}
		sensor.free <- struct{}{}
		o.Sensors = []Sensor{sensor}
		tails := map[string]power.Energy{}
		o.Tail = func(id string, e power.Energy) { tails[id] = e }
		meter := New(o)
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		s := meter.Begin(context.Background(), work(power.CPU))
		m.draws("package-0", 24*power.Watt)
		pass(990 * time.Millisecond)
		s.End(context.Background(), 0) // while it reads the sensor, the tick comes and waits
		pass(5 * time.Second)
		if got := tails["cpu"]; !near(got, 40*power.Joule) {
			t.Errorf("the tail is %v", got)
		}
	})
}

func TestAShortLoadIsToldByTimeAlone(t *testing.T) {
	for _, load := range []time.Duration{50 * time.Millisecond, 950 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(pkg)
			meter := New(m.options())
			defer meter.Close()
			learn(meter)
			s := meter.Begin(context.Background(), work(power.CPU))
			m.draws("package-0", 90*power.Watt)
			pass(50 * time.Millisecond)
			m.draws("package-0", 10*power.Watt)
			s.Tokens(context.Background(), 1)
			pass(950 * time.Millisecond)
			c := s.End(context.Background(), load)
			if want := power.Energy(float64(c.Energy) * load.Seconds()); !near(c.Load, want) {
				t.Errorf("of %v, loading for %v took %v", c, load, c.Load)
			}
		})
	}
}

func TestAMomentThatWasSeenOfALongJobIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		s := meter.Begin(context.Background(), work(power.CPU))
		m.draws("package-0", 20*power.Watt)
		pass(100 * time.Millisecond)
		s.Tokens(context.Background(), 1)
		m.fail(true)
		pass(5 * time.Second)
		if c := s.End(context.Background(), 0); c.Quality != power.Estimated {
			t.Errorf("it is told %+v", c)
		}
	})
}

func TestDrawsAreToldOfNothingSmallerThanATenthOfAJoule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 7_130_000)
		list := meter.Draws(context.Background())
		if got := list[0].Draw.For(leastWindow); got%(power.Joule/10) != 0 {
			t.Errorf("in %v it is told to have taken %d uJ", leastWindow, got)
		}
		pass(100 * time.Millisecond)
		m.draws("package-0", 70*power.Watt)
		if again := meter.Draws(context.Background()); again[0].Draw != list[0].Draw {
			t.Errorf("looks that overlap tell what passed in a tenth of a second: %v, %v", list[0].Draw, again[0].Draw)
		}
		pass(time.Minute)
		both := make(chan power.Power, 2)
		for range 2 { // who comes while another waits is told the same
			go func() { both <- meter.Draws(context.Background())[0].Draw }()
			pass(100 * time.Millisecond)
			m.draws("package-0", 20*power.Watt)
		}
		if a, b := <-both, <-both; a != b {
			t.Errorf("looks that overlap tell of %v and %v", a, b)
		}
	})
}

func TestAServerThatWasStartedAnewMakesNothingBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		m.cpu.works("cpu", 8)
		pass(10 * time.Second)
		m.cpu.works("cpu", 0)
		learn(meter)
		s := meter.Begin(context.Background(), work(power.CPU))
		m.draws("package-0", 24*power.Watt)
		m.cpu.works("cpu", 4)
		pass(5 * time.Second)
		m.cpu.anew("cpu")
		m.cpu.works("cpu", 4)
		pass(5 * time.Second)
		c := s.End(context.Background(), 0)
		if b := meter.Balances()[0]; !near(c.Energy, 200*power.Joule) || b.Background != 0 {
			t.Errorf("the job is told %v, and %v are said to be others'", c, b.Background)
		}
		if c.Uncertainty < backgroundError {
			t.Errorf("it is told as certain: %+v", c)
		}
	})
}

// dozing is a rail that is being read when the machine is suspended, during
// which its counter goes on.
type dozing struct {
	*rail
	machine *machine
	// when is how it comes about: "before" the counter is read, "after" that,
	// or not at all; "cached" is before, but what was read before is given.
	when string
	last power.Reading
}

func (d *dozing) Read(ctx context.Context) (r power.Reading, err error) {
	d.Lock()
	when, last := d.when, d.last
	d.when = ""
	d.Unlock()
	switch when {
	case "before", "cached":
		d.doze()
		if when == "cached" {
			return last, nil
		}
		return d.rail.Read(ctx)
	case "after":
		r, err = d.rail.Read(ctx)
		d.doze()
		return r, err
	default:
		return d.rail.Read(ctx)
	}
}

// dozes has it happen when it is read next. Somebody else has it read now.
func (d *dozing) dozes(when string) {
	last, _ := d.rail.Read(context.Background())
	d.Lock()
	defer d.Unlock()
	d.when, d.last = when, last
}

func (d *dozing) doze() {
	d.machine.sleep(time.Hour)
	d.Lock()
	defer d.Unlock()
	d.offset += 60e6 // 60 J
}

func TestASuspendWhileASensorIsReadIsAGap(t *testing.T) {
	for _, when := range []string{"before", "after", "cached"} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(pkg)
			sensor := &dozing{rail: m.rails["package-0"], machine: m}
			o := m.options()
			o.Sensors = []Sensor{sensor}
			meter := New(o)
			defer meter.Close()
			m.draws("package-0", 4*power.Watt)
			learn(meter)
			s := meter.Begin(context.Background(), work(power.CPU))
			m.draws("package-0", 24*power.Watt)
			pass(4900 * time.Millisecond)
			sensor.dozes(when)
			pass(5100 * time.Millisecond)
			if c := s.End(context.Background(), 0); c.Energy > 200*power.Joule || c.Energy < 155*power.Joule || c.Coverage > 0.95 {
				t.Errorf("%s: the job is told %+v", when, c)
			}
		})
	}
}

func TestClocksThatAreReadOneAfterTheOtherAreNoSuspend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		o := m.options()
		looks := 0
		o.Suspended = func() time.Duration {
			looks++
			return time.Hour + time.Duration(looks%2)*3*time.Millisecond
		}
		meter := New(o)
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		if c := m.job(meter, power.CPU, 24*power.Watt, 10*time.Second); c.Coverage < 0.99 || !near(c.Energy, 200*power.Joule) {
			t.Errorf("the job is told %+v", c)
		}
	})
}

func TestATailThatIsCutOffAtOnceIsToldWithTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		o := m.options()
		tails := map[string]power.Energy{}
		o.Tail = func(id string, e power.Energy) { tails[id] = e }
		meter := New(o)
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		m.draws("package-0", 24*power.Watt)
		for _, id := range []string{"first", "second", "third"} {
			w := work(power.CPU)
			w.ID = id
			s := meter.Begin(context.Background(), w)
			pass(time.Second)
			s.End(context.Background(), 0)
			pass(100 * time.Millisecond) // is too short to tell
		}
		pass(5 * time.Second)
		if got := tails["third"]; len(tails) != 1 || !near(got, 44*power.Joule) {
			t.Errorf("it is told %v", tails)
		}
	})
}

// cached is a rail of which a reading stands for a tenth of a second, whoever
// asks.
type cached struct {
	*rail
	mu   sync.Mutex
	last power.Reading
}

func (c *cached) Read(ctx context.Context) (power.Reading, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.last.At) < 100*time.Millisecond {
		return c.last, nil
	}
	r, err := c.rail.Read(ctx)
	c.last = r
	return r, err
}

func (c *cached) at() time.Time {
	r, _ := c.Read(context.Background())
	return r.At
}

func TestADrawIsOfTheTimeBetweenReadingsAndNotBetweenLooks(t *testing.T) {
	for _, age := range []time.Duration{0, 20 * time.Millisecond, 60 * time.Millisecond, 99 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(pkg)
			sensor := &cached{rail: m.rails["package-0"]}
			o := m.options()
			o.Sensors = []Sensor{sensor}
			meter := New(o)
			defer meter.Close()
			m.draws("package-0", 8*power.Watt)
			for range 5 {
				pass(together + time.Second)
				before := sensor.at()
				time.AfterFunc(leastWindow-age, func() { sensor.at() }) // somebody else has it read
				list := meter.Draws(context.Background())
				if window := sensor.at().Sub(before); window < leastWindow {
					t.Errorf("with readings that are %v old it is told of %v", age, window)
				}
				if len(list) != 1 || list[0].Draw < 8*power.Watt || list[0].Draw.For(leastWindow) > 21*power.Joule/10 {
					t.Errorf("with readings that are %v old it is told %+v", age, list)
				}
			}
		})
	}
}

func TestACounterThatStandsStillHasNoDraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		o := m.options()
		stuck, _ := m.rails["package-0"].Read(context.Background())
		o.Sensors = []Sensor{&stopped{m.rails["package-0"], stuck}}
		meter := New(o)
		defer meter.Close()
		start := time.Now()
		if list := meter.Draws(context.Background()); len(list) != 0 || time.Since(start) > time.Second {
			t.Errorf("after %v it is told %+v", time.Since(start), list)
		}
	})
}

// stopped is a rail that says the same for ever.
type stopped struct {
	*rail
	says power.Reading
}

func (s *stopped) Read(context.Context) (power.Reading, error) { return s.says, nil }

func TestAJobThatShowsNoTokenForHoursTakesNoMoreMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		s := meter.Begin(context.Background(), work(power.CPU))
		m.draws("package-0", 14*power.Watt) // loading
		pass(20 * time.Minute)
		m.draws("package-0", 34*power.Watt) // reading
		pass(40 * time.Minute)
		if kept := len(meter.accounts[0].counted); kept > mostIntervals {
			t.Errorf("the account keeps %d intervals", kept)
		}
		s.Tokens(context.Background(), 1)
		if kept := len(s.parts[0].reading); kept > mostIntervals {
			t.Errorf("the job keeps %d intervals", kept)
		}
		pass(time.Minute)
		c := s.End(context.Background(), 20*time.Minute)
		if !near(c.Energy, 12_000*power.Joule+73_800*power.Joule) || c.Load < 11_880*power.Joule || c.Load > 12_500*power.Joule {
			t.Errorf("it is told %v, of which loading took %v", c, c.Load)
		}
	})
}

func TestAGapIsOneHoweverLongTheJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		s := meter.Begin(context.Background(), work(power.CPU))
		m.draws("package-0", 24*power.Watt)
		for range 10 {
			pass(2 * time.Minute)
			m.fail(true)
			pass(time.Minute)
			m.fail(false)
		}
		c := s.End(context.Background(), 0)
		if c.Coverage < 0.65 || c.Coverage > 0.67 || c.Energy < 23_700*power.Joule || c.Energy > 24_000*power.Joule {
			t.Errorf("%+v", c)
		}
	})
}

func TestADiscreteGPUThatNeverSleepsHasAnIdleDraw(t *testing.T) {
	for _, c := range []struct {
		rule      string
		sleeps    bool
		pause     time.Duration
		energy    power.Energy
		uncertain bool
	}{
		{"in a desktop its idle draw is not the job's", false, time.Minute, 400 * power.Joule, false},
		{"one that sleeps without jobs is all theirs", true, time.Minute, 550 * power.Joule, false},
		{"of one that calms down it is not known yet", false, 5 * time.Second, 550 * power.Joule, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(dgpu)
			meter := New(m.options())
			defer meter.Close()
			asleep := func(now bool) {
				m.Lock()
				defer m.Unlock()
				m.rails["gpu"].asleep = now && c.sleeps
			}
			m.draws("gpu", 15*power.Watt)
			asleep(true)
			gpuJob := func() power.Cost {
				s := meter.Begin(context.Background(), work(power.NVIDIA))
				asleep(false)
				s.Tokens(context.Background(), 1)
				m.draws("gpu", 55*power.Watt)
				pass(10 * time.Second)
				m.draws("gpu", 15*power.Watt)
				return s.End(context.Background(), 0)
			}
			if first := gpuJob(); first.Uncertainty > idleError != !c.sleeps {
				t.Errorf("%s: of the first it is told %+v", c.rule, first)
			}
			pass(c.pause)
			asleep(true)
			if second := gpuJob(); !near(second.Energy, c.energy) || second.Uncertainty > idleError != c.uncertain {
				t.Errorf("%s: it is told %+v", c.rule, second)
			}
		})
	}
}

// beside has a job stream beside an undivided one, of the same backend unless
// apart, on a machine that draws 30 W more for both. Every second one of them
// ends, or none; the undivided one by ctx.
func beside(ctx context.Context, domains []power.Domain, apart bool, ends ...string) (streaming, undivided power.Cost) {
	m := newMachine(domains...)
	meter := New(m.options())
	defer meter.Close()
	if len(domains) > 0 {
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		m.draws("package-0", 34*power.Watt)
	}
	other := work(power.CPU)
	if apart {
		other.Backend = "another"
	}
	s, u := meter.Begin(context.Background(), work(power.CPU)), meter.Begin(context.Background(), other)
	for _, end := range ends {
		for range 10 {
			if s.ended.IsZero() {
				s.Tokens(context.Background(), 1)
			}
			pass(100 * time.Millisecond)
		}
		switch end {
		case "streaming":
			streaming = s.End(context.Background(), 0)
		case "undivided":
			undivided = u.End(ctx, 0)
		}
	}
	return streaming, undivided
}

func TestAnUndividedAnswerBesideAStreamIsNotForNothing(t *testing.T) {
	for _, c := range []struct {
		rule  string
		gone  bool // nobody waits for it
		ends  []string
		check func(s, u power.Cost) bool
	}{
		{
			"it has its part of what the other one was not told yet", false,
			[]string{"", "undivided", "streaming"},
			func(s, u power.Cost) bool {
				return near(u.Energy, 30*power.Joule) && u.Quality == power.Derived && u.Shared == 2 && u.Uncertainty < 0.3 &&
					near(s.Energy, 60*power.Joule) && s.Quality == power.Derived && s.Shared == 2
			},
		},
		{
			"what the other one was told stays, and it is uncertain what it took", false,
			[]string{"", "streaming", "undivided"},
			func(s, u power.Cost) bool {
				return near(s.Energy, 60*power.Joule) && s.Uncertainty > sharingError &&
					near(u.Energy, 30*power.Joule) && u.Quality == power.Derived && u.Uncertainty > 0.9
			},
		},
		{
			"who leaves the line takes nothing from the others, but that is uncertain", true,
			[]string{"", "undivided", "streaming"},
			func(s, u power.Cost) bool {
				return near(s.Energy, 90*power.Joule) && u.Energy == 0 && u.Quality == power.Derived && u.Uncertainty == 1
			},
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.gone {
				cancel()
			}
			s, u := beside(ctx, []power.Domain{pkg}, false, c.ends...)
			if !c.check(s, u) {
				t.Errorf("%s: it is told %+v, and the other %+v", c.rule, u, s)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		if s, u := beside(t.Context(), nil, false, "", "undivided", "streaming"); u.Energy != 28*power.Joule || s.Energy != 56*power.Joule {
			t.Errorf("without a sensor it is told %v, and the other %v", u, s)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		if s, u := beside(t.Context(), []power.Domain{pkg}, true, "", "undivided", "streaming"); !near(u.Energy, 30*power.Joule) || !near(s.Energy, 60*power.Joule) {
			t.Errorf("on another backend it is told %v, and the other %v", u, s)
		}
	})
}

func TestUndividedAnswersThatEndBeforeOlderOnesAreNotForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		m.draws("package-0", 34*power.Watt)
		older := meter.Begin(context.Background(), work(power.CPU))
		pass(time.Second)
		a, b := meter.Begin(context.Background(), work(power.CPU)), meter.Begin(context.Background(), work(power.CPU))
		pass(3 * time.Second)
		for _, s := range []*Span{a, b} {
			if c := s.End(context.Background(), 0); !near(c.Energy, 30*power.Joule) || c.Quality != power.Derived || c.Shared != 3 {
				t.Errorf("it is told %+v", c)
			}
		}
		if c := older.End(context.Background(), time.Second); !near(c.Energy, 60*power.Joule) || !near(c.Load, 30*power.Joule) {
			t.Errorf("the older one is told %v, of which loading took %v", c, c.Load)
		}
	})
}

func TestWhoStoodInLineIsCertainOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		m.draws("package-0", 34*power.Watt)
		first, second := meter.Begin(context.Background(), work(power.CPU)), meter.Begin(context.Background(), work(power.CPU))
		first.Tokens(context.Background(), 1)
		pass(5 * time.Second)
		first.End(context.Background(), 0)
		second.Tokens(context.Background(), 1)
		pass(5 * time.Second)
		if c := second.End(context.Background(), 0); !near(c.Energy, 150*power.Joule) || c.Quality != power.Measured || c.Uncertainty >= sharingError {
			t.Errorf("it is told %+v", c)
		}
	})
}

func TestWhoBeginsToWriteClaimsNothingFromBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		m.draws("package-0", 34*power.Watt)
		first, second := meter.Begin(context.Background(), work(power.CPU)), meter.Begin(context.Background(), work(power.CPU))
		first.Tokens(context.Background(), 1)
		pass(5 * time.Second)
		for _, s := range []*Span{first, second} {
			s.Tokens(context.Background(), 1)
		}
		pass(2 * time.Second)
		for _, s := range []*Span{first, second} {
			s.Tokens(context.Background(), 1)
		}
		if c := second.End(context.Background(), 0); !near(c.Energy, 30*power.Joule) {
			t.Errorf("it is told %+v", c)
		}
		if c := first.End(context.Background(), 0); !near(c.Energy, 180*power.Joule) {
			t.Errorf("the one before it is told %+v", c)
		}
	})
}
