// Package metrics tells Prometheus how joulemux does: it counts what comes of
// jobs, asks others for the rest when it is scraped, and writes both in the
// formats that Prometheus reads.
//
// Between scrapes nothing runs here, and a scrape asks nobody who would have to
// be woken up: what it is not told at once, it leaves out.
//
// The series of jobs are written here and not by client_golang, which has what a
// process says of itself and agrees with the scraper on a format: ten thousand of
// them take it ten times the two milliseconds that a scrape may take.
package metrics

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/power"
)

// Metrics counts what comes of jobs. It is a dispatch.Observer, and the
// http.Handler of /metrics.
type Metrics struct {
	figures []Figure
	process func() gatherer // made by the first scrape
	size    atomic.Int64    // of the last answer, for the next

	mu sync.Mutex // guards the following
	jobFamilies
	recent recent
}

// jobFamilies are the families that count jobs, in the order in which they are
// written.
type jobFamilies struct {
	jobs                           counters[endOf]
	attempts                       counters[attemptOf]
	read, written                  counters[subject]
	energy, load, tail             counters[spentOn]
	radio                          counters[subject]
	charged                        counters[paidIn]
	fallbacks                      counters[failureOf]
	unloads                        counters[backendOf]
	duration, firstToken, queueing histograms[place]
	loading                        histograms[place]
}

// most is how many series a family has at most, or histograms. What comes beyond
// is counted under the backend and the model "other", as in the ledger.
const most = 2000

// New returns metrics that have counted nothing. The figures are told with them.
func New(figures ...Figure) *Metrics {
	return &Metrics{
		figures: figures, process: sync.OnceValue(newGatherer),
		jobFamilies: jobFamilies{
			jobs: counters[endOf]{
				name: "joulemux_jobs_total", labels: []string{"backend", "model", "class", "kind", "outcome"},
				help: "Jobs that ended, by outcome: ok, or why there is no whole answer. Without a backend none of them began.",
			},
			attempts: counters[attemptOf]{
				name: "joulemux_attempts_total", labels: []string{"backend", "model", "class", "quality", "outcome"},
				help: "Attempts of backends at jobs, by how their energy is known and by outcome.",
			},
			read: counters[subject]{
				name: "joulemux_prompt_tokens_total", labels: subjectLabels,
				help: "Tokens of prompts that backends read, by their own count.",
			},
			written: counters[subject]{
				name: "joulemux_generated_tokens_total", labels: subjectLabels,
				help: "Tokens of answers that backends wrote, by their own count.",
			},
			energy: counters[spentOn]{
				name: "joulemux_energy_joules_total", labels: spentLabels, format: joules,
				help: "Energy of attempts to the last token, loading included, over what the machine draws without them. Of unknown quality there is none: see joulemux_attempts_total.",
			},
			load: counters[spentOn]{
				name: "joulemux_energy_load_joules_total", labels: spentLabels, format: joules,
				help: "The part of joulemux_energy_joules_total that went into loading models.",
			},
			tail: counters[spentOn]{
				name: "joulemux_energy_tail_joules_total", labels: spentLabels, format: joules,
				help: "Energy that devices took on account of attempts after the last token, beside joulemux_energy_joules_total.",
			},
			radio: counters[subject]{
				name: "joulemux_energy_radio_joules_total", labels: subjectLabels, format: joules,
				help: "Energy that the network is assumed to take for attempts elsewhere, beside joulemux_energy_joules_total.",
			},
			charged: counters[paidIn]{
				name: "joulemux_remote_cost_total", labels: []string{"backend", "model", "class", "currency"}, format: money,
				help: "What remote servers charge for attempts, in units of the currency. What they did not count is not in it.",
			},
			fallbacks: counters[failureOf]{
				name: "joulemux_fallbacks_total", labels: []string{"backend", "reason"},
				help: "Jobs that went on to another backend, by the one that failed them and why.",
			},
			unloads: counters[backendOf]{
				name: "joulemux_model_unloads_total", labels: []string{"backend"},
				help: "Models that backends let go of because joulemux asked them to.",
			},
			duration: histograms[place]{
				name: "joulemux_job_duration_seconds", labels: placeLabels,
				help: "Time from a job's arrival to the last token of a whole answer.",
			},
			firstToken: histograms[place]{
				name: "joulemux_job_time_to_first_token_seconds", labels: placeLabels,
				help: "Time from a job's arrival to the first token of a whole answer.",
			},
			queueing: histograms[place]{
				name: "joulemux_job_queue_seconds", labels: placeLabels,
				help: "Time from a job's arrival to its first attempt.",
			},
			loading: histograms[place]{
				name: "joulemux_model_load_seconds", labels: placeLabels,
				help: "Time that loading the model took, of attempts whose backend says that it took any.",
			},
		},
	}
}

