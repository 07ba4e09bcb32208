package dispatch_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/cache"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
	"github.com/joulemux/joulemux/power/tracker"
)

// script is what a server does with a job.
type script func(ctx context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error

// server is a backend in memory. What it does with a job is scripted.
type server struct {
	mu     sync.Mutex
	models []job.Model
	down   bool
	frozen bool // does not answer, on any connection
	lacks  []string
	script script
	jobs   []job.Job
	pings  int
	probes int
	check  func(job.Job) // whether a job may be here, if set

	unloaded []string
	probed   time.Duration // how long a probe takes
}

var errRefused = errors.New("connection refused")

// slow has each probe take so long.
func (s *server) slow(probe time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.probed = probe
}

func (s *server) Probe(ctx context.Context) (job.Facts, error) {
	s.mu.Lock()
	takes := s.probed
	s.probes++
	s.mu.Unlock()
	time.Sleep(takes)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return job.Facts{}, errRefused
	}
	return job.Facts{Models: s.models, Lacks: s.lacks}, nil
}

func (s *server) Ping(ctx context.Context) error {
	s.mu.Lock()
	s.pings++
	frozen := s.frozen
	s.mu.Unlock()
	if frozen {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (s *server) Stream(ctx context.Context, j job.Job, begin func(job.Head) error, emit func(job.Chunk) error) error {
	s.mu.Lock()
	s.jobs = append(s.jobs, j)
	down, script := s.down, s.script
	s.mu.Unlock()
	if s.check != nil {
		s.check(j)
	}
	if down {
		return &job.Error{Code: job.BackendFailed, Err: errRefused}
	}
	return script(ctx, begin, emit)
}

func (s *server) Do(*http.Request) (*http.Response, error) { return nil, errors.New("not asked for") }
func (s *server) Close()                                   {}

// count returns how many jobs came.
func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.jobs)
}

