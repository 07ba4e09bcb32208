package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/power"
)

// crossCheck compares what the sensors count with what the batteries give, over
// as long as the machine discharges without a break. Fuel gauges are slow and
// coarse, so it says nothing of single jobs; but sensors that count more than
// the batteries gave count something twice.
type crossCheck struct {
	// whole is what the sensors have counted ever, and how often they failed.
	whole func(ctx context.Context) (power.Energy, int)
	// left is what the batteries hold.
	left func() (power.Energy, bool)
	log  *slog.Logger

	mu     sync.Mutex // guards the following
	begun  *balance   // nil while there is nothing to compare
	told   *wire.CrossCheck
	toldAt time.Time
	warned bool
}

// balance is both sides at one moment.
type balance struct {
	at             time.Time
	sensors, gauge power.Energy
	gaps           int
}

// leastCheck is the shortest time over which a fuel gauge says something.
const leastCheck = 5 * time.Minute

// renewal is how long a comparison stands. Fuel gauges are renewed about twice
// a minute; and were what the sensors have counted told to whoever asks when he
// asks, he would have a meter as fine as the one that is root's alone (PLATYPUS,
// CVE-2020-8694).
const renewal = 30 * time.Second

// supplied notes whether the machine discharges. Until it begins to, no sensor
// is read.
func (c *crossCheck) supplied(ctx context.Context, s power.Supply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !s.Discharging:
		c.begun, c.told = nil, nil
	case c.begun == nil:
		c.begun = c.look(ctx)
	}
}

func (c *crossCheck) look(ctx context.Context) *balance {
	gauge, known := c.left()
	if !known {
		return nil
	}
	sensors, gaps := c.whole(ctx)
	return &balance{time.Now(), sensors, gauge, gaps}
}

// result returns the comparison, or nil while there is none: for five minutes,
// after a suspend, and without sensors.
func (c *crossCheck) result(ctx context.Context) *wire.CrossCheck {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begun == nil || time.Since(c.begun.at) < leastCheck {
		return nil
	}
	if c.told != nil && time.Since(c.toldAt) < renewal {
		return c.told
	}
	c.told, c.toldAt = c.compare(ctx), time.Now()
	return c.told
}

func (c *crossCheck) compare(ctx context.Context) *wire.CrossCheck {
	now := c.look(ctx)
	if now == nil || now.gaps != c.begun.gaps {
		c.begun = now
		return nil
	}
	sensors, gauge := (now.sensors - c.begun.sensors).Told(), c.begun.gauge-now.gauge
	if sensors <= 0 || gauge <= 0 {
		return nil
	}
	r := &wire.CrossCheck{
		Seconds: now.at.Sub(c.begun.at).Seconds(), BatteryJoules: gauge.Joules(), SensorsJoules: sensors.Joules(),
		Ratio: sensors.Joules() / gauge.Joules(),
	}
	c.warn(r)
	return r
}

// mostRatio leaves room for a gauge that is off.
const mostRatio = 1.05

func (c *crossCheck) warn(r *wire.CrossCheck) {
	if r.Ratio > mostRatio && !c.warned {
		c.warned = true
		c.log.Warn("the sensors count more than the batteries gave; please report it, with the output of joulemux capture",
			"sensors_joules", r.SensorsJoules, "battery_joules", r.BatteryJoules, "seconds", r.Seconds)
	}
}
