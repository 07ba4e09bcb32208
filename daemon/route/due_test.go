package route_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// lengths is a distribution of which half are short and half long.
func lengths(short, long int32) (l job.Lengths) {
	for i := range l {
		l[i] = short
		if i > len(l)/2 {
			l[i] = long
		}
	}
	return l
}

func TestLineHeatAndLengthDecide(t *testing.T) {
	waits := func(c []job.Candidate) { c[0].Wait = 20 * time.Second }
	hot := func(c []job.Candidate) { c[0].Vetoed = "too hot: 99 °C" }
	held := func(c []job.Candidate) { c[1].Held = 100_000 }
	kept := func(c []job.Candidate) { c[0].Tail = 2000 * power.Joule }
	long := func(bytes int) func(*job.Job) { return func(j *job.Job) { j.PromptBytes = bytes } }
	answers := func(short, long int32) func(*job.Job) {
		return func(j *job.Job) { j.Lengths, j.Deadline = lengths(short, long), 15*time.Second }
	}
	completes := func(j *job.Job) { j.Completion, j.PromptBytes = true, 4000 }
	for _, c := range []struct {
		rule   string
		tier   power.Tier
		change func([]job.Candidate)
		job    job.Job
		want   string
	}{
		{"whoever would stand in line too long goes elsewhere", power.Low, waits, chat(nil), "ollama-igpu"},
		{"a background job has the time", power.Battery, waits, chat(background), "ollama-npu"},
		{"a device that is too hot rests", power.Low, hot, chat(nil), "ollama-igpu"},
		{"even for who named nothing else", power.Low, hot, chat(efficient), "ollama-igpu"},
		{"a prompt that was read before is not read again", power.Low, held, chat(long(40_000)), "ollama-igpu"},
		{"what is kept ready afterwards is paid for", power.Low, kept, chat(nil), "ollama-igpu"},
		{"answers known to be short are in time", power.Low, nil, chat(answers(50, 60)), "ollama-npu"},
		{"one that may be long might not be", power.Low, nil, chat(answers(50, 300)), "ollama-igpu"},
		{"a completion with a long prompt", power.Low, nil, chat(completes), "ollama-igpu"},
	} {
		all := laptop()
		if c.change != nil {
			c.change(all)
		}
		if d, err := decide(c.tier, c.job, all); err != nil || d.Backend != c.want {
			t.Errorf("%s: got %s (%s), %v; want %s", c.rule, d.Backend, d.Reason(), err, c.want)
		}
	}
}

func TestAllTooHotIsBusy(t *testing.T) {
	all := laptop()
	for i := range all {
		all[i].Vetoed = "too hot: 99 °C"
	}
	_, err := decide(power.Mains, chat(nil), all)
	var e *job.Error
	if !errors.As(err, &e) || e.Code != job.Busy || e.RetryAfter == 0 || !strings.Contains(e.Error(), "99 °C") {
		t.Errorf("%v", err)
	}
}

func TestCuriosityIsCheapAndEnds(t *testing.T) {
	all := laptop()[:2]
	all[0].Profile.Samples, all[1].Profile = 3, all[0].Profile
	all[1].Profile.Draw += all[1].Profile.Draw / 20 // 5 % more
	for samples, want := range []string{"ollama-igpu", "ollama-igpu", "ollama-npu", "ollama-npu"} {
		all[1].Profile.Samples = samples
		d, err := decide(power.Low, chat(nil), all)
		if err != nil || d.Backend != want {
			t.Errorf("known from %d jobs: %s (%s), %v; want %s", samples, d.Backend, d.Reason(), err, want)
		}
		if tried := strings.Contains(d.Reason(), "tried"); tried != (want == "ollama-igpu") {
			t.Errorf("known from %d jobs: %s", samples, d.Reason())
		}
	}
	all[1].Profile.Samples, all[1].Class = 0, power.NVIDIA
	if d, err := decide(power.Mains, chat(efficient), all); err != nil || d.Backend != "ollama-npu" {
		t.Errorf("a GPU is woken for curiosity: %v", d.Reason())
	}
}

func TestVerdictsTellWhy(t *testing.T) {
	d, err := decide(power.Saver, chat(func(j *job.Job) { j.Deadline = 20 * time.Second }), laptop())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for i := range d.Options {
		got[d.Options[i].ID] = d.Verdict(&d.Options[i])
	}
	for id, want := range map[string]string{
		"ollama-igpu": "least cost", "ollama-npu": "likely to be late", "ollama-cpu": "likely to be late",
		"ollama-nvidia": "only when named",
	} {
		if !strings.Contains(got[id], want) {
			t.Errorf("of %s it is said %q, want %q", id, got[id], want)
		}
	}
}

// BenchmarkDecide is what the choice among so many backends costs, on a reused
// list of candidates.
func BenchmarkDecide(b *testing.B) {
	rules := route.DefaultRules()
	for _, n := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("candidates=%d", n), func(b *testing.B) {
			candidates := append(laptop(), laptop()...)[:n]
			j := chat(nil)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := route.Decide(&rules, power.Mains, &j, candidates); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
