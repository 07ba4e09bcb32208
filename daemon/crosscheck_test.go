package daemon

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
)

// draining is a machine whose battery and whose processor draw steadily.
type draining struct {
	since           time.Time
	battery, sensor power.Power
	gaps            int
	unknown         bool
}

func (d *draining) left() (power.Energy, bool) {
	return 200_000*power.Joule - d.battery.For(time.Since(d.since)), !d.unknown
}

func (d *draining) whole(context.Context) (power.Energy, int) {
	return d.sensor.For(time.Since(d.since)), d.gaps
}

func TestSensorsAreComparedWithTheBattery(t *testing.T) {
	discharging, charging := power.Supply{Source: "upower", Battery: true, Discharging: true}, power.Supply{Source: "upower", Battery: true}
	for _, c := range []struct {
		rule    string
		machine draining
		events  func(*crossCheck, *draining)
		ratio   float64 // 0: nothing is told
		warns   bool
	}{
		{"the processor is a part of the machine", draining{battery: 10 * power.Watt, sensor: 6 * power.Watt}, nil, 0.6, false},
		{"more than all of it is counted twice", draining{battery: 10 * power.Watt, sensor: 12 * power.Watt}, nil, 1.2, true},
		{"a suspend begins it anew", draining{battery: 10 * power.Watt, sensor: 6 * power.Watt}, func(_ *crossCheck, d *draining) { d.gaps++ }, 0, false},
		{"so does a plug", draining{battery: 10 * power.Watt, sensor: 6 * power.Watt}, func(c *crossCheck, _ *draining) {
			c.supplied(context.Background(), charging)
			c.supplied(context.Background(), discharging)
		}, 0, false},
		{"a gauge that says nothing is nothing to compare with", draining{unknown: true, sensor: power.Watt}, nil, 0, false},
		{"nor is a machine without sensors", draining{battery: 10 * power.Watt}, nil, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := c.machine
			d.since = time.Now()
			var said bytes.Buffer
			check := &crossCheck{whole: d.whole, left: d.left, log: slog.New(slog.NewTextHandler(&said, nil))}
			check.supplied(t.Context(), discharging)
			time.Sleep(4 * time.Minute)
			if r := check.result(t.Context()); r != nil {
				t.Errorf("%s: after 4 minutes it tells %+v", c.rule, r)
			}
			if c.events != nil {
				c.events(check, &d)
			}
			for range 2 {
				time.Sleep(2 * time.Minute)
				r := check.result(t.Context())
				if (r != nil) != (c.ratio != 0) || r != nil && (r.Ratio < c.ratio-0.01 || r.Ratio > c.ratio+0.01) {
					t.Errorf("%s: it tells %+v", c.rule, r)
				}
			}
			if n := strings.Count(said.String(), "please report"); (n == 1) != c.warns || n > 1 {
				t.Errorf("%s: it warns %d times", c.rule, n)
			}
		})
	}
}

func TestTheComparisonIsNoFineMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &draining{since: time.Now(), battery: 10 * power.Watt, sensor: 6_123_457}
		check := &crossCheck{whole: d.whole, left: d.left, log: slog.New(slog.DiscardHandler)}
		check.supplied(t.Context(), power.Supply{Source: "upower", Battery: true, Discharging: true})
		time.Sleep(6 * time.Minute)
		first := *check.result(t.Context())
		time.Sleep(10 * time.Millisecond)
		if again := *check.result(t.Context()); again != first {
			t.Errorf("two looks at once tell what passed between them: %+v, %+v", first, again)
		}
		time.Sleep(time.Minute)
		if later := *check.result(t.Context()); later == first {
			t.Error("a minute later it still tells the same")
		}
		if tenths := first.SensorsJoules * 10; tenths != math.Round(tenths) {
			t.Errorf("it tells %v J", first.SensorsJoules)
		}
	})
}
