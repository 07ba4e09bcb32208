package route_test

import (
	"cmp"
	"errors"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// randomRules, randomJob and randomCandidates cover every constraint and every
// state.
func randomRules(r *rand.Rand) *route.Rules {
	rules := route.DefaultRules()
	rules.Tiers = maps.Clone(rules.Tiers)
	if r.IntN(2) == 0 {
		for tier, rule := range rules.Tiers {
			rule.DiscreteGPU = []route.DiscreteGPU{route.Always, route.InTime, route.LatencyCritical, route.Named, route.Never}[r.IntN(5)]
			rule.Background = []route.Background{route.Run, route.Wait, route.Refuse}[r.IntN(3)]
			rules.Tiers[tier] = rule
		}
	}
	return &rules
}

func randomJob(r *rand.Rand) job.Job {
	j := job.Job{Kind: job.Chat, Model: "m", PromptBytes: r.IntN(20_000), MaxTokens: r.IntN(3) * 100}
	j.Class = []job.Class{job.Interactive, job.Background}[r.IntN(2)]
	j.Target = []string{"", "", "", "npu", "nvidia", "b2", "auto", "cloud"}[r.IntN(8)]
	j.Kind = []job.Kind{job.Chat, job.Chat, job.Generate, job.Embed}[r.IntN(4)]
	j.Client, j.Vouched = []string{"", "editor", "mail", "*"}[r.IntN(4)], r.IntN(3) > 0
	j.LatencyCritical, j.PreferPowerEfficiency = r.IntN(3) == 0, r.IntN(3) == 0
	if r.IntN(3) == 0 {
		j.MaxPower = power.Watts(r.Float64() * 60)
	}
	if r.IntN(3) == 0 {
		j.MaxLatency = time.Duration(r.IntN(5000)) * time.Millisecond
	}
	if r.IntN(2) == 0 {
		j.Waited = time.Duration(r.IntN(5000)) * time.Millisecond
	}
	if r.IntN(3) == 0 {
		j.Deadline = time.Duration(r.IntN(60)) * time.Second
	}
	return j
}

// randomLeave is any that a user may give, and none.
func randomLeave(r *rand.Rand) *job.Leave {
	if r.IntN(4) == 0 {
		return nil
	}
	return &job.Leave{
		When:    []job.When{"", job.WhenNamed, job.WhenNeeded, job.WhenCheaper}[r.IntN(4)],
		Clients: [][]string{nil, {"editor"}, {"editor", "mail"}, {job.Anybody}}[r.IntN(4)],
		Classes: [][]job.Class{nil, {job.Interactive}, {job.Background}, {job.Interactive, job.Background}}[r.IntN(4)],
	}
}

func randomCandidates(r *rand.Rand) []job.Candidate {
	classes := []power.DeviceClass{power.NPU, power.IntegratedGPU, power.NVIDIA, power.DiscreteGPU, power.CPU, power.Cloud, power.Unclassified}
	list := make([]job.Candidate, r.IntN(6))
	for i := range list {
		list[i] = job.Candidate{
			ID: "b" + string(rune('0'+i)), Class: classes[r.IntN(len(classes))], Healthy: r.IntN(4) > 0, Priority: r.IntN(2),
			Profile: job.Profile{
				Draw: power.Watts(r.Float64() * 80), FirstToken: time.Duration(r.IntN(2000)) * time.Millisecond,
				Decode: 1 + r.Float64()*80, Prefill: 10 + r.Float64()*800, LoadRate: 1e9,
			},
		}
		if r.IntN(5) == 0 {
			list[i].Suspect = "failed"
		}
		if list[i].Class == power.Cloud || r.IntN(9) == 0 {
			list[i].Leave = randomLeave(r)
		}
		if r.IntN(5) == 0 {
			list[i].Vetoed = "too hot"
		}
		if r.IntN(3) == 0 {
			list[i].Wait, list[i].Tail = time.Duration(r.IntN(20))*time.Second, power.Joules(r.Float64()*200)
		}
		list[i].Profile.Samples = r.IntN(4)
		if r.IntN(5) > 0 {
			list[i].Model = &job.Model{Name: "m", Size: int64(r.IntN(8)) * 1e9, Resident: r.IntN(2) == 0}
		}
	}
	return list
}

// TestLaws: the candidates stay as they are, the same inputs give the same
// decision, every backend is accounted for, none that the job may run on breaks
// a constraint, and to take one away makes nothing better.
func TestLaws(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	opened, left := 0, 0
	for range 20_000 {
		rules, tier, j, all := randomRules(r), power.Tier(r.IntN(6)), randomJob(r), randomCandidates(r)
		before := slices.Clone(all)
		d, err := decideBy(rules, tier, j, all)
		if !reflect.DeepEqual(before, all) {
			t.Fatal("the candidates were changed")
		}
		if again, err2 := decideBy(rules, tier, j, all); !reflect.DeepEqual(d, again) || !reflect.DeepEqual(err, err2) {
			t.Fatalf("the same inputs gave %+v, %v and %+v, %v", d, err, again, err2)
		}
		if err != nil {
			var e *job.Error
			if !errors.As(err, &e) {
				t.Fatalf("%v is no *job.Error", err)
			}
			continue
		}
		if n := 1 + len(d.Alternatives()) + len(d.Refused()); n != len(all) {
			t.Fatalf("of %d backends %d are accounted for: %+v", len(all), n, d)
		}
		l := law{t, rules, tier, j}
		for i := range d.Options {
			if o := &d.Options[i]; o.Fit() {
				l.permits(o)
				l.wakesForWhatIsInTimeOnly(o, d.Options)
				left += l.leavesByLeaveOnly(o, d.Options)
			}
		}
		for i := range all {
			opened += l.withoutOne(all, i, &d)
		}
	}
	if opened == 0 {
		t.Error("no GPU was ever woken because nothing else was in time any more")
	}
	if left == 0 {
		t.Error("no job has ever left the machine")
	}
}

// law is what a job's decision is held to.
type law struct {
	*testing.T
	rules *route.Rules
	tier  power.Tier
	job   job.Job
}

// permits holds an option that the job may run on to every constraint.
func (l law) permits(o *route.Option) {
	l.Helper()
	rule, j := l.rules.For(l.tier), l.job
	e := o.Candidate.Estimate(&j, j.Expected().Mean())
	named := l.named(o)
	switch {
	case !o.Healthy:
		l.Fatalf("unhealthy: %+v", o)
	case o.Model == nil:
		l.Fatalf("without the model: %+v", o)
	case j.Target != "" && j.Target != "auto" && !named:
		l.Fatalf("not the target %s: %+v", j.Target, o)
	case o.Vetoed != "":
		l.Fatalf("too hot: %+v", o)
	case j.MaxPower > 0 && e.Draw > j.MaxPower:
		l.Fatalf("over %v: %+v", j.MaxPower, o)
	case j.MaxLatency > 0 && j.Waited+e.FirstToken >= j.MaxLatency+time.Millisecond:
		l.Fatalf("later than %v: %+v", j.MaxLatency, o)
	case j.Class == job.Background && rule.Background == route.Refuse:
		l.Fatalf("a background job where all are refused: %+v", o)
	case !discrete(o):
	case rule.DiscreteGPU == route.Never, rule.DiscreteGPU == route.Named && !named,
		rule.DiscreteGPU == route.LatencyCritical && !named && !j.LatencyCritical:
		l.Fatalf("a discrete GPU by the rule %s: %+v", rule.DiscreteGPU, o)
	}
}

// discrete reports what counts as a discrete GPU: what nothing is known of may
// be one.
func discrete(o *route.Option) bool {
	return o.Class == power.NVIDIA || o.Class == power.DiscreteGPU || o.Class == power.Unclassified
}

func (l law) named(o *route.Option) bool {
	return l.job.Target == o.ID || l.job.Target == string(o.Class)
}

// wakesForWhatIsInTimeOnly holds a discrete GPU to the rule in-time.
func (l law) wakesForWhatIsInTimeOnly(gpu *route.Option, options []route.Option) {
	l.Helper()
	if l.rules.For(l.tier).DiscreteGPU != route.InTime || !discrete(gpu) || l.named(gpu) || l.job.LatencyCritical {
		return
	}
	for i := range options {
		o := &options[i]
		if !o.Fit() || discrete(o) || l.lastResort(o) {
			continue
		}
		if l.late(gpu) > 0 || l.late(o) == 0 && o.Suspect == "" {
			l.Fatalf("a GPU that is late by %v is woken beside %s, late by %v", gpu.Miss, o.ID, o.Miss)
		}
	}
}

// leavesByLeaveOnly holds a remote option to what the user allows. It returns 1 of
// one.
func (l law) leavesByLeaveOnly(o *route.Option, options []route.Option) int {
	l.Helper()
	if o.Class != power.Cloud {
		return 0
	}
	may, j := o.Leave, l.job
	switch {
	case may == nil:
		l.Fatalf("nobody may leave for it: %+v", o)
	case !slices.Contains(may.Clients, job.Anybody) && (!j.Vouched || j.Client == "" || !slices.Contains(may.Clients, j.Client)):
		l.Fatalf("%q leaves, vouched %v, of %q: %+v", j.Client, j.Vouched, may.Clients, o)
	case !slices.Contains(may.Classes, j.Class):
		l.Fatalf("%s leaves, of %q: %+v", j.Class, may.Classes, o)
	case l.named(o):
	case j.Kind == job.Embed:
		l.Fatalf("an embedding leaves that does not name it: %+v", o)
	case may.When == job.WhenCheaper:
	case may.When != job.WhenNeeded:
		l.Fatalf("leaves by %q without a name: %+v", may.When, o)
	default:
		l.leavesForWhatIsInTimeOnly(o, options)
	}
	return 1
}

// leavesForWhatIsInTimeOnly holds a last resort to that.
func (l law) leavesForWhatIsInTimeOnly(remote *route.Option, options []route.Option) {
	l.Helper()
	for i := range options {
		if o := &options[i]; o.Fit() && !l.lastResort(o) && (l.late(remote) > 0 || l.late(o) == 0 && o.Suspect == "") {
			l.Fatalf("a job that is late by %v leaves beside %s, late by %v", remote.Miss, o.ID, o.Miss)
		}
	}
}

func (l law) lastResort(o *route.Option) bool {
	return o.Class == power.Cloud && o.Leave != nil && o.Leave.When == job.WhenNeeded && !l.named(o)
}

// late is in which step of probabilities to be late an option is; in zero it is
// taken to be in time.
func (l law) late(o *route.Option) int {
	may := l.rules.MayMiss
	if l.job.Deadline > 0 {
		may = 0.05
	}
	if o.Miss <= may {
		return 0
	}
	return 1 + int(10*o.Miss+0.5)
}

// better compares two options by the objective: what does not fail, and then
// what is in time, and then the least time where that is all that counts, and
// the least cost. What is not known yet may be tried at a tenth more.
func (l law) better(a, b *route.Option) bool {
	if failing := cmp.Compare(len(a.Suspect), len(b.Suspect)); failing != 0 {
		return failing < 0
	}
	if late := cmp.Compare(l.late(a), l.late(b)); late != 0 {
		return late < 0
	}
	if l.job.LatencyCritical {
		return a.Estimate.Total < b.Estimate.Total
	}
	return l.rank(a) < l.rank(b)
}

func (l law) rank(o *route.Option) power.Energy {
	known := min(1, float64(o.Profile.Samples)/float64(l.rules.Samples))
	if discrete(o) || o.Class == power.Cloud {
		known = 1
	}
	return o.Cost - power.Energy(float64(o.Cost)*l.rules.Curiosity*(1-known))
}

// withoutOne takes a candidate away and decides again. If it was not the one
// that was chosen nothing changes; else what is chosen then is no better, unless
// it was forbidden as long as the other was there: a GPU that may be woken only
// for what is in time nowhere else, or a remote backend likewise. It returns how many such there were.
func (l law) withoutOne(all []job.Candidate, i int, d *route.Decision) (opened int) {
	l.Helper()
	again, err := decideBy(l.rules, l.tier, l.job, slices.Delete(slices.Clone(all), i, i+1))
	if all[i].ID != d.Backend {
		if err != nil || again.Backend != d.Backend {
			l.Fatalf("without %s the choice moves from %s to %s, %v", all[i].ID, d.Backend, again.Backend, err)
		}
		return 0
	}
	if err != nil {
		return 0
	}
	first, next := &d.Options[0], &again.Options[0]
	if !slices.Contains(d.Alternatives(), next.ID) {
		gpu := l.rules.For(l.tier).DiscreteGPU == route.InTime && discrete(next)
		if !gpu && !l.lastResort(next) {
			l.Fatalf("without %s a job may run on %s, where it might not", first.ID, next.ID)
		}
		return 1
	}
	if l.better(next, first) {
		l.Fatalf("without %s, which costs %v, the job goes to %s, which costs %v", first.ID, first.Cost, next.ID, next.Cost)
	}
	return 0
}
