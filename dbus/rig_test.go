package dbus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/pull"
	"github.com/joulemux/joulemux/daemon/registry"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/dbus/dbustest"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/tracker"
)

// patience is what a loaded machine may take for what should take no time.
const patience = 20 * time.Second

// rig is a front-end on a bus of its own, over a real tracker and a real set
// of backends whose servers are in memory. Jobs go to a script.
type rig struct {
	*FrontEnd
	bus      *dbustest.Bus
	tiers    *tracker.Tracker
	backends *backend.Set
	servers  map[string]*server // by host
	runner   *scripted
	store    store // fetches models
	log      *dbustest.Journal
	stop     func() error // ends the front-end, and returns what Run did
}

// newRig starts a front-end that change has had its way with.
func newRig(t *testing.T, change func(*rig)) *rig {
	t.Helper()
	r := &rig{bus: dbustest.Start(t), runner: &scripted{script: answers("Hello", ", ", "world")}, store: newStore(), log: new(dbustest.Journal)}
	r.tiers = tracker.New(power.DefaultPolicy(), power.PreferAuto, func() power.Supply { return power.Supply{} })
	background(t, r.tiers.Run)
	r.supply(t, 80)
	r.servers = map[string]*server{"npu": newServer("m"), "igpu": newServer("m", "n")}
	log := slog.New(slog.NewTextHandler(r.log, nil))
	r.backends = backend.New(
		func(s backend.Spec) backend.Server { return r.servers[s.Endpoint.Host] },
		func(s backend.Spec, _ job.Facts) power.DeviceClass { return s.Class }, log)
	t.Cleanup(r.backends.Close)
	r.configure(spec("ollama-npu", power.NPU), spec("ollama-igpu", power.IntegratedGPU))
	r.backends.Look(t.Context())
	r.FrontEnd = New(Parts{
		Tiers: r.tiers, Runner: r.runner, Backends: r.backends, Puller: r.puller(t), Models: registry.New(registry.Parts{Backends: r.backends}),
		Draw:    func() (power.Power, bool) { return 0, false },
		Program: func(pid int) string { return fmt.Sprintf("program of %d", pid) },
		Level:   new(slog.LevelVar), Version: "1.2.3", Log: log,
	})
	if change != nil {
		change(r)
	}
	r.start(t)
	return r
}

// puller is one whose source goes on until it is told to end.
func (r *rig) puller(t *testing.T) *pull.Puller {
	t.Helper()
	p := pull.New(pull.Parts{Source: &r.store, Conditions: func(context.Context) iter.Seq[pull.Conditions] {
		return func(yield func(pull.Conditions) bool) { yield(pull.Conditions{}) }
	}, Log: slog.New(slog.DiscardHandler)}, pull.Rules{})
	background(t, p.Run)
	return p
}

// start starts the front-end, and returns when it owns its names.
func (r *rig) start(t *testing.T) {
	t.Helper()
	ready, ended := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- r.Run(ctx, r.bus.Address(), func() { close(ready) }) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = r.stop() })
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("the front-end ended: %v", err)
	}
}

// background runs a part for as long as the test.
func background(t *testing.T, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
}

// supply puts the machine on battery.
func (r *rig) supply(t *testing.T, charge power.Charge) {
	t.Helper()
	s := power.Supply{Source: "upower", Battery: true, Discharging: true, Charge: charge, Warning: power.WarningNone}
	if err := r.tiers.Supply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func spec(id string, class power.DeviceClass) backend.Spec {
	_, host, _ := strings.Cut(id, "-")
	return backend.Spec{ID: id, Name: strings.ToUpper(host), Type: "ollama", Class: class, Endpoint: url.URL{Scheme: "http", Host: host}}
}

func (r *rig) configure(specs ...backend.Spec) { r.backends.Configure(specs) }

// inference and router return the two objects, as a peer sees them.
func inferenceOf(p *dbustest.Peer) godbus.BusObject { return p.Object(InferenceName, inferencePath) }
func routerOf(p *dbustest.Peer) godbus.BusObject    { return p.Object(RouterName, routerPath) }

// scripted runs jobs as a script has it, until their deadline.
type scripted struct {
	mu     sync.Mutex
	script script
	jobs   []job.Job
}

type script func(ctx context.Context, j job.Job, sink dispatch.Sink) error

func (s *scripted) Run(ctx context.Context, j job.Job, sink dispatch.Sink) error {
	s.mu.Lock()
	s.jobs = append(s.jobs, j)
	script := s.script
	s.mu.Unlock()
	if j.Deadline > 0 {
		passed := job.Errorf(job.DeadlinePassed, "%d ms", j.Deadline.Milliseconds())
		var stop context.CancelFunc
		ctx, stop = context.WithDeadlineCause(ctx, j.Arrived.Add(j.Deadline), passed)
		defer stop()
	}
	err := script(ctx, j, sink)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Home names the target, or a backend.
func (s *scripted) Home(_ context.Context, _, target string) (string, error) {
	switch target {
	case "":
		return "ollama-npu", nil
	case "mars":
		return "", &job.Error{Code: job.BackendNotFound, Field: "target", Detail: target}
	default:
		return target, nil
	}
}

// Prospect names the first healthy backend, on battery.
func (s *scripted) Prospect(tier power.Tier, backends backend.Snapshot) (route.Decision, error) {
	for _, b := range backends {
		if b.Healthy && tier != power.Critical {
			return route.Decision{Backend: b.ID}, nil
		}
	}
	return route.Decision{}, job.Errorf(job.NoBackend, "none")
}

func (s *scripted) set(script script) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = script
}

// count returns how many jobs came.
func (s *scripted) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.jobs)
}