// answers is a script: a token at once, one more each second, and the end.
func answers(tokens ...string) script {
	return func(ctx context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
		if err := begin(job.Head{Status: 200}); err != nil {
			return err
		}
		for _, token := range tokens {
			if err := emit(job.Chunk{Text: token}); err != nil {
				return err
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return emit(job.Chunk{Last: true, Usage: job.Usage{Tokens: len(tokens)}})
	}
}

// fails is a script that fails before the first token.
func fails(code job.Code, detail string) script {
	return func(context.Context, func(job.Head) error, func(job.Chunk) error) error {
		return job.Errorf(code, "%s", detail)
	}
}

// silent is a script that says nothing for so long, and then answers.
func silent(d time.Duration) script {
	return func(ctx context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
		select {
		case <-time.After(d):
			return answers("late")(ctx, begin, emit)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sink records what a client would see.
type sink struct {
	routed []string
	begun  int
	text   strings.Builder
	report *dispatch.Report
	chunk  func(context.Context) error // called for each chunk, if set
}

func (s *sink) Routed(d route.Decision) { s.routed = append(s.routed, d.Backend) }
func (s *sink) Begin(job.Head) error    { s.begun++; return nil }

func (s *sink) Chunk(ctx context.Context, c job.Chunk, r *dispatch.Report) error {
	s.text.WriteString(c.Text)
	s.report = r
	if s.chunk != nil {
		return s.chunk(ctx)
	}
	return nil
}

// rig is a dispatcher over scripted servers, on a laptop on battery.
type rig struct {
	*dispatch.Dispatcher
	tiers                  *tracker.Tracker
	backends               *backend.Set
	npu, igpu, nvidia, cpu *server
	cloud                  *server                      // somewhere else, if leave is set
	leave                  *job.Leave                   // for whom
	sys                    atomic.Pointer[power.Supply] // what is read where nobody reports
	reads                  atomic.Int32
	looks                  atomic.Int32 // at the tier
	slots                  int          // of each backend
	metered                meter.Options
	meter                  *meter.Meter
	veto                   bool  // devices get hot
	heat                   *heat // nil if they do not
	cache                  *cache.Cache
	fetcher                dispatch.Fetcher
	stop                   func() // the desk

	mu      sync.Mutex
	entries []ledger.Entry
	held    []string
	learned map[string]ledger.Learned // by backend, on battery
	onLine  map[string]ledger.Learned // and on line power
	earlier []ledger.Entry            // of other days, the latest first
	told    []dispatch.End            // as an observer
	seen    int                       // attempts, likewise
	letGo   []string

	lookedUp int // how often somebody asked for sums
}

// Learned implements dispatch.Ledger, for the model m and any.
func (r *rig) Learned(backend, model string, onBattery bool) (ledger.Learned, bool) {
	all := r.onLine
	if onBattery {
		all = r.learned
	}
	l, known := all[backend]
	return l, known && (model == "m:latest" || model == ledger.AnyModel)
}

// Answers implements dispatch.Ledger.
func (r *rig) Answers(context.Context, int) ([]ledger.Entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Clone(r.entries)
	slices.Reverse(all)
	return append(all, r.earlier...), nil
}

// Totals implements dispatch.Ledger, by client, for entries of that day.
func (r *rig) Totals(_ context.Context, from, _ time.Time, by ledger.Grouping) (all []ledger.Total, err error) {
	if by != ledger.ByClient {
		return nil, errors.New("not asked for")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookedUp++
	sums := make(map[string]ledger.Sum)
	for _, e := range append(slices.Clone(r.entries), r.earlier...) {
		if e.Ended.Local().Format(time.DateOnly) == from.Local().Format(time.DateOnly) {
			sums[e.Client] = sums[e.Client].Plus(ledger.Sum{Energy: e.Cost.Energy, Tail: e.Cost.Tail})
		}
	}
	for client, sum := range sums {
		all = append(all, ledger.Total{Key: client, Estimated: sum})
	}
	return all, nil
}

// Record implements dispatch.Ledger.
func (r *rig) Record(e ledger.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, e)
}

func newRig(t testing.TB, change func(*rig)) *rig {
	t.Helper()
	one := func() *server {
		return &server{models: []job.Model{{Name: "m", Digest: "d", Resident: true}}, script: answers("Hello", ", ", "world")}
	}
	r := &rig{npu: one(), igpu: one(), nvidia: one(), cpu: one(), cloud: one()}
	if change != nil {
		change(r)
	}
	servers := map[power.DeviceClass]*server{power.NPU: r.npu, power.IntegratedGPU: r.igpu, power.NVIDIA: r.nvidia, power.CPU: r.cpu, power.Cloud: r.cloud}
	log := slog.New(slog.DiscardHandler)
	r.backends = backend.New(
		func(s backend.Spec) backend.Server { return servers[s.Class] },
		func(s backend.Spec, _ job.Facts) power.DeviceClass { return s.Class }, log)
	classes := []power.DeviceClass{power.NPU, power.IntegratedGPU, power.NVIDIA, power.CPU}
	if r.leave != nil {
		classes = append(classes, power.Cloud)
	}
	r.configureBackends(classes...)
	r.backends.LookHere(t.Context())
	r.sys.Store(new(power.Supply))
	r.tiers = tracker.New(power.DefaultPolicy(), power.PreferAuto, func() power.Supply { r.reads.Add(1); return *r.sys.Load() })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = r.tiers.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended; r.backends.Close() })
	r.supply(t, 80)
	var backends dispatch.Backends = r.backends
	if r.veto {
		r.heat = &heat{Backends: r.backends, hot: make(map[power.DeviceClass]bool)}
		backends = r.heat
	}
	r.meter = meter.New(r.metered)
	t.Cleanup(r.meter.Close)
	r.Dispatcher = dispatch.New(dispatch.Parts{
		Tiers: looked{r.tiers, &r.looks}, Backends: backends, Meter: r.meter, Ledger: r, Cache: r.cache, Observer: r, Fetcher: r.fetcher, Log: log,
	}, gpuAsleep())
	driven := make(chan struct{})
	desk, leave := context.WithCancel(ctx)
	go func() { defer close(driven); _ = r.Drive(desk) }()
	r.stop = func() { leave(); <-driven }
	t.Cleanup(r.stop)
	return r
}

// looked counts how often somebody looks at the tier.
type looked struct {
	dispatch.Tiers
	n *atomic.Int32
}

func (l looked) Look(ctx context.Context) tracker.Snapshot {
	l.n.Add(1)
	return l.Tiers.Look(ctx)
}

// configureBackends has one backend of each class.
func (r *rig) configureBackends(classes ...power.DeviceClass) {
	var specs []backend.Spec
	for _, class := range classes {
		spec := backend.Spec{ID: "ollama-" + string(class), Type: "ollama", Class: class, Slots: r.slots, Endpoint: url.URL{Host: "127.0.0.1:1"}}
		if class == power.Cloud {
			spec.Leave, spec.Models, spec.Price = *r.leave, map[string]string{"m": "m"}, job.Price{Output: 1, Currency: "EUR"}
		}
		specs = append(specs, spec)
	}
	r.backends.Configure(specs)
}

// gpuAsleep are the default settings, but that on battery the discrete GPU is
// left asleep even if nothing else is in time.
func gpuAsleep() dispatch.Settings {
	s := dispatch.DefaultSettings()
	rule := s.Rules.Tiers[power.Battery]
	rule.DiscreteGPU = route.LatencyCritical
	s.Rules.Tiers[power.Battery] = rule
	return s
}

func (r *rig) supply(t testing.TB, charge power.Charge) {
	t.Helper()
	s := power.Supply{Source: "upower", Battery: true, Discharging: true, Charge: charge, Warning: power.WarningNone}
	if charge < 5 {
		s.Warning = power.WarningCritical
	}
	if err := r.tiers.Supply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// unreported has the battery seen only by who reads it.
func (r *rig) unreported(t *testing.T, charge power.Charge) {
	t.Helper()
	r.sys.Store(&power.Supply{Source: "sysfs", Battery: true, Discharging: true, Charge: charge})
	if err := r.tiers.Supply(t.Context(), power.Supply{}); err != nil {
		t.Fatal(err)
	}
}

func chat() job.Job { return job.Job{Kind: job.Chat, Model: "m", Stream: true} }

// expect runs a job that must be answered.
func expect(t *testing.T, r *rig, j job.Job, want ...string) *sink {
	t.Helper()
	s := new(sink)
	if err := r.Run(t.Context(), j, s); err != nil {
		t.Fatalf("got %v", err)
	}
	if !slices.Equal(s.routed, want) || s.begun != 1 || s.report == nil || r.Running() != 0 {
		t.Fatalf("routed to %v, begun %d times, report %v, %d still running; want %v", s.routed, s.begun, s.report, r.Running(), want)
	}
	return s
}

// expectError runs a job that must fail.
func expectError(t *testing.T, r *rig, j job.Job, code job.Code, says string) *sink {
	t.Helper()
	s := new(sink)
	err := r.Run(t.Context(), j, s)
	var e *job.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(err.Error(), says) || s.report != nil || r.Running() != 0 {
		t.Fatalf("got %v, report %v; want %q that says %q", err, s.report, code, says)
	}
	return s
}

// scenario runs a test in a bubble on a rig.
func scenario(t *testing.T, change func(*rig), f func(*testing.T, *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newRig(t, change)) })
}

func TestAnswer(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		s := expect(t, r, chat(), "ollama-igpu")
		if s.text.String() != "Hello, world" {
			t.Errorf("text is %q", s.text.String())
		}
		rep := s.report
		if rep.Total != 3*time.Second || rep.FirstToken != 0 || rep.Usage.Tokens != 3 || rep.Decision.Tier != power.Battery || rep.TierReason != power.ReasonDischarging {
			t.Errorf("report is %+v", rep)
		}
		if want := (power.Cost{Energy: 36 * power.Joule, Quality: power.Estimated, Source: "12.0 W assumed x 3.00 s"}); rep.Cost != want {
			t.Errorf("cost is %+v", rep.Cost)
		}
		if m := r.backends.Metrics("ollama-igpu"); m.PerMinute != 1 || m.ErrorRate != 0 {
			t.Errorf("metrics are %+v", m)
		}
	})
}

