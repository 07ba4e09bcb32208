package meter

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
)

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