// Attempted implements dispatch.Observer.
func (m *Metrics) Attempted(e *ledger.Entry) {
	at := subject{e.Backend, e.Model, e.Class}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.attempts.add(attemptOf{at, quality(e.Cost), outcome(e.Failed)}, 1)
	if e.PromptTokens > 0 {
		m.read.add(at, int64(e.PromptTokens))
	}
	if e.Tokens > 0 {
		m.written.add(at, int64(e.Tokens))
	}
	if e.Load > 0 {
		m.loading.add(place{e.Backend, e.Class}, e.Load)
	}
	if e.Cost.Radio > 0 {
		m.radio.add(at, int64(e.Cost.Radio))
	}
	if p := e.Price; p.Currency != "" {
		m.charged.add(paidIn{at, p.Currency}, max(p.Nano, 0))
	}
	if !e.Cost.Known() {
		return
	}
	spent := spentOn{at, e.Cost.Quality}
	m.energy.add(spent, int64(e.Cost.Energy))
	m.load.add(spent, int64(e.Cost.Load))
	m.tail.add(spent, int64(e.Cost.Tail))
	m.recent.put(e.ID, spent, e.Cost.Tail)
}

// Tail adds what an attempt's device took on its account after the last token. It
// replaces what was told of that before.
func (m *Metrics) Tail(id string, tail power.Energy) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if spent, more := m.recent.grown(id, tail); more > 0 {
		m.tail.add(spent, int64(more))
	}
}

// Ended implements dispatch.Observer.
func (m *Metrics) Ended(e *dispatch.End) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.jobs.add(endOf{subject{e.Backend, e.Model, e.Class}, e.Kind, outcome(e.Code)}, 1)
	for _, f := range e.Fallbacks {
		m.fallbacks.add(failureOf{f.Backend, f.Code()}, 1)
	}
	if e.Backend == "" {
		return
	}
	at := place{e.Backend, e.Class}
	m.queueing.add(at, e.Queued)
	if e.Report != nil {
		m.firstToken.add(at, e.Report.FirstToken)
		m.duration.add(at, e.Report.Total)
	}
}

// Unloaded implements dispatch.Observer.
func (m *Metrics) Unloaded(backend string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unloads.add(backendOf(backend), 1)
}

// ok is the outcome of a whole answer.
const ok = job.Code("ok")

func outcome(failed job.Code) job.Code {
	if failed == "" {
		return ok
	}
	return failed
}

// quality returns that of a cost as the ledger keeps it.
func quality(c power.Cost) power.Quality {
	if c.Known() || c.Quality == power.None {
		return c.Quality
	}
	return power.Unknown
}

// recent are the last attempts, of which there may be more to tell.
type recent struct {
	ring [64]struct {
		id    string
		spent spentOn
		tail  power.Energy
	}
	next int
}

func (r *recent) put(id string, spent spentOn, tail power.Energy) {
	one := &r.ring[r.next]
	one.id, one.spent, one.tail = id, spent, tail
	r.next = (r.next + 1) % len(r.ring)
}

// grown returns by how much a tail has grown, the latest of that id. One that has
// become less counts for what it was: counters only grow.
func (r *recent) grown(id string, tail power.Energy) (spent spentOn, more power.Energy) {
	for i := range r.ring {
		one := &r.ring[(r.next-1-i+2*len(r.ring))%len(r.ring)]
		if one.id != id || one.id == "" {
			continue
		}
		if more = tail - one.tail; more > 0 {
			one.tail = tail
		}
		return one.spent, more
	}
	return spent, 0
}

// bounds are the upper ends of the histograms' buckets.
var bounds = [...]time.Duration{
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 20 * time.Second,
	30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
}