func TestFallsBackBeforeTheFirstToken(t *testing.T) {
	for _, c := range []struct {
		what   string
		damage func(*server)
	}{
		{"a refused connection", func(s *server) {
			s.script = func(context.Context, func(job.Head) error, func(job.Chunk) error) error {
				return &job.Error{Code: job.BackendFailed, Err: errRefused}
			}
		}},
		{"a bad answer", func(s *server) { s.script = fails(job.BackendFailed, "500") }},
		{"a busy server", func(s *server) { s.script = fails(job.Busy, "429") }},
		{"a model that is gone", func(s *server) { s.script = fails(job.ModelNotFound, "404") }},
		{"a dialect without words for it", func(s *server) { s.script = fails(job.Unsupported, "suffix") }},
		{"a frozen server", func(s *server) { s.frozen, s.script = true, silent(time.Hour) }},
		{"a frozen runner", func(s *server) { s.script = silent(time.Hour) }},
	} {
		scenario(t, func(r *rig) { c.damage(r.igpu) }, func(t *testing.T, r *rig) {
			s := expect(t, r, chat(), "ollama-igpu", "ollama-npu")
			if s.text.String() != "Hello, world" || len(s.report.Failures) != 1 || s.report.Failures[0].Backend != "ollama-igpu" {
				t.Errorf("%s: %q, %+v", c.what, s.text.String(), s.report)
			}
			if want := "ollama-npu"; s.report.Decision.Backend != want {
				t.Errorf("%s: report names %s", c.what, s.report.Decision.Backend)
			}
		})
	}
}

