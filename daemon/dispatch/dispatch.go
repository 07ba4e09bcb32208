// Package dispatch runs jobs. It is the only way to run one: whatever the
// front-end, a job is admitted, routed, streamed, and charged for here.
//
// A job whose backend fails before the first token goes to the next candidate,
// with every constraint kept. After the first token a failure is an error of
// the stream: what a client has seen is never taken back, and a stream that
// broke is never ended as if it were whole.
//
// A job whose answer is known, or is being given to another, is not run: what
// daemon/cache keeps costs nothing, whatever the tier and be every backend down,
// and what several ask for at the same time is asked for once. It counts with
// the job that came first; what is predicted of backends, their health and how
// long models stay hear nothing of the others.
package dispatch

import (
	"context"
	"crypto/rand"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/cache"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/latest"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/quota"
	"github.com/joulemux/joulemux/daemon/residency"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
	"github.com/joulemux/joulemux/power/tracker"
)

// Tiers tells the tier in force. *tracker.Tracker does.
type Tiers interface {
	Look(ctx context.Context) tracker.Snapshot
	Watch(ctx context.Context) iter.Seq[tracker.Snapshot]
}

// Backends tells which backends there are, and is told how they did.
// *backend.Set does.
type Backends interface {
	Wanted(ctx context.Context) backend.Snapshot
	Search(ctx context.Context) backend.Snapshot
	Current() backend.Snapshot
	Served(id, model string, firstToken time.Duration, stays *time.Duration)
	Failed(id string, err error)
	Unloaded(id, model string)
}

// Meter tells what jobs take. *meter.Meter does.
type Meter interface {
	Begin(ctx context.Context, w meter.Work) *meter.Span
	SeesHeld(c power.DeviceClass) bool
	HeldDraw(ctx context.Context, c power.DeviceClass) (power.Power, bool)
}

// Ledger keeps what attempts took, and tells what that teaches. *ledger.Ledger
// does.
type Ledger interface {
	Record(ledger.Entry)
	Held(backend string, onBattery bool, draw power.Power)
	Learned(backend, model string, onBattery bool) (ledger.Learned, bool)
	Answers(ctx context.Context, n int) ([]ledger.Entry, error)
	Totals(ctx context.Context, from, to time.Time, by ledger.Grouping) ([]ledger.Total, error)
}

// Parts is what dispatch stands on.
type Parts struct {
	Tiers    Tiers
	Backends Backends
	Meter    Meter
	Ledger   Ledger
	// Cache keeps answers; nil keeps none.
	Cache *cache.Cache
	// Observer may be nil.
	Observer Observer
	// Fetcher gets models that no backend has.
	Fetcher Fetcher
	Log     *slog.Logger
}

// Sink takes the answer to one job. Its methods are called one at a time, by
// whoever called Run.
type Sink interface {
	// Routed is called before each attempt: the second time is a fallback.
	Routed(route.Decision)
	// Begin is called once, when a backend begins to answer.
	Begin(job.Head) error
	// Chunk is called for each piece of the answer. The report is nil but
	// with the last. An error means that the client is gone. The context ends
	// with the job: who waits for the client waits no longer than that.
	Chunk(context.Context, job.Chunk, *Report) error
}

// Settings are the user's choices about dispatch.
type Settings struct {
	Rules route.Rules
	// Models names, by tier, the model of a job that names none; the one of
	// power.TierUnknown stands for tiers without one.
	Models map[power.Tier]string
	// AutoPull is what becomes of a job whose model no backend has.
	AutoPull AutoPull
	// Residency says for how long models are kept.
	Residency residency.Rules
	// Learn replaces what is assumed of backends and answers by what jobs have
	// taken.
	Learn bool
	// MaxPrompt bounds the text of a job, in bytes.
	MaxPrompt int
	// LoadLimit bounds how long a model may take to become resident.
	LoadLimit time.Duration
	// Quota says what one client may have.
	Quota quota.Rules
	// Refusal is what every job is answered with, unless nil.
	Refusal *job.Error
}

// DefaultSettings returns what is in force without configuration.
func DefaultSettings() Settings {
	return Settings{
		Rules:     route.DefaultRules(),
		Residency: residency.DefaultRules(),
		Learn:     true,
		MaxPrompt: 8 << 20,
		LoadLimit: 5 * time.Minute, // Ollama's own, OLLAMA_LOAD_TIMEOUT
	}
}

// plan returns what of the settings is the plan's.
func (s *Settings) plan() *plan.Settings {
	return &plan.Settings{Rules: s.Rules, Residency: s.Residency, Predict: s.Learn}
}

// Dispatcher runs jobs.
type Dispatcher struct {
	Parts
	settings latest.Value[*Settings]
	lines    *lines
	desk     *desk
	flights  *flights
	errands  sync.WaitGroup // of the desk: watching the tier, and what is asked of servers and sensors beside jobs

	mu      sync.Mutex // guards the following
	running map[*run]context.CancelCauseFunc
	stopped bool
	quota   *quota.Quota

	lookup sync.Mutex // held by whoever looks up for the quota what was spent
}

// New returns a dispatcher with those settings.
func New(p Parts, settings Settings) *Dispatcher {
	if p.Observer == nil {
		p.Observer = nobody{}
	}
	d := &Dispatcher{
		Parts: p, lines: newLines(), flights: newFlights(p.Cache), desk: newDesk(&settings),
		running: make(map[*run]context.CancelCauseFunc), quota: quota.New(settings.Quota),
	}
	d.settings.Publish(&settings)
	return d
}

