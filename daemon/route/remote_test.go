package route_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// home is a server elsewhere that has the model, and what may leave for it.
func home(when job.When) job.Candidate {
	return job.Candidate{
		ID: "home", Class: power.Cloud, Healthy: true, Slots: 8, Model: &job.Model{Name: "m", Resident: true},
		Leave:   &job.Leave{When: when, Clients: []string{"editor"}, Classes: []job.Class{job.Interactive}},
		Profile: job.Profile{Draw: power.Watt, FirstToken: 500 * time.Millisecond, Decode: 50, Prefill: 500, Quality: power.Estimated},
	}
}

// with returns the laptop's own backends of those ids, or all, and home.
func with(when job.When, ids ...string) []job.Candidate {
	list := []job.Candidate{home(when)}
	for _, c := range laptop() {
		for _, id := range ids {
			if c.ID == id {
				list = append(list, c)
			}
		}
	}
	return list
}

func TestWhatLeavesTheMachine(t *testing.T) {
	editor := func(j *job.Job) { j.Client, j.Vouched = "editor", true }
	named := func(j *job.Job) { j.Client, j.Vouched, j.Target = "editor", true, "cloud" }
	tests := []struct {
		rule    string
		tier    power.Tier
		job     func(*job.Job)
		among   []job.Candidate
		want    string // the backend, or else
		code    job.Code
		refused string // what is said of home
	}{
		{"what names it", power.Mains, named, with(job.WhenNamed, "ollama-igpu"), "home", "", ""},
		{"by its id, too", power.Mains, func(j *job.Job) { j.Client, j.Vouched, j.Target = "editor", true, "home" }, with(job.WhenNamed, "ollama-igpu"), "home", "", ""},
		{"nothing else, unless that is chosen", power.Mains, editor, with(job.WhenNamed, "ollama-igpu"), "ollama-igpu", "", "jobs do only for the target that names it"},
		{"not even if nothing else is there", power.Mains, editor, with(job.WhenNamed), "", job.Forbidden, "jobs do only for the target that names it"},
		{"no other client's", power.Mains, func(j *job.Job) { j.Client, j.Vouched, j.Target = "mail", true, "cloud" }, with(job.WhenCheaper), "", job.Forbidden, `may not leave this machine: the client "mail" is not allowed to`},
		{"nobody's whose name is not known", power.Mains, target("cloud"), with(job.WhenCheaper), "", job.Forbidden, "a client without a name is not allowed to"},
		{"nobody who only says so", power.Mains, func(j *job.Job) { named(j); j.Vouched = false }, with(job.WhenCheaper), "", job.Forbidden, `it is only the client that calls itself "editor"`},
		{"no other class", power.Mains, func(j *job.Job) { named(j); j.Class = job.Background }, with(job.WhenCheaper), "", job.Forbidden, "background jobs are not allowed to"},
		{"the cheaper", power.Battery, editor, with(job.WhenCheaper, "ollama-igpu", "ollama-npu"), "home", "", ""},
		{"on an empty battery as well, where no discrete GPU runs", power.Critical, editor, with(job.WhenCheaper, "ollama-nvidia"), "home", "", ""},
		{"not what is needed nowhere", power.Battery, editor, with(job.WhenNeeded, "ollama-igpu"), "ollama-igpu", "", "a backend of it is in time"},
		{"what nothing here has in time", power.Battery, editor, with(job.WhenNeeded, "ollama-cpu"), "home", "", ""},
		{"but a GPU here comes before it", power.Battery, editor, with(job.WhenNeeded, "ollama-cpu", "ollama-nvidia"), "ollama-nvidia", "", "a backend of it is in time"},
		{"unless the tier forbids that", power.Saver, editor, with(job.WhenNeeded, "ollama-cpu", "ollama-nvidia"), "home", "", ""},
		{"what nothing here can", power.Battery, editor, with(job.WhenNeeded), "home", "", ""},
		{"no embedding", power.Battery, func(j *job.Job) { editor(j); j.Kind = job.Embed }, with(job.WhenCheaper, "ollama-igpu"), "ollama-igpu", "", "embeddings do only for the target that names it"},
		{"but by name", power.Battery, func(j *job.Job) { named(j); j.Kind = job.Embed }, with(job.WhenCheaper, "ollama-igpu"), "home", "", ""},
		{"nothing over a cap on power", power.Mains, func(j *job.Job) { named(j); j.MaxPower = power.Watts(0.5) }, with(job.WhenNamed), "", job.NoBackend, "more than max_power_watts"},
	}
	for _, tt := range tests {
		d, err := decide(tt.tier, chat(tt.job), tt.among)
		if d.Backend != tt.want {
			t.Errorf("%s: it goes to %q, %v", tt.rule, d.Backend, err)
		}
		if tt.code != "" && !errors.Is(err, tt.code) {
			t.Errorf("%s: %v, want %s", tt.rule, err, tt.code)
		}
		if said := d.Refused()["home"]; (said != "") != (tt.refused != "") || !strings.Contains(said, tt.refused) {
			t.Errorf("%s: of home it says %q, want %q", tt.rule, said, tt.refused)
		}
	}
}

func TestAReasonSaysWhatTheJoulesOfARemoteBackendAre(t *testing.T) {
	d, err := decide(power.Battery, chat(func(j *job.Job) { j.Client, j.Vouched = "editor", true }), with(job.WhenCheaper, "ollama-cpu"))
	if err != nil || !strings.HasPrefix(d.Reason(), "least cost, 4.87 J + ") || !strings.Contains(d.Reason(), ", elsewhere: the joules here are the radio's") {
		t.Errorf("%s, %v", d.Reason(), err)
	}
}
