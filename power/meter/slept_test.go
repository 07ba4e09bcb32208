package meter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
)

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
			if c := s.End(context.Background(), 0, 0); c.Energy > 200*power.Joule || c.Energy < 155*power.Joule || c.Coverage > 0.95 {
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
