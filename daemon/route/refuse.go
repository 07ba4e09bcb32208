package route

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// fault is which constraint a candidate does not meet, in the order in which
// they are looked at: a later one is closer to fitting.
type fault int

const (
	none fault = iota
	notTarget
	unhealthy
	noModel
	kept       // on this machine: the candidate is remote
	away       // not healthy, and known to have the model
	notAllowed // the tier's rule for discrete GPUs
	tooHot
	tooHungry
	tooSlow
)

// fault returns the first constraint that c does not meet.
func (w *weigher) fault(c *job.Candidate, e *job.Estimate) fault {
	switch {
	case !w.targeted(c):
		return notTarget
	case c.Model != nil && c.Kept(&w.job, w.named(c)) != "":
		return kept
	case !c.Healthy && c.Model != nil:
		return away
	case !c.Healthy:
		return unhealthy
	case c.Model == nil:
		return noModel
	case c.Class.Discrete() && !w.discreteAllowed(c):
		return notAllowed
	case c.Vetoed != "":
		return tooHot
	case w.job.MaxPower > 0 && e.Draw > w.job.MaxPower:
		return tooHungry
	case w.job.MaxLatency > 0 && w.tooSlow(e):
		return tooSlow
	default:
		return none
	}
}

// why says which constraint an option does not meet.
func (w *weigher) why(o *Option) string {
	switch o.fault {
	case notTarget:
		return "not the target"
	case away, unhealthy:
		return "not healthy: " + o.Problem
	case noModel:
		return fmt.Sprintf("has no model %q", w.job.Model)
	case kept:
		return w.kept(o.Candidate)
	case notAllowed:
		return w.notAllowed(o.Candidate)
	case tooHot:
		return o.Vetoed
	case tooHungry:
		return fmt.Sprintf("draws %v, more than max_power_watts allows (%v)", o.Estimate.Draw, w.job.MaxPower)
	case tooSlow:
		return fmt.Sprintf("first token predicted after %d ms%s, later than max_latency_ms allows (%d)",
			o.Estimate.FirstToken.Milliseconds(), w.more(), w.job.MaxLatency.Milliseconds())
	default:
		return ""
	}
}

// tooSlow compares whole milliseconds, as they were asked for: the microseconds
// since the job's arrival are nobody's latency.
func (w *weigher) tooSlow(e *job.Estimate) bool {
	return (w.job.Waited + e.FirstToken).Milliseconds() > w.job.MaxLatency.Milliseconds()
}

// more says what is already gone of the time to the first token.
func (w *weigher) more() string {
	if gone := w.job.Waited.Milliseconds(); gone > 0 {
		return fmt.Sprintf(" more, %d ms after arrival", gone)
	}
	return ""
}

// targeted reports whether c is, or may be, what the client named.
func (w *weigher) targeted(c *job.Candidate) bool {
	return w.job.AnyTarget() || w.named(c)
}

// named reports whether the client named c, by id or by class.
func (w *weigher) named(c *job.Candidate) bool { return c.Named(w.job.Target) }

func (w *weigher) discreteAllowed(c *job.Candidate) bool {
	switch w.rule.DiscreteGPU {
	case Always, InTime: // of which more is known when all have been weighed
		return true
	case LatencyCritical:
		return w.job.LatencyCritical || w.named(c)
	case Named:
		return w.named(c)
	default:
		return false
	}
}

// kept says why the job stays on this machine, and not on c.
func (w *weigher) kept(c *job.Candidate) string {
	if why := c.Kept(&w.job, w.named(c)); why != "" {
		return why
	}
	return "may not leave this machine: a backend of it is in time"
}

// notAllowed says why c may not run here, and how it might.
func (w *weigher) notAllowed(c *job.Candidate) string {
	what := "a discrete GPU"
	if c.Class == power.Unclassified {
		what = "a server whose device is not known (configure its hardware)"
	}
	switch w.rule.DiscreteGPU {
	case InTime:
		return fmt.Sprintf("%s runs on tier %v only what is in time nowhere else, latency-critical jobs, or when named", what, w.tier)
	case LatencyCritical:
		return fmt.Sprintf("%s runs on tier %v only latency-critical jobs, or when named", what, w.tier)
	case Named:
		return fmt.Sprintf("%s runs on tier %v only when named", what, w.tier)
	default:
		return fmt.Sprintf("%s does not run on tier %v", what, w.tier)
	}
}

// refused reports whether the job is, wherever it would run.
func (w *weigher) refused() bool {
	return w.job.Class == job.Background && w.rule.Background == Refuse
}

// refusedFor is after which time a background job that a tier refuses is worth
// another try. Who was warned of a critical battery plugs in soon or not for
// long, and a job that nobody waits for is not to wake the machine meanwhile.
const refusedFor = 5 * time.Minute

func (w *weigher) whyRefused() string {
	return fmt.Sprintf("background jobs are refused on tier %v", w.tier)
}

// refusal returns the error for a job that no candidate fits. Its code is that
// of the fault of those that came closest.
func (w *weigher) refusal(options []Option) error {
	closest := notTarget
	e := &job.Error{Code: job.NoBackend, Refused: make(map[string]string)}
	for i := range options {
		o := &options[i]
		closest = max(closest, o.fault)
		if o.fault != notTarget { // of which the client knows
			e.Refused[o.ID] = w.why(o)
		}
	}
	switch {
	case len(options) == 0:
		e.Detail = "none is configured, and no Ollama was found: start one, or name a server under backends in the configuration"
	case closest == notTarget:
		e.Code, e.Field = job.BackendNotFound, "target"
		e.Detail = fmt.Sprintf("%q is neither a backend nor its hardware; there are %s", w.job.Target, ids(options))
	case closest == noModel:
		e.Code, e.Field, e.Detail = job.ModelNotFound, "model", fmt.Sprintf("%q", w.job.Model)
	case closest == kept:
		e.Code = job.Forbidden
	case closest == notAllowed:
		e.Code = job.PowerPolicy
	case closest == tooHot:
		e.Code, e.RetryAfter = job.Busy, hotFor
	case closest == away:
		e.RetryAfter = soonest(options)
	}
	return e
}

// soonest returns when the first of the backends that have the model, and are
// given a rest, is tried again; zero if none is.
func soonest(options []Option) (least time.Duration) {
	for i := range options {
		o := &options[i]
		if o.fault == away && o.RetryAfter > 0 && (least == 0 || o.RetryAfter < least) {
			least = o.RetryAfter
		}
	}
	return least
}

// hotFor is after which time a processor that is too hot is worth another try:
// that for which it must not have been slowed down (power.HeatPolicy).
const hotFor = 10 * time.Second

func ids(options []Option) string {
	var list []string
	for i := range options {
		list = append(list, options[i].ID)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}
