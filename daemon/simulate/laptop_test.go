package simulate_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/daemon/simulate"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
	"github.com/joulemux/joulemux/power/tracker"
)

// laptop is all of the daemon below its front-ends, over servers in memory.
type laptop struct {
	*dispatch.Dispatcher
	tiers   *tracker.Tracker
	servers []*memoryServer
	diary   diary
	began   time.Time
	learns  bool

	mu      sync.Mutex // guards the following
	jobs    []simulate.Job
	learned map[subject]ledger.Learned
	energy  map[string]power.Cost
}

// subject is what is learned apart.
type subject struct {
	device, model string
	onBattery     bool
}

func newLaptop(t *testing.T, m *simulate.Machine, o *simulate.Options) *laptop {
	t.Helper()
	l := &laptop{
		began: time.Now(), learns: o.Figures == simulate.FiguresLearned,
		learned: make(map[subject]ledger.Learned), energy: make(map[string]power.Cost),
	}
	byID := make(map[string]*memoryServer)
	var specs []backend.Spec
	for i := range m.Devices {
		d := &m.Devices[i]
		s := &memoryServer{Device: d, laptop: l}
		s.expiry = time.AfterFunc(time.Hour, s.unload)
		s.expiry.Stop()
		byID[d.ID], l.servers = s, append(l.servers, s)
		spec := backend.Spec{ID: d.ID, Type: "ollama", Class: d.Class, Endpoint: url.URL{Host: "127.0.0.1:1"}}
		if !l.learns {
			spec.Profile = d.Known()
		}
		specs = append(specs, spec)
	}
	log := slog.New(slog.DiscardHandler)
	backends := backend.New(
		func(s backend.Spec) backend.Server { return byID[s.ID] },
		func(s backend.Spec, _ job.Facts) power.DeviceClass { return s.Class }, log)
	backends.Configure(specs)
	l.tiers = tracker.New(o.Power, power.PreferAuto, func() power.Supply { return power.Supply{} })
	settings := dispatch.DefaultSettings()
	settings.Rules = o.Rules
	l.Dispatcher = dispatch.New(dispatch.Parts{
		Tiers: l.tiers, Backends: backends, Meter: meter.New(meter.Options{}), Ledger: l, Log: log,
	}, settings)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = l.tiers.Run(ctx) })
	running.Go(func() { _ = l.Drive(ctx) })
	t.Cleanup(func() { cancel(); running.Wait(); backends.Close() })
	return l
}

// Record implements dispatch.Ledger, with what a meter that errs nowhere says.
func (l *laptop) Record(e ledger.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Cost = l.energy[e.ID]
	at := subject{e.Backend, e.Model, e.OnBattery}
	l.learned[at] = l.learned[at].With(e)
}

// Learned implements dispatch.Ledger.
func (l *laptop) Learned(device, model string, onBattery bool) (ledger.Learned, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.learned[subject{device, model, onBattery}]
	return known, ok && l.learns
}

// Held implements dispatch.Ledger: nothing here is measured.
func (l *laptop) Held(string, bool, power.Power) {}

// Answers implements dispatch.Ledger: there were none before.
func (l *laptop) Answers(context.Context, int) ([]ledger.Entry, error) { return nil, nil }

// Totals implements dispatch.Ledger: nothing is limited.
func (l *laptop) Totals(context.Context, time.Time, time.Time, ledger.Grouping) ([]ledger.Total, error) {
	return nil, nil
}

// live has a trace happen. The machine is powered as it was in the simulation,
// and both come to their end at the same time.
func (l *laptop) live(t *testing.T, trace *simulate.Trace, as *simulate.Result) {
	t.Helper()
	l.jobs = make([]simulate.Job, len(as.Jobs))
	ctx, cancel := context.WithCancel(t.Context())
	var going sync.WaitGroup
	going.Go(func() { l.power(ctx, t, trace, as) })
	synctest.Wait() // for what the tier is at first
	for i := range as.Jobs {
		going.Go(func() {
			time.Sleep(as.Jobs[i].Arrived)
			l.ask(ctx, i, &as.Jobs[i])
		})
	}
	time.Sleep(as.Lasted)
	synctest.Wait() // for what ends at this very moment
	cancel()
	going.Wait()
	for _, s := range l.servers {
		s.unload()
	}
}