func TestNobodyIsBlamedForADialectWithoutWords(t *testing.T) {
	scenario(t, func(r *rig) {
		for _, s := range []*server{r.npu, r.igpu, r.nvidia, r.cpu} {
			s.script = fails(job.Unsupported, "suffix")
		}
	}, func(t *testing.T, r *rig) {
		for range 4 {
			expectError(t, r, chat(), job.Unsupported, "ollama-igpu: not supported by the backend: suffix")
		}
		for _, b := range r.backends.Current() {
			if !b.Healthy || b.Suspect != "" || r.backends.Metrics(b.ID).PerMinute != 0 {
				t.Errorf("%s is %q %q", b.ID, b.Problem, b.Suspect)
			}
		}
	})
}

func TestFrozenServerCostsThreeSeconds(t *testing.T) {
	scenario(t, func(r *rig) { r.igpu.frozen, r.igpu.script = true, silent(time.Hour) }, func(t *testing.T, r *rig) {
		s := expect(t, r, chat(), "ollama-igpu", "ollama-npu")
		if s.report.FirstToken != 3*time.Second {
			t.Errorf("the first token came after %v", s.report.FirstToken)
		}
		// 12 W for 3 s, and 3 W for 3 s.
		if s.report.Cost.Energy != 45*power.Joule {
			t.Errorf("cost is %+v", s.report.Cost)
		}
		if b := r.backends.Current()[1]; b.Healthy {
			t.Error("the frozen server is still healthy")
		}
	})
}

func TestFrozenRunnerIsBounded(t *testing.T) {
	scenario(t, func(r *rig) {
		r.igpu.script, r.igpu.models[0].ContextLength = silent(time.Hour), 8192
	}, func(t *testing.T, r *rig) {
		j := chat()
		j.ContextLength = 8192 // which it is loaded with
		s := expect(t, r, j, "ollama-igpu", "ollama-npu")
		if s.report.FirstToken != 10*time.Second {
			t.Errorf("the first token came after %v", s.report.FirstToken)
		}
		if b := r.backends.Current()[1]; !b.Healthy || b.Suspect == "" {
			t.Errorf("the server with the frozen runner is %+v", b)
		}
	})
}

func TestSilenceIsNoFailure(t *testing.T) {
	wide := chat()
	wide.ContextLength = 8192
	for _, c := range []struct {
		what    string
		job     job.Job
		silence time.Duration
		change  func(*server)
	}{
		{"a while before the first token", chat(), 9 * time.Second, func(*server) {}},
		// (350 ms + 1000 tokens at 22/s) x 3 = 137 s
		{"a whole answer in one piece", job.Job{Kind: job.Chat, Model: "m"}, 130 * time.Second, func(*server) {}},
		{"an answer held back for tools", job.Job{Kind: job.Chat, Model: "m", Stream: true, Tools: true}, 130 * time.Second, func(*server) {}},
		// 40 kB of prompt are 10 000 tokens at 220/s, x 3 = 136 s
		{"a long prompt", job.Job{Kind: job.Chat, Model: "m", Stream: true, PromptBytes: 40_000}, 130 * time.Second, func(*server) {}},
		{"a resident model that is loaded anew for another context", wide, 299 * time.Second, func(s *server) { s.models[0].ContextLength = 4096 }},
		{"a resident model of an unknown context", wide, 299 * time.Second, func(*server) {}},
		// (350 ms + 1 s + 8 GB at 1 GB/s) x 3 = 28 s
		{"a resident model that was evicted behind our back", chat(), 27 * time.Second, func(s *server) { s.models[0].Size = 8e9 }},
		{"a cold load", chat(), 299 * time.Second, func(s *server) { s.models = []job.Model{{Name: "m", Digest: "d", Size: 1e6}} }},
	} {
		scenario(t, func(r *rig) { c.change(r.igpu); r.igpu.script = silent(c.silence) }, func(t *testing.T, r *rig) {
			c.job.Target = "igpu"
			expect(t, r, c.job, "ollama-igpu")
			r.igpu.mu.Lock()
			defer r.igpu.mu.Unlock()
			if n := r.igpu.pings; n == 0 || n > 14 {
				t.Errorf("%s: %d pings", c.what, n)
			}
		})
	}
}

