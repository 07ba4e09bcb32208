package meter

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
)

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
	return s.End(context.Background(), 0, 0)
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
			func(c power.Cost) string {
				return unless(c.Quality == power.None && c.Energy == 0 && near(c.Radio, 2*power.Joule))
			},
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
		if c := s.End(context.Background(), 0, 0); c.Energy != 34*power.Joule || c.Quality != power.Estimated || c.Source != "17.0 W learned x 2.00 s" {
			t.Errorf("%+v", c)
		}
	})
}

// keepTails keeps the tails that are told, by job, and sees to it that what is more
// of one each time makes up all of it.
func keepTails(t *testing.T, o *Options) map[string]power.Energy {
	t.Helper()
	tails := map[string]power.Energy{}
	o.Tail = func(told Tail) {
		tails[told.Work.ID] += told.More
		if all := tails[told.Work.ID]; told.More <= 0 || all != told.Energy {
			t.Errorf("%v more make %v, and all is said to be %v", told.More, all, told.Energy)
		}
	}
	return tails
}

func TestLoadAndTailAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		o := m.options()
		tails := keepTails(t, &o)
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
		c := s.End(context.Background(), 5*time.Second, 0)
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
		c := s.End(context.Background(), 0, 0)
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

func TestARailSaysNoMoreThanItsPackageHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg, npu)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 5*power.Watt)
		m.draws("npu", 8*power.Watt) // two sensors need not agree
		s := meter.Begin(context.Background(), work(power.NPU))
		pass(10 * time.Second)
		c := s.End(context.Background(), 0, 0)
		sum := power.Energy(0)
		for _, b := range meter.Balances() {
			sum += b.Counted
		}
		if whole := m.rails["package-0"].total(); sum > whole || c.Energy > whole {
			t.Errorf("of %v the job is told %v, and %v are counted", whole, c.Energy, sum)
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
		c := s.End(context.Background(), 0, 0)
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
		tails := keepTails(t, &o)
		meter := New(o)
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		s := meter.Begin(context.Background(), work(power.CPU))
		m.draws("package-0", 24*power.Watt)
		pass(990 * time.Millisecond)
		s.End(context.Background(), 0, 0) // while it reads the sensor, the tick comes and waits
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
			c := s.End(context.Background(), load, 0)
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
		if c := s.End(context.Background(), 0, 0); c.Quality != power.Estimated {
			t.Errorf("it is told %+v", c)
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
		c := s.End(context.Background(), 0, 0)
		if b := meter.Balances()[0]; !near(c.Energy, 200*power.Joule) || b.Background != 0 {
			t.Errorf("the job is told %v, and %v are said to be others'", c, b.Background)
		}
		if c.Uncertainty < backgroundError {
			t.Errorf("it is told as certain: %+v", c)
		}
	})
}

func TestATailThatIsCutOffAtOnceIsToldWithTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		o := m.options()
		tails := keepTails(t, &o)
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
			s.End(context.Background(), 0, 0)
			pass(100 * time.Millisecond) // is too short to tell
		}
		pass(5 * time.Second)
		if got := tails["third"]; len(tails) != 1 || !near(got, 44*power.Joule) {
			t.Errorf("it is told %v", tails)
		}
	})
}

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
		c := s.End(context.Background(), 20*time.Minute, 0)
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
		c := s.End(context.Background(), 0, 0)
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
			asleep := func(now bool) { m.rails["gpu"].sleeps(now && c.sleeps) }
			m.draws("gpu", 15*power.Watt)
			asleep(true)
			gpuJob := func() power.Cost {
				s := meter.Begin(context.Background(), work(power.NVIDIA))
				asleep(false)
				s.Tokens(context.Background(), 1)
				m.draws("gpu", 55*power.Watt)
				pass(10 * time.Second)
				m.draws("gpu", 15*power.Watt)
				return s.End(context.Background(), 0, 0)
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
