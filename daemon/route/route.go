package route

import (
	"cmp"
	"fmt"
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
	Reason  string
	// Alternatives are the other candidates, the next best first.
	Alternatives []string
	// Refused tells why each of the other backends is no candidate.
	Refused map[string]string
}

// Decide returns where j runs on that tier. The candidates are all backends,
// fit or not; they are not changed.
//
// Without a fit one the error is a *job.Error with the reasons, and one of the
// codes BackendNotFound, NoBackend, ModelNotFound and PowerPolicy.
func Decide(rules Rules, tier power.Tier, j job.Job, candidates []job.Candidate) (Decision, error) {
	rule := rules.For(tier)
	if j.Class == job.Background && rule.Background == Refuse {
		return Decision{}, job.Errorf(job.PowerPolicy, "background jobs are refused on tier %v", tier)
	}
	w := weigher{rules: rules, rule: rule, tier: tier, job: j}
	fit, refusals := w.sift(candidates)
	if len(fit) == 0 {
		return Decision{}, w.refusal(refusals)
	}
	slices.SortFunc(fit, w.compare)
	d := Decision{
		Backend: fit[0].ID, Class: fit[0].Class, Estimate: fit[0].estimate, Quality: fit[0].Profile.Quality,
		Latency: j.Waited + fit[0].estimate.FirstToken, Tier: tier, Refused: make(map[string]string),
	}
	for _, c := range fit[1:] {
		d.Alternatives = append(d.Alternatives, c.ID)
	}
	for _, r := range refusals {
		d.Refused[r.id] = r.why
	}
	d.Reason = w.reason(fit[0], len(fit))
	return d, nil
}

// weighed is a candidate with its prediction.
type weighed struct {
	job.Candidate
	estimate job.Estimate
}

// weigher weighs candidates for one job on one tier.
type weigher struct {
	rules Rules
	rule  Rule
	tier  power.Tier
	job   job.Job
}

// compare orders candidates from the best: those that failed lately and those
// that would be late come behind all others, then the cost decides, and among
// equals the user.
func (w weigher) compare(a, b weighed) int {
	return cmp.Or(
		first(a.Suspect == "", b.Suspect == ""),
		first(!w.late(a), !w.late(b)),
		first(w.preset(a), w.preset(b)),
		w.byCost(a, b),
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

// late reports whether the last token would come after the deadline.
func (w weigher) late(c weighed) bool {
	return w.job.Deadline > 0 && w.job.Waited+c.estimate.Total > w.job.Deadline
}

// preset reports whether c is what the user wants used regardless of cost.
func (w weigher) preset(c weighed) bool {
	return !w.rules.PowerAware && w.preference() == byCost && c.ID == w.rules.DefaultBackend
}

// preference is what a job asks of the cost.
type preference int

const (
	byCost preference = iota
	byTime
	byEnergy
)

func (w weigher) preference() preference {
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
func (w weigher) byCost(a, b weighed) int {
	seconds := cmp.Compare(a.estimate.Total, b.estimate.Total)
	joules := cmp.Compare(a.estimate.Energy, b.estimate.Energy)
	switch w.preference() {
	case byTime:
		return cmp.Or(seconds, joules)
	case byEnergy:
		return cmp.Or(joules, seconds)
	default:
		return cmp.Compare(w.cost(a.estimate), w.cost(b.estimate))
	}
}

func (w weigher) cost(e job.Estimate) power.Energy {
	return e.Energy + w.rule.Worth.For(e.Total)
}

// reason says in one line of ASCII why c was taken, as headers need it.
func (w weigher) reason(c weighed, fit int) string {
	var why string
	switch e := c.estimate; {
	case w.preset(c):
		why = "default backend, routing is not power-aware"
	case w.preference() == byTime:
		why = fmt.Sprintf("fastest, %s predicted (latency-critical)", seconds(e.Total))
	case w.preference() == byEnergy:
		why = fmt.Sprintf("fewest joules, %v predicted (%s)", e.Energy, w.whyEnergy())
	default:
		why = fmt.Sprintf("least cost, %v + %s at %v predicted (tier %v)", e.Energy, seconds(e.Total), w.rule.Worth, w.tier)
	}
	if w.job.Target != "" && w.job.Target != "auto" {
		why = "target " + w.job.Target + "; " + why
	}
	if fit == 1 {
		why = "only candidate; " + why
	}
	return why
}

// whyEnergy says why seconds are worth nothing.
func (w weigher) whyEnergy() string {
	switch {
	case w.job.PreferPowerEfficiency:
		return "power efficiency preferred"
	case w.job.Class == job.Background:
		return "background"
	default:
		return "tier " + w.tier.String()
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