// ask runs the job that was simulated so.
func (l *laptop) ask(ctx context.Context, i int, as *simulate.Job) {
	j := job.Job{ID: as.ID, Kind: job.Chat, Model: theModel, PromptBytes: 4 * as.Prompt, Stream: true, Client: as.Client}
	j.Class = job.Interactive
	switch as.Class {
	case simulate.Interactive:
	case simulate.Completion:
		j.Kind, j.Completion = job.Generate, true
	case simulate.Background:
		j.Class = job.Background
	}
	c := client{laptop: l, Job: &l.jobs[i]}
	c.ID, c.Request, c.Arrived, c.Fate = as.ID, as.Request, time.Since(l.began), simulate.Refused
	switch err := l.Run(context.WithValue(ctx, answerKey{}, as.Output), j, &c); {
	case err == nil:
		c.Fate = simulate.Answered
	case errors.Is(err, job.Cancelled):
		c.Fate = simulate.Lost
	}
}

// answerKey is that of how long an answer is to be.
type answerKey struct{}

// client notes what becomes of a job.
type client struct {
	*laptop
	*simulate.Job
}

func (c *client) Routed(d route.Decision) {
	c.Backend, c.Tier, c.Started = d.Backend, d.Tier, time.Since(c.began)
}

func (c *client) Begin(job.Head) error {
	c.FirstToken = time.Since(c.began)
	return nil
}

func (c *client) Chunk(_ context.Context, piece job.Chunk, _ *dispatch.Report) error {
	if piece.Last {
		c.Ended, c.Loaded = time.Since(c.began), piece.Usage.Load > 0
	}
	return nil
}

