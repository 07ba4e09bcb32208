package meter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
)

func TestSensorThatComesLaterTellsOfTheNextJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(Options{})
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		s := meter.Begin(context.Background(), work(power.CPU))
		if meter.Adopt(context.Background(), m.options().Sensors) || meter.Reads("package-0") {
			t.Error("a job changes its sensors on the way")
		}
		pass(2 * time.Second)
		if c := s.End(context.Background(), 0, 0); c.Quality != power.Estimated {
			t.Errorf("without sensors it took %+v", c)
		}
		if !meter.Adopt(context.Background(), m.options().Sensors) || !meter.Reads("package-0") {
			t.Error("it is not taken")
		}
		if c := m.job(meter, power.CPU, 24*power.Watt, 10*time.Second); c.Quality != power.Measured || c.Coverage < 0.99 || !near(c.Gross, 240*power.Joule) {
			t.Errorf("with one it took %+v", c)
		}
		if draws := meter.Draws(context.Background()); len(draws) != 1 {
			t.Errorf("the draws are %v", draws)
		}
	})
}

func TestWhatIsKnownOfADomainStaysWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		meter.Conditions("battery")
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		_, gaps := meter.Whole(context.Background())
		// Sensors that count the same are found, and then there are more.
		m.rails["npu"] = newMachine(npu).rails["npu"]
		meter.Adopt(context.Background(), m.options().Sensors)
		if b := meter.Balances()[1]; b.Domain.Name != "package-0" || !near(power.Energy(b.IdleDraw), power.Energy(4*power.Watt)) {
			t.Errorf("of the package is known %+v", b)
		}
		pass(time.Second)
		// No time is lost between, but what is compared with it has changed.
		sum, now := meter.Whole(context.Background())
		if !near(sum, 44*power.Joule) || now != gaps+1 {
			t.Errorf("counted %v, with %d gaps more", sum, now-gaps)
		}
		// When none are left, what was counted is not forgotten.
		meter.Adopt(context.Background(), nil)
		if sum, _ := meter.Whole(context.Background()); !near(sum, 44*power.Joule) || len(meter.Draws(context.Background())) != 0 {
			t.Errorf("counted %v in the end", sum)
		}
	})
}

func TestTailIsTakenInBeforeItsSensorGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		o := m.options()
		tails := keepTails(t, &o)
		meter := New(o)
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		m.job(meter, power.CPU, 24*power.Watt, 5*time.Second)
		pass(time.Second)
		meter.Adopt(context.Background(), nil)
		if len(tails) != 1 || !near(tails[work(power.CPU).ID], 20*power.Joule) {
			t.Errorf("the tails are %v", tails)
		}
	})
}

func TestSensorThatIsReplacedLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		held := &resting{rail: m.rails["package-0"]}
		meter := New(Options{Sensors: []Sensor{held}})
		defer meter.Close()
		m.job(meter, power.CPU, 24*power.Watt, 5*time.Second)
		before := held.rested.Load() // It is needed for the tail.
		meter.Adopt(context.Background(), m.options().Sensors)
		if rested := held.rested.Load() - before; rested != 1 {
			t.Errorf("it let go %d times", rested)
		}
	})
}

func TestSensorThatComesBackCountsUnderTheConditionsThatHoldThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		meter.Conditions("battery")
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		meter.Adopt(context.Background(), nil)
		meter.Conditions("line")
		meter.Adopt(context.Background(), m.options().Sensors)
		if b := meter.Balances()[0]; b.IdleDraw != 0 {
			t.Errorf("on line power it is taken to draw %v", b.IdleDraw)
		}
		meter.Conditions("battery")
		if b := meter.Balances()[0]; !near(power.Energy(b.IdleDraw), power.Energy(4*power.Watt)) {
			t.Errorf("on battery it is taken to draw %v", b.IdleDraw)
		}
	})
}

func TestSensorThatIsNotReadyWhenOthersComeStillTellsOfThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		meter.Start(context.Background())
		pass(lull - time.Second)
		m.fail(true)
		m.rails["npu"] = newMachine(npu).rails["npu"]
		meter.Adopt(context.Background(), m.options().Sensors)
		s := meter.Begin(context.Background(), work(power.CPU))
		pass(tick / 2)
		m.fail(false)
		pass(tick)
		if draw, calm, _ := meter.accounts[1].idleDraw(); !near(power.Energy(draw), power.Energy(4*power.Watt)) || !calm {
			t.Errorf("it is taken to draw %v, calm %v", draw, calm)
		}
		if c := s.End(context.Background(), 0, 0); c.Coverage < 0.99 {
			t.Errorf("the job is told %+v", c)
		}
	})
}

func TestReadingThatComesWhenItsSensorHasGoneIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		slow := &sluggish{resting: resting{rail: m.rails["package-0"]}, reads: 50 * time.Millisecond}
		meter := New(Options{Sensors: []Sensor{slow}})
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		time.AfterFunc(10*time.Millisecond, func() { meter.Whole(context.Background()) })
		meter.Adopt(context.Background(), nil)
		pass(time.Minute)
		meter.Adopt(context.Background(), []Sensor{slow})
		if sum, _ := meter.Whole(context.Background()); sum > power.Joule {
			t.Errorf("while it was gone it is told to have counted %v", sum)
		}
	})
}

func TestLookAtSensorsThatAreReplacedMeanwhileLetsGoOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg, core)
		held := &resting{rail: m.rails["core-0"]}
		meter := New(Options{Sensors: []Sensor{m.rails["package-0"], held}})
		defer meter.Close()
		looked := make(chan []Draw)
		go func() { looked <- meter.Draws(context.Background()) }()
		pass(leastWindow / 2)
		meter.Whole(context.Background()) // lets go of what it is not to read
		meter.Adopt(context.Background(), m.options().Sensors[1:])
		<-looked
		if held.reads != 2 || held.rested.Load() != 2 {
			t.Errorf("it was looked at %d times, and let go of %d times", held.reads, held.rested.Load())
		}
	})
}
