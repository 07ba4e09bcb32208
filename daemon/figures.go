package daemon

import (
	"io/fs"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/metrics"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/sysfs"
)

// figures are what Prometheus is told beside what comes of jobs. They are read by
// each scrape, from what is known by then: no server is asked, no bus, and of the
// machine only what does not wake it.
func (d *daemon) figures() []metrics.Figure {
	return slices.Concat(d.figuresOfDaemon(), d.figuresOfCache(), d.figuresOfSupply(), d.figuresOfBackends(), d.figuresOfDevices())
}

func (d *daemon) figuresOfDaemon() []metrics.Figure {
	return []metrics.Figure{
		{
			Name: "joulemux_build_info", Help: "What joulemux this is.", Type: metrics.Gauge, Labels: []string{"version", "goversion"},
			Read: func(tell metrics.Tell) { tell(1, d.Version, runtime.Version()) },
		},
		{
			Name: "joulemux_jobs_running", Help: "Jobs that have not ended, but for those that wait.", Type: metrics.Gauge,
			Read: func(tell metrics.Tell) {
				waiting := d.dispatcher.Waiting(job.Interactive) + d.dispatcher.Waiting(job.Background)
				tell(float64(max(0, d.dispatcher.Running()-waiting)))
			},
		},
		{
			Name: "joulemux_jobs_waiting", Help: "Jobs that wait, in line or for a better tier.", Type: metrics.Gauge, Labels: []string{"class"},
			Read: func(tell metrics.Tell) {
				for _, class := range []job.Class{job.Interactive, job.Background} {
					tell(float64(d.dispatcher.Waiting(class)), string(class))
				}
			},
		},
		{
			Name: "joulemux_energy_price_per_kwh", Help: "What a kilowatt-hour costs the user, as configured.", Type: metrics.Gauge, Labels: []string{"currency"},
			Read: func(tell metrics.Tell) {
				if t := d.tariff.Load(); t != nil {
					tell(t.PricePerKWh, t.Currency)
				}
			},
		},
		{
			Name: "joulemux_ledger_trouble", Help: "Whether costs are kept in memory alone, as the ledger's file does not take them.", Type: metrics.Gauge,
			Read: func(tell metrics.Tell) { tell(metrics.Truth(d.ledger.Trouble() != nil)) },
		},
	}
}

func (d *daemon) figuresOfCache() []metrics.Figure {
	return []metrics.Figure{
		{
			Name: "joulemux_cache_jobs_total", Type: metrics.Counter, Labels: []string{"outcome"},
			Help: "Jobs that may have the answer to another: a hit has one that was given before, joined has one that is being given, a miss is run.",
			Read: func(tell metrics.Tell) {
				s := d.cache.Stats()
				tell(float64(s.Hits), "hit")
				tell(float64(s.Joined), "joined")
				tell(float64(s.Misses), "miss")
			},
		},
		{
			Name: "joulemux_cache_dropped_total", Help: "Answers that are kept no longer: to make room, or since nobody asked for them.", Type: metrics.Counter, Labels: []string{"reason"},
			Read: func(tell metrics.Tell) {
				s := d.cache.Stats()
				tell(float64(s.Evictions), "room")
				tell(float64(s.Expiries), "idle")
			},
		},
		{
			Name: "joulemux_cache_entries", Help: "Answers that are kept.", Type: metrics.Gauge,
			Read: func(tell metrics.Tell) { tell(float64(d.cache.Stats().Entries)) },
		},
		{
			Name: "joulemux_cache_bytes", Help: "Memory that they take.", Type: metrics.Gauge,
			Read: func(tell metrics.Tell) { tell(float64(d.cache.Stats().Bytes)) },
		},
	}
}

func (d *daemon) figuresOfSupply() []metrics.Figure {
	// ofBattery reads one figure of a battery that there is.
	ofBattery := func(value func(power.Supply) float64) func(metrics.Tell) {
		return metrics.One(func() (float64, bool) {
			s := d.tiers.Current().Supply
			return value(s), s.Known() && s.Battery
		})
	}
	return []metrics.Figure{
		{
			Name: "joulemux_tier", Help: "Which tier is in force: 1 for that, 0 for the others.", Type: metrics.Gauge, Labels: []string{"tier"},
			Read: func(tell metrics.Tell) {
				now := d.tiers.Current().Tier
				for _, t := range power.Tiers() {
					tell(metrics.Truth(t == now), t.String())
				}
			},
		},
		{
			Name: "joulemux_battery_charge_ratio", Help: "How full the batteries are, from 0 to 1.", Type: metrics.Gauge,
			Read: ofBattery(func(s power.Supply) float64 { return float64(s.Charge) / 100 }),
		},
		{
			Name: "joulemux_battery_discharging", Help: "Whether the machine runs on battery.", Type: metrics.Gauge,
			Read: ofBattery(func(s power.Supply) float64 { return metrics.Truth(s.Discharging) }),
		},
		{
			Name: "joulemux_battery_draw_watts", Help: "What the batteries give, while they do and UPower says.", Type: metrics.Gauge,
			Read: metrics.One(func() (float64, bool) {
				draw, known := d.supplies.Draw()
				return draw.Watts(), known
			}),
		},
	}
}