// oneByOne is a script that leaves a job without a word while another one is
// worked on, as Ollama does.
func oneByOne(work script) script {
	slot := make(chan struct{}, 1)
	return func(ctx context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
		select {
		case slot <- struct{}{}:
			defer func() { <-slot }()
			return work(ctx, begin, emit)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// together runs so many jobs on the igpu at once, and returns what each of
// their clients saw.
func together(t *testing.T, r *rig, n int) []*sink {
	t.Helper()
	var jobs sync.WaitGroup
	sinks := make([]*sink, n)
	for i := range sinks {
		sinks[i] = new(sink)
		jobs.Go(func() {
			if err := r.Run(t.Context(), chat(), sinks[i]); err != nil {
				t.Errorf("job %d: %v", i, err)
			}
		})
	}
	jobs.Wait()
	return sinks
}

func TestStandingInLineIsNoSilence(t *testing.T) {
	minute := answers(strings.Split(strings.Repeat("x", 60), "")...)
	scenario(t, func(r *rig) { r.igpu.script, r.slots = oneByOne(minute), 4 }, func(t *testing.T, r *rig) {
		for i, s := range together(t, r, 4) {
			if !slices.Equal(s.routed, []string{"ollama-igpu"}) {
				t.Errorf("job %d went to %v", i, s.routed)
			}
		}
		if b := r.backends.Current()[1]; b.Suspect != "" {
			t.Errorf("the busy server is suspect: %s", b.Suspect)
		}
	})
}

func TestFrozenRunnerHoldsUpEveryoneInLineOnlyOnce(t *testing.T) {
	scenario(t, func(r *rig) { r.igpu.script, r.slots = oneByOne(silent(time.Hour)), 4 }, func(t *testing.T, r *rig) {
		for i, s := range together(t, r, 4) {
			if !slices.Equal(s.routed, []string{"ollama-igpu", "ollama-npu"}) || s.report.FirstToken != 10*time.Second {
				t.Errorf("job %d went to %v, its first token came after %v", i, s.routed, s.report.FirstToken)
			}
		}
	})
}

func TestSlowReaderIsNoSilence(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		s := &sink{chunk: func(context.Context) error { time.Sleep(10 * time.Minute); return nil }}
		if err := r.Run(t.Context(), chat(), s); err != nil {
			t.Errorf("got %v", err)
		}
		if r.igpu.pings != 0 {
			t.Errorf("the server was asked for %d signs of life while the client read", r.igpu.pings)
		}
	})
}

func TestNothingIsTakenBackAfterTheFirstToken(t *testing.T) {
	token := func(begin func(job.Head) error, emit func(job.Chunk) error) {
		_ = begin(job.Head{Status: 200})
		_ = emit(job.Chunk{Text: "Hel"})
	}
	for _, c := range []struct {
		what, says string
		frozen     bool
		script     script
	}{
		{"a death", "its stream ended", false, func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			token(begin, emit)
			return job.Errorf(job.BackendFailed, "its stream ended")
		}},
		{"a runner that freezes", "silent about the job", false, func(ctx context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			token(begin, emit)
			<-ctx.Done()
			return context.Cause(ctx)
		}},
		{"a server that freezes", "no sign of life", true, func(ctx context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			token(begin, emit)
			<-ctx.Done()
			return context.Cause(ctx)
		}},
	} {
		scenario(t, func(r *rig) { r.igpu.script, r.igpu.frozen = c.script, c.frozen }, func(t *testing.T, r *rig) {
			s := expectError(t, r, chat(), job.BackendFailed, c.says)
			if !slices.Equal(s.routed, []string{"ollama-igpu"}) || s.text.String() != "Hel" {
				t.Errorf("%s: routed to %v, text %q", c.what, s.routed, s.text.String())
			}
		})
	}
}

func TestConstraintsHoldInFallback(t *testing.T) {
	scenario(t, func(r *rig) {
		r.igpu.script = fails(job.BackendFailed, "500")
		r.npu.script = fails(job.BackendFailed, "500")
	}, func(t *testing.T, r *rig) {
		j := chat()
		j.MaxPower = 15 * power.Watt
		s := expectError(t, r, j, job.BackendFailed, "every candidate failed")
		if !slices.Equal(s.routed, []string{"ollama-igpu", "ollama-npu"}) {
			t.Errorf("under a cap of 15 W it went to %v", s.routed)
		}
		if r.nvidia.count()+r.cpu.count() != 0 {
			t.Error("a backend over the cap got the job")
		}
	})
}

func TestOnlyCandidateFailsInItsOwnWords(t *testing.T) {
	answer := &job.Answer{Status: 500, Body: []byte(`{"error":"out of memory"}`)}
	scenario(t, func(r *rig) {
		r.igpu.script = func(context.Context, func(job.Head) error, func(job.Chunk) error) error {
			return &job.Error{Code: job.BackendFailed, Detail: "out of memory", Answer: answer}
		}
	}, func(t *testing.T, r *rig) {
		j := chat()
		j.Target = "igpu"
		err := r.Run(t.Context(), j, new(sink))
		var e *job.Error
		if !errors.As(err, &e) || e.Answer != answer || e.Detail != "ollama-igpu: out of memory" {
			t.Errorf("got %+v", err)
		}
	})
}

