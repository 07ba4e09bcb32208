package route

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// Decision is where a job runs, and why.
type Decision struct {
	Backend  string
	Class    power.DeviceClass
	Estimate job.Estimate
	// Quality tells predictions from assumptions from those from measurement.
	Quality power.Quality
	// Latency is the predicted time from the job's arrival to its first token.
	Latency time.Duration
	Tier    power.Tier
	// Borrowed says why nothing is run: the answer is that to another job, which
	// the backend made.
	Borrowed string
	// Options are all backends: the one that was chosen, the others that the
	// job may run on, the next best first, and those that it may not run on.
	Options []Option

	weigher *weigher
}

// Option is one backend weighed for a job.
type Option struct {
	*job.Candidate
	Estimate job.Estimate
	// Miss is how probable it is that the last token comes after it is due,
	// as far as that depends on how long the answer gets.
	Miss float64
	// Cost is joules, plus w times seconds, plus what the risk to be late
	// comes to.
	Cost power.Energy

	fault fault
	// short and rank order options: of a probability to be late, and by cost
	// where something is to be learned.
	short int
	rank  power.Energy
}

// Fit reports whether the job may run there.
func (o *Option) Fit() bool { return o.fault == none }

// Decide returns where j runs on that tier. The candidates are all backends,
// fit or not; they are not changed, and the decision refers to them.
//
// Without a fit one the error is a *job.Error with the reasons, and one of the
// codes BackendNotFound, NoBackend, ModelNotFound and PowerPolicy; the decision
// has the options even then.
func Decide(rules *Rules, tier power.Tier, j *job.Job, candidates []job.Candidate) (Decision, error) {
	w := newWeigher(rules, tier, j)
	d := Decision{Tier: tier, Options: make([]Option, len(candidates)), weigher: w}
	for i := range candidates {
		d.Options[i] = w.weigh(&candidates[i])
	}
	w.spare(d.Options)
	w.stay(d.Options)
	slices.SortFunc(d.Options, w.compare)
	if w.refused() {
		return d, &job.Error{Code: job.PowerPolicy, Detail: w.whyRefused(), RetryAfter: refusedFor}
	}
	if len(d.Options) == 0 || !d.Options[0].Fit() {
		return d, w.refusal(d.Options)
	}
	best := &d.Options[0]
	d.Backend, d.Class, d.Estimate, d.Quality = best.ID, best.Class, best.Estimate, best.Profile.Quality
	d.Latency = w.job.Waited + best.Estimate.FirstToken
	return d, nil
}

// Borrow returns the decision about a job that gets the answer to another, made by
// that backend. Nothing is spent on it.
func Borrow(backend string, class power.DeviceClass, tier power.Tier, why string) Decision {
	return Decision{Backend: backend, Class: class, Tier: tier, Quality: power.None, Borrowed: why}
}

// Alternatives returns the other backends that the job may run on, the next
// best first.
func (d Decision) Alternatives() []string {
	list := []string{}
	for i := range d.Options {
		if o := &d.Options[i]; i > 0 && o.Fit() {
			list = append(list, o.ID)
		}
	}
	return list
}

// Refused tells why the job may not run on each of the other backends.
func (d Decision) Refused() map[string]string {
	refused := make(map[string]string)
	for i := range d.Options {
		if o := &d.Options[i]; !o.Fit() {
			refused[o.ID] = d.weigher.why(o)
		}
	}
	return refused
}

// weigher weighs candidates for one job on one tier.
type weigher struct {
	rules   *Rules
	rule    Rule
	tier    power.Tier
	job     job.Job
	lengths job.Lengths
	mean    float64
	due     Due
	by      preference
}

func newWeigher(rules *Rules, tier power.Tier, j *job.Job) *weigher {
	w := &weigher{rules: rules, rule: rules.For(tier), tier: tier, job: *j, lengths: j.Expected(), due: rules.due(j)}
	w.mean = w.lengths.Mean()
	w.by = w.preference()
	return w
}

// weigh predicts what the job takes on c, and looks for a constraint that c
// does not meet.
func (w *weigher) weigh(c *job.Candidate) Option {
	o := Option{Candidate: c, Estimate: c.Estimate(&w.job, w.mean)}
	o.Miss = w.miss(c, o.Estimate.FirstToken)
	o.Cost = o.Estimate.Energy + power.Energy(o.Miss*float64(w.rules.InTime))
	if w.by == byCost {
		o.Cost += w.rule.Worth.For(o.Estimate.Total)
	}
	o.fault = w.fault(c, &o.Estimate)
	if o.Miss > w.mayMiss() {
		o.short = 1 + int(o.Miss*missSteps+0.5)
	}
	o.rank = w.curious(c, o.Cost)
	return o
}

// spare has discrete GPUs left alone where the tier lets them run only what is
// in time nowhere else: where something else is in time, and where they would
// not be either.
func (w *weigher) spare(options []Option) {
	if w.rule.DiscreteGPU != InTime || w.job.LatencyCritical {
		return
	}
	other, inTime := false, false
	for i := range options {
		if o := &options[i]; o.Fit() && !o.Class.Discrete() && !w.lastResort(o) {
			other = true
			inTime = inTime || o.short == 0 && o.Suspect == ""
		}
	}
	for i := range options {
		o := &options[i]
		if o.Fit() && o.Class.Discrete() && !w.named(o.Candidate) && (inTime || other && o.short > 0) {
			o.fault = notAllowed
		}
	}
}