// power reports how the machine is powered: at first, when line power comes or
// goes, and as often as UPower looks at a battery in use.
func (l *laptop) power(ctx context.Context, t *testing.T, trace *simulate.Trace, as *simulate.Result) {
	t.Helper()
	const polling = 30 * time.Second
	for switches := trace.Line; ; {
		now := time.Since(l.began)
		s := supplyAt(as, now)
		if err := l.tiers.Supply(ctx, s); err != nil {
			return
		}
		wait := as.Lasted + polling
		if s.Discharging {
			wait = polling
		}
		if len(switches) > 0 {
			if next := awake(trace, switches[0].At) - now; next <= wait {
				wait, switches = next, switches[1:]
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// awake is when something of a trace happens on a clock that stands still
// while the machine is suspended.
func awake(trace *simulate.Trace, at time.Duration) time.Duration {
	return at - max(0, min(at-trace.Suspend, trace.SuspendedFor))
}

// supplyAt is what UPower would have said in a simulation.
func supplyAt(r *simulate.Result, at time.Duration) power.Supply {
	i, found := slices.BinarySearchFunc(r.Timeline, at, func(m simulate.Moment, at time.Duration) int { return int(m.At - at) })
	if !found {
		i--
	}
	m := r.Timeline[i]
	charge := m.Charge
	if !m.OnLine {
		draw := r.Base.Over(r.Lasted)
		for _, d := range m.Draws {
			draw += d
		}
		charge -= draw.For(at-m.At).Joules() / r.Battery.Joules()
	}
	s := power.Supply{Source: "a test", Battery: true, Discharging: !m.OnLine, Charge: power.Charge(100 * charge), Warning: power.WarningNone}
	switch {
	case !s.Discharging:
	case s.Charge <= 5:
		s.Warning = power.WarningCritical
	case s.Charge <= 20:
		s.Warning = power.WarningLow
	}
	return s
}

// theModel is the one that simulated devices have.
const theModel = "model:8b"

// memoryServer is a server in memory, as slow as a simulated device.
type memoryServer struct {
	*simulate.Device
	*laptop

	mu     sync.Mutex // guards the following
	busy   bool
	loaded bool // the model is resident, or is being loaded
	ready  bool // it is resident
	keep   time.Duration
	expiry *time.Timer
	until  time.Time // when that is due
	since  time.Time // of being loaded
	stood  time.Duration
	needed time.Duration
	loads  int
}

func (s *memoryServer) Probe(context.Context) (job.Facts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return job.Facts{Models: []job.Model{{Name: theModel, Size: 4_700_000_000, Resident: s.ready, Until: s.until}}}, nil
}

func (s *memoryServer) Stream(ctx context.Context, j job.Job, begin func(job.Head) error, emit func(job.Chunk) error) error {
	output := ctx.Value(answerKey{}).(int)
	prompt := j.PromptBytes / 4
	u := job.Usage{PromptTokens: prompt, Tokens: output, Prefill: s.Prefilling(prompt), Decode: s.Decoding(output)}
	cost := power.Cost{Energy: s.PrefillDraw.For(u.Prefill) + s.DecodeDraw.For(u.Decode), Quality: power.Measured, Coverage: 1}
	if s.begin(j) {
		u.Load, cost.Load = s.Load, s.LoadDraw.For(s.Load)
		cost.Energy += cost.Load
	}
	defer s.end(time.Now())
	s.laptop.mu.Lock()
	s.energy[j.ID] = cost
	s.laptop.mu.Unlock()
	if err := sleep(ctx, u.Load); err != nil {
		return err
	}
	s.mu.Lock()
	s.ready = true
	s.mu.Unlock()
	if err := sleep(ctx, u.Prefill); err != nil {
		return err
	}
	if err := begin(job.Head{Status: 200}); err != nil {
		return err
	}
	for left := u.Decode; left > 0; left -= time.Second {
		if err := sleep(ctx, min(left, time.Second)); err != nil {
			return err
		}
		if err := emit(job.Chunk{}); err != nil {
			return err
		}
	}
	return emit(job.Chunk{Last: true, Usage: u})
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// begin takes note that a job is there, and reports whether it has the model
// loaded.
func (s *memoryServer) begin(j job.Job) (loads bool) {
	s.diary.starts(time.Since(s.began), j.ID, s.ID, j.KeepAlive)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy {
		panic("two jobs in one slot")
	}
	s.busy, s.keep = true, 5*time.Minute
	if j.KeepAlive != nil {
		s.keep = *j.KeepAlive
	}
	s.expiry.Stop()
	if loads = !s.loaded; loads {
		s.loaded, s.since = true, time.Now()
		s.loads++
	}
	return loads
}

// end takes note that the job is gone, which began then. The model stays for a
// while.
func (s *memoryServer) end(began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	s.needed += time.Since(began)
	if s.keep >= 0 {
		s.expiry.Reset(s.keep)
		s.until = time.Now().Add(s.keep)
	}
}

// unload lets the model go: now, or once the job is over.
func (s *memoryServer) unload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.busy:
		s.keep = 0
	case s.loaded:
		s.loaded, s.ready = false, false
		s.stood += time.Since(s.since)
	}
}

// resident is for how long the model has been.
func (s *memoryServer) resident() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stood
}

// Unload implements backend.Unloader.
func (s *memoryServer) Unload(context.Context, string) error {
	s.diary.unloads(time.Since(s.began), s.ID)
	s.unload()
	return nil
}

func (s *memoryServer) Ping(context.Context) error { return nil }
func (s *memoryServer) Do(*http.Request) (*http.Response, error) {
	return nil, errors.New("not asked for")
}
func (s *memoryServer) Close() {}