func TestFailureTellsWhyTheOthersDidNotGetTheJob(t *testing.T) {
	answer := &job.Answer{Status: 500, Body: []byte(`{"error":"out of memory"}`)}
	scenario(t, func(r *rig) {
		r.npu.down, r.cpu.models = true, nil
		r.igpu.script = func(context.Context, func(job.Head) error, func(job.Chunk) error) error {
			return &job.Error{Code: job.BackendFailed, Detail: "out of memory", Answer: answer}
		}
	}, func(t *testing.T, r *rig) {
		want := map[string]string{
			"ollama-igpu":   "backend failed: out of memory",
			"ollama-npu":    "not healthy: connection refused",
			"ollama-nvidia": "a discrete GPU runs on tier battery only latency-critical jobs, or when named",
			"ollama-cpu":    `has no model "m"`,
		}
		var e *job.Error
		if err := r.Run(t.Context(), chat(), new(sink)); !errors.As(err, &e) || e.Code != job.BackendFailed || !maps.Equal(e.Refused, want) || e.Answer != answer {
			t.Errorf("after one failure: %+v", err)
		}
		r.cpu.models, r.cpu.script = r.igpu.models, fails(job.Busy, "queue full")
		want["ollama-cpu"] = "busy: queue full"
		time.Sleep(time.Minute)
		if err := r.Run(t.Context(), chat(), new(sink)); !errors.As(err, &e) || e.Code != job.BackendFailed || !maps.Equal(e.Refused, want) || e.Answer != nil {
			t.Errorf("after two: %+v", err)
		}
	})
}

func TestFallbackHasOnlyWhatIsLeftOfTheDeadline(t *testing.T) {
	scenario(t, func(r *rig) { r.npu.script = silent(time.Hour) }, func(t *testing.T, r *rig) {
		s := dispatch.DefaultSettings()
		s.Rules.Tiers[power.Low] = route.Rule{DiscreteGPU: route.Always, Background: route.Run}
		r.Configure(s)
		r.supply(t, 15)
		j := chat()
		// The npu needs 14.8 s, and freezes for 10. Of what is left the igpu
		// needs 6.7, and the other one 2.3.
		j.MaxTokens, j.Deadline = 140, 15*time.Second
		expect(t, r, j, "ollama-npu", "ollama-nvidia")
	})
}

func TestFallbackHasOnlyWhatIsLeftOfTheLatency(t *testing.T) {
	scenario(t, func(r *rig) { r.igpu.frozen, r.igpu.script = true, silent(time.Hour) }, func(t *testing.T, r *rig) {
		j := chat()
		// The igpu freezes for 3 s, after which the npu needs 800 ms.
		j.MaxLatency = 3500 * time.Millisecond
		expectError(t, r, j, job.BackendFailed, "ollama-npu: first token predicted after 800 ms more, 3000 ms after arrival, later than max_latency_ms allows (3500)")
		time.Sleep(time.Minute)
		j.MaxLatency = 4 * time.Second
		expect(t, r, j, "ollama-igpu", "ollama-npu")
	})
}

