package route

import (
	"fmt"
	"slices"
	"strings"

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
	away       // not healthy, and known to have the model
	notAllowed // the tier's rule for discrete GPUs
	tooHungry
	tooSlow
)

// refusal is why one backend is no candidate.
type refusal struct {
	id    string
	fault fault
	why   string
}

// sift parts the candidates that meet every constraint from the others.
func (w weigher) sift(candidates []job.Candidate) (fit []weighed, refusals []refusal) {
	for _, c := range candidates {
		e := c.Estimate(w.job, w.job.Tokens())
		if f, why := w.fault(c, e); f != none {
			refusals = append(refusals, refusal{c.ID, f, why})
		} else {
			fit = append(fit, weighed{c, e})
		}
	}
	return fit, refusals
}

// fault returns the first constraint that c does not meet, and says so.
func (w weigher) fault(c job.Candidate, e job.Estimate) (fault, string) {
	j := w.job
	switch {
	case !w.targeted(c):
		return notTarget, "not the target"
	case !c.Healthy && c.Model != nil:
		return away, "not healthy: " + c.Problem
	case !c.Healthy:
		return unhealthy, "not healthy: " + c.Problem
	case c.Model == nil:
		return noModel, fmt.Sprintf("has no model %q", j.Model)
	case c.Class.Discrete() && !w.discreteAllowed(c):
		return notAllowed, w.notAllowed(c)
	case j.MaxPower > 0 && e.Draw > j.MaxPower:
		return tooHungry, fmt.Sprintf("draws %v, more than max_power_watts allows (%v)", e.Draw, j.MaxPower)
	case j.MaxLatency > 0 && w.tooSlow(e):
		return tooSlow, fmt.Sprintf("first token predicted after %d ms%s, later than max_latency_ms allows (%d)",
			e.FirstToken.Milliseconds(), w.more(), j.MaxLatency.Milliseconds())
	default:
		return none, ""
	}
}

// tooSlow compares whole milliseconds, as they were asked for: the microseconds
// since the job's arrival are nobody's latency.
func (w weigher) tooSlow(e job.Estimate) bool {
	return (w.job.Waited + e.FirstToken).Milliseconds() > w.job.MaxLatency.Milliseconds()
}

// more says what is already gone of the time to the first token.
func (w weigher) more() string {
	if gone := w.job.Waited.Milliseconds(); gone > 0 {
		return fmt.Sprintf(" more, %d ms after arrival", gone)
	}
	return ""
}

// targeted reports whether c is, or may be, what the client named.
func (w weigher) targeted(c job.Candidate) bool {
	return w.anyTarget() || w.named(c)
}

func (w weigher) anyTarget() bool { return w.job.Target == "" || w.job.Target == "auto" }

// named reports whether the client named c, by id or by class.
func (w weigher) named(c job.Candidate) bool {
	target := w.job.Target
	if target == c.ID || target == string(c.Class) {
		return true
	}
	if slices.Contains(c.Aliases, target) {
		return true
	}
	return target == string(power.DiscreteGPU) && c.Class == power.NVIDIA
}

func (w weigher) discreteAllowed(c job.Candidate) bool {
	switch w.rule.DiscreteGPU {
	case Always:
		return true
	case LatencyCritical:
		return w.job.LatencyCritical || w.named(c)
	case Named:
		return w.named(c)
	default:
		return false
	}
}

// notAllowed says why c may not run here, and how it might.
func (w weigher) notAllowed(c job.Candidate) string {
	what := "a discrete GPU"
	if c.Class == power.Unclassified {
		what = "a server whose device is not known (configure its hardware)"
	}
	switch w.rule.DiscreteGPU {
	case LatencyCritical:
		return fmt.Sprintf("%s runs on tier %v only latency-critical jobs, or when named", what, w.tier)
	case Named:
		return fmt.Sprintf("%s runs on tier %v only when named", what, w.tier)
	default:
		return fmt.Sprintf("%s does not run on tier %v", what, w.tier)
	}
}

// refusal returns the error for a job that no candidate fits. Its code is that
// of the fault of those that came closest.
func (w weigher) refusal(refusals []refusal) error {
	closest := notTarget
	e := &job.Error{Code: job.NoBackend, Refused: make(map[string]string)}
	for _, r := range refusals {
		closest = max(closest, r.fault)
		if r.fault != notTarget { // of which the client knows
			e.Refused[r.id] = r.why
		}
	}
	switch {
	case len(refusals) == 0:
		e.Detail = "none is configured, and none was found"
	case closest == notTarget:
		e.Code, e.Field = job.BackendNotFound, "target"
		e.Detail = fmt.Sprintf("%q is neither a backend nor its hardware; there are %s", w.job.Target, ids(refusals))
	case closest == noModel:
		e.Code, e.Field, e.Detail = job.ModelNotFound, "model", fmt.Sprintf("%q", w.job.Model)
	case closest == notAllowed:
		e.Code = job.PowerPolicy
	}
	return e
}

func ids(refusals []refusal) string {
	var list []string
	for _, r := range refusals {
		list = append(list, r.id)
	}
	return strings.Join(list, ", ")
}