func (d *daemon) figuresOfBackends() []metrics.Figure {
	// ofEach reads one figure of each backend, as it is known.
	ofEach := func(value func(backend.Backend) float64) func(metrics.Tell) {
		return func(tell metrics.Tell) {
			for _, b := range d.backends.Current() {
				tell(value(b), b.ID, string(b.Class))
			}
		}
	}
	labels := []string{"backend", "hardware"}
	resting := func(b backend.Backend) bool { return time.Now().Before(b.RetryAt) }
	return []metrics.Figure{
		{
			Name: "joulemux_backend_up", Help: "Whether the server answered when it was last asked. Nobody asks at rest.", Type: metrics.Gauge, Labels: labels,
			Read: ofEach(func(b backend.Backend) float64 { return metrics.Truth(b.Healthy || !b.RetryAt.IsZero()) }),
		},
		{
			Name: "joulemux_backend_healthy", Help: "Whether the backend is given jobs, as far as is known.", Type: metrics.Gauge, Labels: labels,
			Read: ofEach(func(b backend.Backend) float64 { return metrics.Truth(b.Healthy) }),
		},
		{
			Name: "joulemux_backend_circuit_open", Help: "Whether the backend has a rest after failures in a row.", Type: metrics.Gauge, Labels: labels,
			Read: ofEach(func(b backend.Backend) float64 { return metrics.Truth(resting(b)) }),
		},
		{
			Name: "joulemux_backend_last_check_timestamp_seconds", Help: "When the server was last asked.", Type: metrics.Gauge, Labels: labels,
			Read: func(tell metrics.Tell) {
				for _, b := range d.backends.Current() {
					if !b.Checked.IsZero() {
						tell(float64(b.Checked.UnixMilli())/1000, b.ID, string(b.Class))
					}
				}
			},
		},
		{
			Name: "joulemux_model_resident", Help: "Models that are loaded, as far as is known.", Type: metrics.Gauge, Labels: []string{"backend", "model"},
			Read: func(tell metrics.Tell) {
				for _, b := range d.backends.Current() {
					told := make(map[string]bool) // a server may list one under two names
					for i := range b.Facts.Models {
						m := &b.Facts.Models[i]
						if !m.Resident || !b.Healthy {
							continue
						}
						if name := job.CanonicalModel(m.Name); !told[name] {
							told[name] = true
							tell(1, b.ID, name)
						}
					}
				}
			},
		},
	}
}

func (d *daemon) figuresOfDevices() []metrics.Figure {
	seen := &glance{sys: d.Sys}
	// ofEach reads one figure of each device that can sleep.
	ofEach := func(value func(sysfs.Device) float64) func(metrics.Tell) {
		return func(tell metrics.Tell) {
			for _, one := range seen.devices() {
				if one.Status != "" && one.Status != "unsupported" {
					tell(value(one), one.Address, vendorOf(one), kindOf(one))
				}
			}
		}
	}
	labels := []string{"device", "vendor", "kind"}
	return []metrics.Figure{
		{
			Name: "joulemux_device_asleep", Help: "Whether a graphics or neural processor sleeps. Reading that wakes none.", Type: metrics.Gauge, Labels: labels,
			Read: ofEach(func(one sysfs.Device) float64 { return metrics.Truth(one.Status == "suspended") }),
		},
		{
			Name: "joulemux_device_asleep_seconds_total", Help: "For how long it has slept since the machine was started.", Type: metrics.Counter, Labels: labels,
			Read: ofEach(func(one sysfs.Device) float64 { return one.Suspended.Seconds() }),
		},
		{
			Name: "joulemux_device_awake_seconds_total", Help: "For how long it has been awake since the machine was started.", Type: metrics.Counter, Labels: labels,
			Read: ofEach(func(one sysfs.Device) float64 { return one.Active.Seconds() }),
		},
	}
}

// glance is what the bus said of devices when somebody last looked: the figures of
// one scrape are of one look.
type glance struct {
	sys  fs.FS
	mu   sync.Mutex
	at   time.Time
	list []sysfs.Device
}

// glanceFresh is how old that may be.
const glanceFresh = time.Second

func (g *glance) devices() []sysfs.Device {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.at) >= glanceFresh {
		g.list, _ = sysfs.Devices(g.sys) // where the bus cannot be read there are none
		g.at = time.Now()
	}
	return g.list
}