func TestErrorOfOneBackendNamesIt(t *testing.T) {
	cut := &job.Error{Code: job.BackendFailed, Err: io.ErrUnexpectedEOF}
	for name, script := range map[string]script{
		"before the first token": func(context.Context, func(job.Head) error, func(job.Chunk) error) error { return cut },
		"after it": func(_ context.Context, begin func(job.Head) error, _ func(job.Chunk) error) error {
			return errors.Join(begin(job.Head{Status: 200}), cut)
		},
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, func(r *rig) { r.igpu.script = script }, func(t *testing.T, r *rig) {
				j := chat()
				j.Target = "igpu"
				if err := r.Run(t.Context(), j, new(sink)); err == nil || err.Error() != "backend failed: ollama-igpu: unexpected EOF" {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

func TestAllBusy(t *testing.T) {
	busy := fails(job.Busy, "queue full")
	scenario(t, func(r *rig) {
		r.npu.script, r.igpu.script, r.nvidia.script, r.cpu.script = busy, busy, busy, busy
	}, func(t *testing.T, r *rig) {
		expectError(t, r, chat(), job.Busy, "queue full")
	})
}

func TestEmbeddingsFallBackOnlyToTheSameWeights(t *testing.T) {
	scenario(t, func(r *rig) {
		r.igpu.script = fails(job.BackendFailed, "500")
		r.npu.models = []job.Model{{Name: "m", Digest: "other", Resident: true}}
	}, func(t *testing.T, r *rig) {
		expect(t, r, job.Job{Kind: job.Embed, Model: "m"}, "ollama-igpu", "ollama-cpu")
	})
}

func TestModelIsChosenForWhoNamesNone(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		j := chat()
		j.Model = ""
		expect(t, r, j, "ollama-igpu")
		if got := r.igpu.jobs[0]; got.Model != "m" || !got.Chosen {
			t.Errorf("a resident model: %q, chosen %v", got.Model, got.Chosen)
		}
		s := dispatch.DefaultSettings()
		s.Models = map[power.Tier]string{power.TierUnknown: "m:latest", power.Battery: "M"}
		r.Configure(s)
		expect(t, r, j, "ollama-igpu")
		if got := r.igpu.jobs[1]; got.Model != "M" {
			t.Errorf("the tier's default: %q", got.Model)
		}
		r.supply(t, 40)
		expect(t, r, j, "ollama-igpu")
		if got := r.igpu.jobs[2]; got.Model != "m:latest" {
			t.Errorf("the general default: %q", got.Model)
		}
	})
}

func TestModelIsChosenFromWhereTheJobMayRun(t *testing.T) {
	scenario(t, func(r *rig) {
		for s, name := range map[*server]string{r.npu: "a", r.igpu: "b", r.nvidia: "c", r.cpu: "d"} {
			s.models = []job.Model{{Name: name, Resident: true}}
		}
	}, func(t *testing.T, r *rig) {
		for target, want := range map[string]string{"": "a", "igpu": "b", "nvidia": "c", "cpu": "d"} {
			j := chat()
			j.Model, j.Target = "", target
			s := new(sink)
			if err := r.Run(t.Context(), j, s); err != nil || s.report.Model != want {
				t.Errorf("target %q: %v, %+v; want model %q", target, err, s.report, want)
			}
		}
		j := chat()
		j.Model, j.Target = "", "nosuch"
		expectError(t, r, j, job.BackendNotFound, "nosuch")
	})
}

func TestModelNotFoundListsWhatThereIs(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		j := chat()
		j.Model = "nosuch"
		expectError(t, r, j, job.ModelNotFound, `"nosuch"; there are m`)
	})
	scenario(t, func(r *rig) {
		for _, s := range []*server{r.npu, r.igpu, r.nvidia, r.cpu} {
			s.models = []job.Model{{Name: "a"}, {Name: "b"}}
		}
	}, func(t *testing.T, r *rig) {
		j := chat()
		j.Model = ""
		expectError(t, r, j, job.ModelNotFound, "there are a, b")
	})
}

func TestBackendThatComesLaterIsTakenIn(t *testing.T) {
	scenario(t, func(r *rig) {
		for _, s := range []*server{r.npu, r.igpu, r.nvidia, r.cpu} {
			s.down = true
		}
	}, func(t *testing.T, r *rig) {
		expectError(t, r, chat(), job.NoBackend, "connection refused")
		nameless := chat()
		nameless.Model = ""
		expectError(t, r, nameless, job.NoBackend, "connection refused")
		time.Sleep(time.Second)
		r.cpu.mu.Lock()
		r.cpu.down = false
		r.cpu.mu.Unlock()
		expect(t, r, chat(), "ollama-cpu")
	})
}

func TestFallbackFindsBackendThatCameSince(t *testing.T) {
	scenario(t, func(r *rig) {
		r.igpu.script = fails(job.BackendFailed, "500")
		r.npu.down, r.nvidia.down, r.cpu.down = true, true, true
	}, func(t *testing.T, r *rig) {
		time.Sleep(500 * time.Millisecond) // the back-off is a second yet
		r.cpu.mu.Lock()
		r.cpu.down = false
		r.cpu.mu.Unlock()
		expect(t, r, chat(), "ollama-igpu", "ollama-cpu")
	})
}

func TestDeadline(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		j := chat()
		j.Deadline = 1500 * time.Millisecond
		start := time.Now()
		s := expectError(t, r, j, job.DeadlinePassed, "1500 ms")
		if s.text.String() != "Hello, " || time.Since(start) != j.Deadline {
			t.Errorf("after %v: %q", time.Since(start), s.text.String())
		}
	})
}

func TestDeadlineEndsTheWaitForAClient(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		j := chat()
		j.Deadline = 1500 * time.Millisecond
		start := time.Now()
		err := r.Run(t.Context(), j, &sink{chunk: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		if !errors.Is(err, job.DeadlinePassed) || time.Since(start) != j.Deadline {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestClientThatLeavesCancelsTheBackend(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(1500*time.Millisecond, cancel)
		start := time.Now()
		err := r.Run(ctx, chat(), new(sink))
		if !errors.Is(err, job.Cancelled) || time.Since(start) != 1500*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if m := r.backends.Metrics("ollama-igpu"); m.ErrorRate != 0 || !r.backends.Current()[1].Healthy {
			t.Error("the backend is blamed for the client's leaving")
		}
	})
}

func TestUndeliverableAnswerEndsTheJob(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		broken := errors.New("broken pipe")
		err := r.Run(t.Context(), chat(), &sink{chunk: func(context.Context) error { return broken }})
		if !errors.Is(err, job.Cancelled) || !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
}

func TestStopEndsEveryJob(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		errs := make(chan error)
		for range 3 {
			go func() { errs <- r.Run(t.Context(), chat(), new(sink)) }()
		}
		synctest.Wait()
		if n := r.Running(); n != 3 {
			t.Errorf("%d jobs are running", n)
		}
		r.Stop()
		for range 3 {
			if err := <-errs; !errors.Is(err, job.Stopping) {
				t.Errorf("got %v", err)
			}
		}
		expectError(t, r, chat(), job.Stopping, "")
	})
}