// last returns the job that came last.
func (s *scripted) last() job.Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.jobs[len(s.jobs)-1]
}

// decision is where the scripts' jobs go.
var decision = decided()

func decided() route.Decision {
	candidate := func(id string, class power.DeviceClass, draw power.Power) job.Candidate {
		return job.Candidate{ID: id, Class: class, Healthy: true, Model: &job.Model{Resident: true}, Profile: job.Profile{Draw: draw, Decode: 20, Quality: power.Estimated}}
	}
	rules, j := route.DefaultRules(), job.Job{Annotations: job.Annotations{PreferPowerEfficiency: true}}
	d, err := route.Decide(&rules, power.Battery, &j, []job.Candidate{
		candidate("ollama-igpu", power.IntegratedGPU, 12*power.Watt), candidate("ollama-npu", power.NPU, 3*power.Watt),
	})
	if err != nil {
		panic(err)
	}
	return d
}

// answers is a script that writes tokens.
func answers(tokens ...string) script {
	return func(ctx context.Context, j job.Job, sink dispatch.Sink) error {
		sink.Routed(decision)
		if err := sink.Begin(job.Head{Status: 200}); err != nil {
			return err
		}
		for _, token := range tokens {
			if err := sink.Chunk(ctx, job.Chunk{Text: token}, nil); err != nil {
				return err
			}
		}
		return sink.Chunk(ctx, job.Chunk{Last: true, Usage: job.Usage{Tokens: len(tokens)}}, report(j, len(tokens)))
	}
}

func report(j job.Job, tokens int) *dispatch.Report {
	return &dispatch.Report{
		ID: "j1", Model: "m", Decision: decision, TierReason: power.ReasonDischarging, Usage: job.Usage{Tokens: tokens},
		Total: time.Since(j.Arrived), Cost: power.Cost{Energy: 5 * power.Joule, Quality: power.Estimated, Source: "3 W"},
	}
}

// fails is a script that fails before the first token.
func fails(err error) script {
	return func(context.Context, job.Job, dispatch.Sink) error { return err }
}

// hangs is a script that writes one token, if it is any, and then waits to be
// cancelled. It tells why it was.
func hangs(token string, cancelled chan<- error) script {
	return func(ctx context.Context, _ job.Job, sink dispatch.Sink) error {
		sink.Routed(decision)
		if token != "" {
			if err := sink.Chunk(ctx, job.Chunk{Text: token}, nil); err != nil {
				cancelled <- err // the reader was faster
				return err
			}
		}
		<-ctx.Done()
		cancelled <- context.Cause(ctx)
		return ctx.Err()
	}
}

// server is a backend's server in memory.
type server struct {
	mu     sync.Mutex
	models []job.Model
	down   bool
}

func newServer(models ...string) *server {
	s := new(server)
	for i, m := range models {
		s.models = append(s.models, job.Model{Name: m, Digest: m, Size: 1 << 20, Resident: i == 0})
	}
	return s
}

func (s *server) Probe(context.Context) (job.Facts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return job.Facts{}, errors.New("connection refused")
	}
	return job.Facts{Models: s.models}, nil
}

func (s *server) Ping(context.Context) error { return nil }
func (s *server) Stream(context.Context, job.Job, func(job.Head) error, func(job.Chunk) error) error {
	return errors.New("not scripted")
}

func (s *server) Do(*http.Request) (*http.Response, error) { return nil, errors.New("not scripted") }
func (s *server) Close()                                   {}

// receive waits for what is to come on a channel, or for its end.
func receive[T any](t *testing.T, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	return v
}

// expectError checks the name of an error of the bus, and its text.
func expectError(t *testing.T, what string, err error, name, says string) {
	t.Helper()
	var refused godbus.Error
	if !errors.As(err, &refused) || refused.Name != name || !strings.Contains(refused.Error(), says) {
		t.Errorf("%s: got %s: %v; want %s that says %q", what, refused.Name, err, name, says)
	}
}

// hear has the peer hear what we tell everybody, and what is for it alone.
func hear(t *testing.T, p *dbustest.Peer) <-chan *godbus.Signal {
	t.Helper()
	for _, name := range []string{InferenceName, RouterName} {
		if err := p.AddMatchSignal(godbus.WithMatchSender(name)); err != nil {
			t.Fatal(err)
		}
	}
	signals := make(chan *godbus.Signal, 1000)
	p.Signal(signals)
	return signals
}

// next returns the next signal of ours.
func next(t *testing.T, signals <-chan *godbus.Signal) *godbus.Signal {
	t.Helper()
	for {
		select {
		case s := <-signals:
			if s.Sender != "org.freedesktop.DBus" {
				return s
			}
		case <-time.After(patience):
			t.Fatal("no signal came")
		}
	}
}