// Configure replaces the settings. Jobs under way keep theirs, but for those
// that wait for a better tier. Calls must not overlap.
func (d *Dispatcher) Configure(s Settings) {
	d.settings.Publish(&s)
	d.ration(s.Quota)
	_ = d.desk.do(func(now time.Time) { // fails once there are no jobs
		d.desk.carryOut(d.desk.plan.Configure(now, s.plan()))
	})
}

// Run runs j and hands the answer to sink. It returns when the last chunk has
// been handed over, or with why there is none: always a *job.Error.
func (d *Dispatcher) Run(ctx context.Context, j job.Job, sink Sink) error {
	if j.ID == "" {
		j.ID = rand.Text()
	}
	if j.Class == "" {
		j.Class = job.Interactive
	}
	if j.Arrived.IsZero() {
		j.Arrived = time.Now()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if j.Prompt == nil {
		j.Prompt = j.Content.Fingerprint()
	}
	r := &run{Dispatcher: d, settings: d.settings.Current(), job: j, sink: sink, turn: make(chan plan.Effect, 1)}
	defer r.observed()
	if err := d.enter(ctx, r, cancel); err != nil {
		r.over, r.code = true, Failure{Err: err}.Code()
		return err
	}
	defer d.leave(r)
	if j.Deadline > 0 {
		passed := job.Errorf(job.DeadlinePassed, "%d ms", j.Deadline.Milliseconds())
		var stop context.CancelFunc
		ctx, stop = context.WithDeadlineCause(ctx, j.Arrived.Add(j.Deadline), passed)
		defer stop()
	}
	return r.finish(ctx, r.answer(ctx))
}

// Running returns how many jobs are under way.
func (d *Dispatcher) Running() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.running)
}

// Waiting returns how many jobs of a class wait: in line, or for a better tier.
func (d *Dispatcher) Waiting(class job.Class) int {
	d.desk.mu.Lock()
	defer d.desk.mu.Unlock()
	return d.desk.plan.Waiting(class)
}

// Stop ends every job with the code Stopping, and admits no more.
func (d *Dispatcher) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	for _, cancel := range d.running {
		cancel(job.Errorf(job.Stopping, ""))
	}
}

// Prospect returns where an ordinary job would go at that tier, with those
// backends: an interactive one that names nothing. A tier that is more careful
// than mains is taken for one of a machine on battery.
func (d *Dispatcher) Prospect(tier power.Tier, backends backend.Snapshot) (route.Decision, error) {
	j := job.Job{Kind: job.Chat}
	j.Class = job.Interactive
	return d.foresee(j, tier, tier.MoreCarefulThan(power.Mains), backends)
}

// Explain returns where j would go now, or at that tier unless nil, with every
// backend's part in it. It runs nothing, and the decision has its options even
// if none is fit.
func (d *Dispatcher) Explain(ctx context.Context, j job.Job, tier *power.Tier) (route.Decision, error) {
	if j.Class == "" {
		j.Class = job.Interactive
	}
	now := d.Tiers.Look(ctx)
	onBattery := now.Supply.Discharging
	if tier != nil {
		now.Tier, onBattery = *tier, tier.MoreCarefulThan(power.Mains)
	}
	return d.foresee(j, now.Tier, onBattery, d.Backends.Wanted(ctx))
}

// foresee decides where j would go, and takes no note of it.
func (d *Dispatcher) foresee(j job.Job, tier power.Tier, onBattery bool, backends backend.Snapshot) (found route.Decision, err error) {
	s := d.settings.Current()
	if s.Refusal != nil {
		return found, s.Refusal
	}
	names := s.names(j.Model, j.Target, tier, backends)
	if all := backends.Models(); len(names) == 0 && len(all) > 0 {
		names = all[:1] // no model is loaded anywhere; any will tell where it would be
	}
	err = errNoModel()
	for i, name := range names {
		j.Model = name
		j.Arrived = time.Now()
		d, why := d.weigh(plan.Ask{Job: j, Candidates: d.candidates(s, backends, name, onBattery), Tier: tier, OnBattery: onBattery})
		if why == nil {
			return d, nil
		}
		if i == 0 {
			found, err = d, why
		}
	}
	return found, err
}

// names returns the models to try for a job that names that one, or none.
func (s *Settings) names(named, target string, tier power.Tier, backends backend.Snapshot) []string {
	if named != "" {
		return []string{named}
	}
	names := s.models(target, tier, backends)
	if len(names) == 0 && !slices.ContainsFunc(backends, func(b backend.Backend) bool { return b.Healthy }) {
		return []string{""} // where no backend is healthy, no model would help
	}
	return names
}

func errNoModel() error {
	return &job.Error{Code: job.ModelNotFound, Field: "model", Detail: "none is named, there is no default and none is loaded"}
}

// models returns the models that will do for a job that names none: the
// default, or else those which are resident somewhere on this machine, or where the
// job is to go.
func (s *Settings) models(target string, tier power.Tier, backends backend.Snapshot) (names []string) {
	for _, t := range []power.Tier{tier, power.TierUnknown} {
		if name := s.Models[t]; name != "" {
			return []string{name}
		}
	}
	for _, b := range backends {
		if b.Remote() && target != b.ID && target != string(power.Cloud) {
			continue
		}
		for _, m := range b.Facts.Models {
			if b.Healthy && m.Resident {
				names = append(names, m.Name)
			}
		}
	}
	return names
}
