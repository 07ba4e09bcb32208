package route_test

import (
	"math"
	"testing"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

func TestWhatASecondIsWorth(t *testing.T) {
	for _, c := range []struct {
		rule string
		tier power.Tier
		job  job.Job
		want float64
	}{
		{"the tier says so", power.Battery, chat(nil), 15},
		{"nothing where joules alone count", power.Low, chat(nil), 0},
		{"nothing where nobody waits", power.Mains, chat(background), 0},
		{"nothing to who wants efficiency", power.Mains, chat(efficient), 0},
		{"whatever it takes to who is in a hurry", power.Low, chat(critical), math.Inf(1)},
	} {
		if d, err := decide(c.tier, c.job, laptop()); err != nil || d.Worth() != c.want {
			t.Errorf("%s: got %v, %v; want %v", c.rule, d.Worth(), err, c.want)
		}
	}
	if w := (route.Decision{}).Worth(); w != 0 {
		t.Errorf("to no job at all it is worth %v", w)
	}
}

func TestDecisionsThatRunNothing(t *testing.T) {
	if d, err := decide(power.Low, chat(background), laptop()); err != nil || !d.Waits() {
		t.Errorf("on low a background job does not wait: %v", err)
	}
	for _, tier := range []power.Tier{power.Battery, power.Critical} {
		if d, _ := decide(tier, chat(background), laptop()); d.Waits() {
			t.Errorf("on %v it does", tier)
		}
	}
	d, err := decide(power.Critical, chat(background), laptop())
	if err == nil || d.Reason() != "" || len(d.Options) != 4 {
		t.Fatalf("refused with %v: %+v", err, d)
	}
	for i := range d.Options {
		want := "background jobs are refused on tier critical"
		if o := &d.Options[i]; o.ID == "ollama-nvidia" {
			want = "a discrete GPU does not run on tier critical"
		}
		if got := d.Verdict(&d.Options[i]); got != want {
			t.Errorf("%s: %s", d.Options[i].ID, got)
		}
	}
}

func TestEnergyHasItsParts(t *testing.T) {
	all := laptop()
	all[1].Model = &job.Model{Name: "m", Size: 1 << 30}
	all[1].Tail = 5 * power.Joule
	all[2].Model = nil
	j := chat(func(j *job.Job) { j.PromptBytes = 4000 })
	d, err := decide(power.Battery, j, all)
	if err != nil {
		t.Fatal(err)
	}
	for i := range d.Options {
		o := &d.Options[i]
		e := o.Estimate
		if e.LoadEnergy+o.Work()+e.Tail != e.Energy || o.Work() <= 0 {
			t.Errorf("%s: %v of %v", o.ID, o.Work(), e.Energy)
		}
		if cold := e.LoadEnergy > 0; cold != (o.ID == "ollama-igpu") {
			t.Errorf("%s takes %v to load", o.ID, e.LoadEnergy)
		}
		if o.Reckoned() != (o.ID != "ollama-nvidia") {
			t.Errorf("%s is reckoned without the model", o.ID)
		}
	}
	if got := d.Job(); got.Model != "m" || got.PromptTokens() != 1000 {
		t.Errorf("the job is %+v", got)
	}
}