func TestBackgroundJobsWaitForABetterTier(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		r.supply(t, 15)
		j := chat()
		j.Class = job.Background
		s, done := new(sink), make(chan error)
		go func() { done <- r.Run(t.Context(), j, s) }()
		synctest.Wait()
		if len(s.routed) != 0 {
			t.Fatal("a background job runs on a low battery")
		}
		r.supply(t, 60)
		time.Sleep(time.Minute)
		if err := <-done; err != nil || !slices.Equal(s.routed, []string{"ollama-npu"}) {
			t.Errorf("got %v, %v", s.routed, err)
		}

		r.supply(t, 15)
		go func() { done <- r.Run(t.Context(), j, new(sink)) }()
		synctest.Wait()
		r.supply(t, 3)
		if err := <-done; !errors.Is(err, job.PowerPolicy) {
			t.Errorf("when the battery became critical: %v", err)
		}
	})
}

func TestBackgroundJobsWaitNoLongerThanTheRulesWantThemTo(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		r.supply(t, 15)
		j := chat()
		j.Class = job.Background
		done := make(chan error, 1)
		go func() { done <- r.Run(t.Context(), j, new(sink)) }()
		synctest.Wait()
		if n := r.igpu.count() + r.npu.count(); n != 0 {
			t.Fatal("a background job runs on a low battery")
		}
		s := dispatch.DefaultSettings()
		s.Rules.Tiers[power.Low] = route.Rule{DiscreteGPU: route.Never, Background: route.Run}
		r.Configure(s)
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Fatal("the job waits on, by rules that are no longer in force")
		}
	})
}

func TestBackgroundJobsWaitAlsoForWhatNobodyReports(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		r.unreported(t, 15)
		j := chat()
		j.Class = job.Background
		done, reads := make(chan error, 1), r.reads.Load()
		go func() { done <- r.Run(t.Context(), j, new(sink)) }()
		time.Sleep(time.Hour)
		if n := r.reads.Load() - reads; n > 61 {
			t.Errorf("the supply was read %d times within an hour of waiting", n)
		}
		select {
		case err := <-done:
			t.Fatalf("on a low battery the job ended with %v", err)
		default:
		}
		r.sys.Store(&power.Supply{Source: "sysfs"}) // Somebody plugs it in.
		time.Sleep(2 * time.Minute)
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Fatal("the job waits on, although the machine is plugged in")
		}
		reads = r.reads.Load()
		time.Sleep(time.Hour)
		if n := r.reads.Load() - reads; n != 0 {
			t.Errorf("the supply was read %d times while nobody waited", n)
		}
	})
}

func TestWaitingWakesNobodyWhereTheSupplyIsReported(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		r.supply(t, 15)
		j := chat()
		j.Class, j.Deadline = job.Background, time.Hour
		start := time.Now()
		before := r.looks.Load()
		expectError(t, r, j, job.DeadlinePassed, "waiting for a better tier than low")
		if n := r.looks.Load() - before; time.Since(start) != time.Hour || n > 3 {
			t.Errorf("looked %d times within %v", n, time.Since(start))
		}
	})
}

func TestPromptTooLarge(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		j := chat()
		j.PromptBytes = 8<<20 + 1
		expectError(t, r, j, job.PromptTooLarge, "the limit is 8388608")
	})
}

func TestTierThatChangesDoesNotMoveWork(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		time.AfterFunc(time.Second, func() { r.supply(t, 3) })
		expect(t, r, chat(), "ollama-igpu")
		expect(t, r, chat(), "ollama-npu")
	})
}

func TestProspect(t *testing.T) {
	scenario(t, nil, func(t *testing.T, r *rig) {
		for tier, want := range map[power.Tier]string{power.Mains: "ollama-nvidia", power.Battery: "ollama-igpu", power.Low: "ollama-npu"} {
			if d, err := r.Prospect(tier, r.backends.Current()); err != nil || d.Backend != want {
				t.Errorf("on %v: %s, %v; want %s", tier, d.Backend, err, want)
			}
		}
		if _, err := r.Prospect(power.Mains, nil); !errors.Is(err, job.NoBackend) {
			t.Errorf("without backends: %v", err)
		}
	})
}
