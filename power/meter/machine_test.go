package meter

import (
	"context"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
)

// machine is a simulated laptop of which the true energy is known.
type machine struct {
	sync.Mutex // the meter's ticks read beside the test
	suspended  time.Duration
	rails      map[string]*rail
	cpu        *cores
}

// rail is a domain of it: a draw that changes now and then, and what it has
// come to.
type rail struct {
	*sync.Mutex // the machine's
	domain      power.Domain
	draw        power.Power
	since       time.Time
	energy      float64 // in microjoules, up to since
	offset      float64 // of the counter
	broken      bool
	asleep      bool
	noise       *rand.Rand
	reads       int
}

func newMachine(domains ...power.Domain) *machine {
	m := &machine{rails: make(map[string]*rail), cpu: &cores{used: make(map[string]*rail)}}
	for _, d := range domains {
		m.rails[d.Name] = &rail{Mutex: &m.Mutex, domain: d, since: time.Now()}
	}
	return m
}

// options returns what a meter of the machine stands on.
func (m *machine) options() Options {
	o := Options{Suspended: m.slept, CPU: m.cpu}
	for _, name := range slices.Sorted(maps.Keys(m.rails)) {
		o.Sensors = append(o.Sensors, m.rails[name])
	}
	return o
}

func (m *machine) slept() time.Duration {
	m.Lock()
	defer m.Unlock()
	return m.suspended
}

// draws changes what a rail draws from now on.
func (m *machine) draws(name string, p power.Power) { m.rails[name].draws(p) }

func (r *rail) draws(p power.Power) {
	r.Lock()
	defer r.Unlock()
	r.energy = r.at(time.Now())
	r.draw, r.since = p, time.Now()
}

func (r *rail) at(now time.Time) float64 {
	return r.energy + float64(r.draw)*now.Sub(r.since).Seconds()
}

// sleeps has the device fall asleep, or wakes it up.
func (r *rail) sleeps(now bool) {
	r.Lock()
	defer r.Unlock()
	r.asleep = now
}

// total is the true energy since the beginning.
func (r *rail) total() power.Energy {
	r.Lock()
	defer r.Unlock()
	return power.Energy(r.at(time.Now()))
}

// Domain implements Sensor.
func (r *rail) Domain() power.Domain { return r.domain }

// Read implements Sensor: as the hardware does, it shows what it counted at the
// beginning of its period.
func (r *rail) Read(context.Context) (power.Reading, error) {
	r.Lock()
	defer r.Unlock()
	r.reads++
	if r.broken {
		return power.Reading{}, power.ErrUnavailable
	}
	if r.asleep {
		return power.Reading{}, power.ErrAsleep
	}
	now := time.Now()
	shown := now
	if period := r.domain.Period; period > 0 {
		shown = now.Truncate(period)
	}
	if shown.Before(r.since) {
		shown = r.since
	}
	e := r.at(shown)
	if r.noise != nil {
		e += r.noise.NormFloat64() * 1000 // a millijoule
	}
	if !r.domain.Cumulative {
		return power.Reading{At: now, Draw: r.draw}, nil
	}
	e += r.offset
	if r.domain.Range > 0 {
		e = math.Mod(e, float64(r.domain.Range))
	}
	return power.Reading{At: now, Energy: power.Energy(e)}, nil
}

// cores is the processors: each group of processes keeps some of them busy.
type cores struct {
	used map[string]*rail
	gone time.Duration // used by groups that are no more
}

// works sets how many processors a group keeps busy.
func (c *cores) works(group string, n float64) {
	if c.used[group] == nil {
		c.used[group] = &rail{Mutex: new(sync.Mutex), since: time.Now()}
	}
	c.used[group].draws(power.Watts(n))
}

// anew has a group be made anew: what it uses is counted from zero.
func (c *cores) anew(group string) {
	used, _ := c.Used(group)
	c.gone += used
	delete(c.used, group)
}

// Busy implements CPU.
func (c *cores) Busy() (sum time.Duration, err error) {
	sum = c.gone
	for group := range c.used {
		d, _ := c.Used(group)
		sum += d
	}
	return sum, nil
}

// Count implements CPU.
func (*cores) Count() int { return 8 }

// Used implements CPU.
func (c *cores) Used(group string) (time.Duration, error) {
	r := c.used[group]
	if r == nil {
		return 0, power.ErrUnavailable
	}
	return time.Duration(r.total().Joules() * float64(time.Second)), nil
}

// The domains of the tests.
var (
	pkg = power.Domain{
		Name: "package-0", Scope: power.ScopePackage, Source: "rapl", Cumulative: true,
		Range: 65_700 * power.Joule, Most: 100 * power.Watt, Period: time.Millisecond,
	}
	npu = power.Domain{
		Name: "npu", Scope: power.ScopeNPU, Source: "pmt", Within: "package-0", Cumulative: true,
		Range: 262_144 * power.Joule, Most: 50 * power.Watt, Period: time.Millisecond,
	}
	dgpu = power.Domain{
		Name: "gpu", Scope: power.ScopeDiscreteGPU, Source: "nvml", Device: "0000:01:00.0", Cumulative: true,
		Most: 200 * power.Watt, Period: 100 * time.Millisecond,
	}
	apu  = power.Domain{Name: "apu", Scope: power.ScopePackage, Source: "amdgpu"}
	core = power.Domain{Name: "core-0", Scope: power.ScopeCore, Source: "rapl", Within: "package-0", Cumulative: true}
)

// classes are those of jobs, with what their backends are assumed to draw.
var draws = map[power.DeviceClass]power.Power{
	power.CPU: 28 * power.Watt, power.IntegratedGPU: 12 * power.Watt, power.NPU: 3 * power.Watt,
	power.NVIDIA: 55 * power.Watt, power.Cloud: power.Watt,
}

func work(c power.DeviceClass) Work {
	return Work{ID: string(c), Backend: string(c), Class: c, Draw: draws[c]}
}

// pass lets time pass, and what is due at its end happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