// lastResort reports whether o is remote, and may be asked only for what no backend
// of this machine has in time.
func (w *weigher) lastResort(o *Option) bool {
	return o.Class == power.Cloud && o.Leave != nil && o.Leave.When == job.WhenNeeded && !w.named(o.Candidate)
}

// stay keeps a job on this machine where remote backends are the last resort: where
// something else is in time, and where they would not be either.
func (w *weigher) stay(options []Option) {
	other, inTime := false, false
	for i := range options {
		if o := &options[i]; o.Fit() && !w.lastResort(o) {
			other = true
			inTime = inTime || o.short == 0 && o.Suspect == ""
		}
	}
	for i := range options {
		o := &options[i]
		if o.Fit() && w.lastResort(o) && (inTime || other && o.short > 0) {
			o.fault = kept
		}
	}
}

// namedMayMiss is how probable it may be that an answer misses a deadline that
// its client named: nobody wants it after that.
const namedMayMiss = 0.05

func (w *weigher) mayMiss() float64 {
	if w.job.Deadline > 0 {
		return min(namedMayMiss, w.rules.MayMiss)
	}
	return w.rules.MayMiss
}

// missSteps is how finely probabilities to be late are told apart where no
// candidate is likely to be in time: those in the same step differ in cost.
const missSteps = 10

// miss returns how probable it is that the last token comes after it is due.
// The time that an answer takes and the time that it may take both grow with
// its length; from where the one has overtaken the other, it is late.
func (w *weigher) miss(c *job.Candidate, first time.Duration) float64 {
	if w.due == (Due{}) {
		return 0
	}
	slack := (w.due.After - w.job.Waited - first).Seconds()
	each := 0.0
	if c.Profile.Decode > 0 && w.job.Kind != job.Embed {
		each = 1 / c.Profile.Decode
	}
	each -= w.due.PerToken.Seconds()
	switch {
	case each > 0 && slack >= 0:
		return 1 - w.lengths.Share(slack/each)
	case each < 0 && slack < 0:
		return w.lengths.Share(slack / each)
	case slack < 0:
		return 1
	default:
		return 0
	}
}

// curious returns the cost by which c is compared: one that little is known of
// is taken to be a little cheaper than is assumed, so that it is tried where
// that cannot cost much. A discrete GPU is not woken for curiosity, and no prompt
// leaves the machine for it.
func (w *weigher) curious(c *job.Candidate, cost power.Energy) power.Energy {
	unknown := w.rules.Samples - c.Profile.Samples
	if unknown <= 0 || c.Class.Discrete() || c.Class == power.Cloud {
		return cost
	}
	return cost - power.Energy(float64(cost)*w.rules.Curiosity*float64(unknown)/float64(w.rules.Samples))
}

// compare orders options from the best: those that the job may not run on, that
// failed lately and that would be late come behind all others, then those on a
// device that the client would rather have go first, then the cost decides, and
// among equals the user.
func (w *weigher) compare(a, b Option) int {
	return cmp.Or(
		first(a.fault == none, b.fault == none),
		first(a.Suspect == "", b.Suspect == ""),
		cmp.Compare(a.short, b.short),
		first(w.job.Prefers(a.Class), w.job.Prefers(b.Class)),
		first(w.preset(a), w.preset(b)),
		w.byCost(&a, &b),
		cmp.Compare(b.Priority, a.Priority),
		first(a.ID == w.rules.DefaultBackend, b.ID == w.rules.DefaultBackend),
		strings.Compare(a.ID, b.ID),
	)
}

// first orders what is so before what is not.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// preset reports whether o is what the user wants used regardless of cost.
func (w *weigher) preset(o Option) bool {
	return !w.rules.PowerAware && w.by == byCost && o.ID == w.rules.DefaultBackend
}

// preference is what a job asks of the cost.
type preference int

const (
	byCost preference = iota
	byTime
	byEnergy
)

func (w *weigher) preference() preference {
	switch {
	case w.job.LatencyCritical && w.rules.OptimizeLatency:
		return byTime
	case w.job.PreferPowerEfficiency, w.job.Class == job.Background, w.rule.Worth == 0:
		return byEnergy
	default:
		return byCost
	}
}

// byCost compares by predicted joules plus w times predicted seconds, with w
// infinite for the latency-critical, and 0 where nobody waits.
func (w *weigher) byCost(a, b *Option) int {
	seconds := cmp.Compare(a.Estimate.Total, b.Estimate.Total)
	switch w.by {
	case byTime:
		return cmp.Or(seconds, cmp.Compare(a.rank, b.rank))
	case byEnergy:
		return cmp.Or(cmp.Compare(a.rank, b.rank), seconds)
	default:
		return cmp.Compare(a.rank, b.rank)
	}
}
