package route

import (
	"fmt"
	"math"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// Reason says in one line of ASCII why the backend was chosen, or why nothing is
// run, as headers need it.
func (d Decision) Reason() string {
	if d.Borrowed != "" {
		return d.Borrowed
	}
	if d.Backend == "" || len(d.Options) == 0 {
		return ""
	}
	return d.weigher.reason(d.Options)
}

func (w *weigher) reason(options []Option) string {
	best := &options[0]
	why := w.whyBest(best)
	if best.Class == power.Cloud {
		why += ", elsewhere: the joules here are the radio's"
	}
	if best.Estimate.Wait > 0 {
		why += fmt.Sprintf(", %s of it in line", seconds(best.Estimate.Wait))
	}
	if len(options) > 1 && options[1].Fit() && tried(best, &options[1]) {
		why += ", tried since little is known of it"
	}
	if best.Miss >= 0.01 {
		why += fmt.Sprintf(", %s to be late", percent(best.Miss))
	}
	if w.job.Prefers(best.Class) {
		why = fmt.Sprintf("%s preferred; %s", best.Class, why)
	}
	if w.job.Target != "" && w.job.Target != "auto" {
		why = "target " + w.job.Target + "; " + why
	}
	if len(options) == 1 || !options[1].Fit() {
		why = "only candidate; " + why
	}
	return why
}

// whyBest says by what the best option is the best.
func (w *weigher) whyBest(o *Option) string {
	switch e := &o.Estimate; {
	case w.preset(*o):
		return "default backend, routing is not power-aware"
	case w.by == byTime:
		return fmt.Sprintf("fastest, %s predicted (latency-critical)", seconds(e.Total))
	case w.by == byEnergy:
		return fmt.Sprintf("fewest joules, %v predicted (%s)", e.Energy, w.whyEnergy())
	default:
		return fmt.Sprintf("least cost, %v + %s at %v predicted (tier %v)", e.Energy, seconds(e.Total), w.rule.Worth, w.tier)
	}
}

// Verdict says what became of an option of the decision: why it was chosen, by
// what it is worse than the one chosen, or why the job may not run on it.
func (d Decision) Verdict(o *Option) string {
	best := &d.Options[0]
	w := d.weigher
	switch {
	case !o.Fit():
		return w.why(o)
	case w.refused():
		return w.whyRefused()
	case o.ID == best.ID:
		return w.reason(d.Options)
	case o.Suspect != "" && best.Suspect == "":
		return "failed lately: " + o.Suspect
	case o.short > best.short:
		return fmt.Sprintf("%s to be late", percent(o.Miss))
	case w.job.Prefers(best.Class) && !w.job.Prefers(o.Class):
		return fmt.Sprintf("%s is preferred", best.Class)
	case w.preset(*best):
		return "not the default backend"
	case w.by == byTime:
		return fmt.Sprintf("%s slower", seconds(o.Estimate.Total-best.Estimate.Total))
	case tried(best, o):
		return "known to be cheaper than the one that is tried"
	case o.rank == best.rank:
		return "as good, and not preferred"
	case o.Miss >= 0.01:
		return fmt.Sprintf("costs %v more, %s to be late", o.Cost-best.Cost, percent(o.Miss))
	default:
		return fmt.Sprintf("costs %v more", o.Cost-best.Cost)
	}
}

// tried reports whether best was chosen before o, although it is predicted to
// cost more, because too little is known of it.
func tried(best, o *Option) bool {
	return best.short == o.short && best.Cost > o.Cost && best.rank <= o.rank
}

// whyEnergy says why seconds are worth nothing.
func (w *weigher) whyEnergy() string {
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

// percent says how likely something is.
func percent(share float64) string { return fmt.Sprintf("%.0f %% likely", math.Round(100*share)) }
