package route_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// laptop is one with all four places, each with the model resident, and the
// figures that are assumed of them.
func laptop() []job.Candidate {
	candidate := func(id string, class power.DeviceClass, watts float64, first time.Duration, decode float64) job.Candidate {
		return job.Candidate{
			ID: id, Class: class, Healthy: true, Model: &job.Model{Name: "m", Resident: true},
			Profile: job.Profile{Draw: power.Watts(watts), FirstToken: first, Decode: decode, Prefill: 10 * decode, Quality: power.Estimated},
		}
	}
	return []job.Candidate{
		candidate("ollama-npu", power.NPU, 3, 800*time.Millisecond, 10),
		candidate("ollama-igpu", power.IntegratedGPU, 12, 350*time.Millisecond, 22),
		candidate("ollama-nvidia", power.NVIDIA, 55, 150*time.Millisecond, 65),
		candidate("ollama-cpu", power.CPU, 28, 1200*time.Millisecond, 6),
	}
}

// chat is an ordinary question, changed.
func chat(change func(*job.Job)) job.Job {
	j := job.Job{Kind: job.Chat, Model: "m"}
	j.Class = job.Interactive
	if change != nil {
		change(&j)
	}
	return j
}

func decide(tier power.Tier, j job.Job, candidates []job.Candidate) (route.Decision, error) {
	rules := route.DefaultRules()
	return route.Decide(&rules, tier, &j, candidates)
}

func decideBy(rules *route.Rules, tier power.Tier, j job.Job, candidates []job.Candidate) (route.Decision, error) {
	return route.Decide(rules, tier, &j, candidates)
}

func critical(j *job.Job)            { j.LatencyCritical = true }
func efficient(j *job.Job)           { j.PreferPowerEfficiency = true }
func background(j *job.Job)          { j.Class = job.Background }
func nvidia(j *job.Job)              { j.Target = "nvidia" }
func fifteenWatts(j *job.Job)        { j.MaxPower = 15 * power.Watt }
func halfASecond(j *job.Job)         { j.MaxLatency = 500 * time.Millisecond }
func target(t string) func(*job.Job) { return func(j *job.Job) { j.Target = t } }

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		rule string
		tier power.Tier
		job  job.Job
		want string
	}{
		{"on mains seconds are worth a discrete GPU", power.Mains, chat(nil), "ollama-nvidia"},
		{"an unknown tier is as mains", power.TierUnknown, chat(nil), "ollama-nvidia"},
		{"on battery it sleeps", power.Battery, chat(nil), "ollama-igpu"},
		{"unless nothing else is in time", power.Battery, chat(func(j *job.Job) { j.Deadline = 10 * time.Second }), "ollama-nvidia"},
		{"and neither is it", power.Battery, chat(func(j *job.Job) { j.Deadline = time.Second }), "ollama-igpu"},
		{"unless somebody is in a hurry", power.Battery, chat(critical), "ollama-nvidia"},
		{"or asks for it", power.Battery, chat(nvidia), "ollama-nvidia"},
		{"below half charge a hurry is not enough", power.Saver, chat(critical), "ollama-igpu"},
		{"but its name is", power.Saver, chat(nvidia), "ollama-nvidia"},
		{"on a low battery only joules count", power.Low, chat(nil), "ollama-npu"},
		{"even then a hurry counts", power.Low, chat(critical), "ollama-igpu"},
		{"and on a critical one", power.Critical, chat(nil), "ollama-npu"},
		{"who wants efficiency gets it on mains", power.Mains, chat(efficient), "ollama-npu"},
		{"nobody waits for a background job", power.Mains, chat(background), "ollama-npu"},
		{"a hurry stands above efficiency", power.Mains, chat(func(j *job.Job) { critical(j); efficient(j) }), "ollama-nvidia"},
		{"a short answer", power.Saver, chat(func(j *job.Job) { j.MaxTokens = 8 }), "ollama-igpu"},
		{"a cap of 15 W excludes the 55 W GPU", power.Mains, chat(fifteenWatts), "ollama-igpu"},
		{"a cap holds for the latency-critical too", power.Mains, chat(func(j *job.Job) { critical(j); fifteenWatts(j) }), "ollama-igpu"},
		{"half a second excludes the slow", power.Low, chat(halfASecond), "ollama-igpu"},
		{"a target by id", power.Mains, chat(target("ollama-cpu")), "ollama-cpu"},
		{"a target by hardware", power.Mains, chat(target("npu")), "ollama-npu"},
		{"an NVIDIA GPU is a discrete one", power.Mains, chat(target("dgpu")), "ollama-nvidia"},
		{"auto is no target", power.Battery, chat(target("auto")), "ollama-igpu"},
		{"of a second, half is gone", power.Low, chat(func(j *job.Job) { j.MaxLatency, j.Waited = time.Second, 500*time.Millisecond }), "ollama-igpu"},
		{"the microsecond since its arrival counts for nothing", power.Low, chat(func(j *job.Job) { j.MaxLatency, j.Waited = 800*time.Millisecond, time.Microsecond }), "ollama-npu"},
		{"what is left of a deadline", power.Low, chat(func(j *job.Job) { j.Deadline, j.Waited = 30*time.Second, 15*time.Second }), "ollama-igpu"},
		{"a deadline that the cheapest would miss", power.Low, chat(func(j *job.Job) { j.Deadline = 15 * time.Second }), "ollama-igpu"},
		{"a deadline that all would miss", power.Low, chat(func(j *job.Job) { j.Deadline = time.Second }), "ollama-npu"},
	} {
		d, err := decide(c.tier, c.job, laptop())
		if err != nil || d.Backend != c.want {
			t.Errorf("%s: got %s (%s), %v; want %s", c.rule, d.Backend, d.Reason(), err, c.want)
		}
	}
}

func TestReasonsAreASCIIAndSaySo(t *testing.T) {
	for _, c := range []struct {
		job  job.Job
		tier power.Tier
		want string
	}{
		{chat(nil), power.Battery, "least cost, 123 J + 10.3 s at 15.0 W predicted (tier battery)"},
		{chat(critical), power.Mains, "fastest, 3.5 s predicted (latency-critical)"},
		{chat(nil), power.Low, "fewest joules, 67.9 J predicted (tier low)"},
		{chat(background), power.Mains, "fewest joules, 67.9 J predicted (background)"},
		{chat(nvidia), power.Saver, "only candidate; target nvidia; least cost, 193 J + 3.5 s at 6.0 W predicted (tier saver)"},
	} {
		d, err := decide(c.tier, c.job, laptop())
		if err != nil || d.Reason() != c.want {
			t.Errorf("got %q, %v; want %q", d.Reason(), err, c.want)
		}
		if strings.ContainsFunc(d.Reason(), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q does not fit in a header", d.Reason())
		}
	}
}

func TestDecisionTellsOfTheOthers(t *testing.T) {
	candidates := laptop()
	candidates[3].Healthy, candidates[3].Problem = false, "connection refused"
	d, err := decide(power.Battery, chat(nil), candidates)
	if err != nil || !slices.Equal(d.Alternatives(), []string{"ollama-npu"}) {
		t.Fatalf("alternatives are %v, %v", d.Alternatives(), err)
	}
	want := map[string]string{
		"ollama-nvidia": "a discrete GPU runs on tier battery only what is in time nowhere else, latency-critical jobs, or when named",
		"ollama-cpu":    "not healthy: connection refused",
	}
	if !reflect.DeepEqual(d.Refused(), want) {
		t.Errorf("refused are %v", d.Refused())
	}
}

func TestLatencyCountsFromArrival(t *testing.T) {
	j := chat(func(j *job.Job) { j.Target, j.Waited = "igpu", 2*time.Second })
	d, err := decide(power.Battery, j, laptop())
	if err != nil || d.Latency != 2*time.Second+d.Estimate.FirstToken || d.Fields()["estimated_latency_ms"] != int32(2350) {
		t.Errorf("%v, %v of which %v are to come", err, d.Latency, d.Estimate.FirstToken)
	}
}

func TestUnlikelyToBeLoadedCostsMore(t *testing.T) {
	candidates := laptop()
	for i := range candidates {
		candidates[i].Profile.LoadRate = 1e9
		candidates[i].Model = &job.Model{Size: 8e9, Resident: candidates[i].ID == "ollama-npu"}
	}
	d, err := decide(power.Saver, chat(nil), candidates)
	if err != nil || d.Backend != "ollama-npu" {
		t.Errorf("got %s (%s), %v; want the one that has it loaded", d.Backend, d.Reason(), err)
	}
}

func TestSuspectsAreTheLastResort(t *testing.T) {
	candidates := laptop()
	candidates[1].Suspect = "out of memory"
	d, _ := decide(power.Battery, chat(nil), candidates)
	if d.Backend != "ollama-npu" || d.Alternatives()[len(d.Alternatives())-1] != "ollama-igpu" {
		t.Errorf("got %s before %v", d.Backend, d.Alternatives())
	}
}

func TestAPreferredDeviceGoesFirstWhereItFits(t *testing.T) {
	prefer := func(word string) func(*job.Job) {
		return func(j *job.Job) {
			if err := j.Set("preference", word); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		word, want string
		tier       power.Tier
	}{
		{"PREFER_NPU", "ollama-npu", power.Mains},
		{"PREFER_CPU", "ollama-cpu", power.Battery},
		{"PREFER_GPU", "ollama-igpu", power.Battery}, // a preference names no discrete one
	} {
		j := chat(prefer(c.word))
		j.Deadline = time.Hour
		d, err := decide(c.tier, j, laptop())
		if err != nil || d.Backend != c.want || !strings.Contains(d.Reason(), " preferred; ") {
			t.Errorf("%s: got %s (%s), %v; want %s", c.word, d.Backend, d.Reason(), err, c.want)
		}
	}
	hot := laptop()
	hot[0].Vetoed = "too hot: 97 °C"
	if d, err := decide(power.Battery, chat(prefer("PREFER_NPU")), hot); err != nil || d.Backend != "ollama-igpu" {
		t.Errorf("of an NPU that is too hot: got %s, %v", d.Backend, err)
	}
}

func TestARefusalTellsWhenToAskAgain(t *testing.T) {
	all := laptop()
	for i := range all {
		all[i].Healthy, all[i].RetryAfter = false, time.Duration(i)*time.Second
	}
	_, err := decide(power.Mains, chat(nil), all)
	var e *job.Error
	if !errors.As(err, &e) || e.Code != job.NoBackend || e.RetryAfter != time.Second {
		t.Errorf("got %+v", err)
	}
}

func TestAmongEqualsTheUserDecides(t *testing.T) {
	candidates := laptop()[:2]
	candidates[0].ID, candidates[1].ID = "a", "b"
	candidates[1].Profile = candidates[0].Profile
	rules := route.DefaultRules()
	decide := func() string {
		d, err := decideBy(&rules, power.Battery, chat(nil), candidates)
		if err != nil {
			t.Fatal(err)
		}
		return d.Backend
	}
	if got := decide(); got != "a" {
		t.Errorf("without a wish got %s", got)
	}
	rules.DefaultBackend = "b"
	if got := decide(); got != "b" {
		t.Errorf("with a default backend got %s", got)
	}
	candidates[0].Priority = 1
	if got := decide(); got != "a" {
		t.Errorf("with a priority got %s", got)
	}
}

func TestPowerUnaware(t *testing.T) {
	rules := route.DefaultRules()
	rules.PowerAware = false
	for _, c := range []struct {
		job  job.Job
		want string
	}{
		{chat(nil), "ollama-igpu"},
		{chat(critical), "ollama-nvidia"},
		{chat(efficient), "ollama-npu"},
		{chat(background), "ollama-npu"},
	} {
		if d, err := decideBy(&rules, power.Critical, c.job, laptop()); err != nil || d.Backend != c.want {
			t.Errorf("got %s (%s), %v; want %s", d.Backend, d.Reason(), err, c.want)
		}
	}
}

func TestLatencyNotOptimised(t *testing.T) {
	rules := route.DefaultRules()
	rules.OptimizeLatency = false
	if d, _ := decideBy(&rules, power.Low, chat(critical), laptop()); d.Backend != "ollama-npu" {
		t.Errorf("got %s (%s)", d.Backend, d.Reason())
	}
}

func TestRefusals(t *testing.T) {
	unhealthy, modelless, split, strange, unclassified := laptop(), laptop(), laptop(), laptop(), laptop()[2:3]
	for i := range unhealthy {
		unhealthy[i].Healthy = false
		modelless[i].Model, split[i].Model, strange[i].Model = nil, nil, nil
	}
	split[1].Healthy, split[1].Problem, split[1].Model = false, "connection refused", laptop()[1].Model
	strange[1].Healthy = false
	unclassified[0].Class = power.Unclassified
	for _, c := range []struct {
		what       string
		tier       power.Tier
		job        job.Job
		candidates []job.Candidate
		code       job.Code
		says       string
	}{
		{"no backend at all", power.Mains, chat(nil), nil, job.NoBackend, "no Ollama was found: start one"},
		{"none that is healthy", power.Mains, chat(nil), unhealthy, job.NoBackend, "not healthy"},
		{"none with the model", power.Mains, chat(nil), modelless, job.ModelNotFound, `model: "m"`},
		{"one with the model, which is down", power.Mains, chat(nil), split, job.NoBackend, "ollama-igpu: not healthy: connection refused"},
		{"one that is down and never had it", power.Mains, chat(nil), strange, job.ModelNotFound, `model: "m"`},
		{"an unknown target", power.Mains, chat(target("tpu")), laptop(), job.BackendNotFound, "there are ollama-cpu, ollama-igpu"},
		{"a target that this machine lacks", power.Mains, chat(target("npu")), laptop()[1:], job.BackendNotFound, `"npu"`},
		{"the GPU on a critical battery", power.Critical, chat(nvidia), laptop(), job.PowerPolicy, "does not run on tier critical"},
		{"only the GPU on a low battery", power.Low, chat(nil), laptop()[2:3], job.PowerPolicy, "only when named"},
		{"a server of unknown device on a low battery", power.Low, chat(nil), unclassified, job.PowerPolicy, "configure its hardware"},
		{"a background job on a critical battery", power.Critical, chat(background), laptop(), job.PowerPolicy, "background jobs are refused"},
		{"a cap that nothing meets", power.Mains, chat(func(j *job.Job) { j.MaxPower = power.Watt }), laptop(), job.NoBackend, "max_power_watts"},
		{"a latency that nothing meets any more", power.Mains, chat(func(j *job.Job) { j.MaxLatency, j.Waited = time.Second, 950*time.Millisecond }), laptop(), job.NoBackend, "ollama-igpu: first token predicted after 350 ms more, 950 ms after arrival, later than max_latency_ms allows (1000)"},
		{"a latency that nothing meets", power.Mains, chat(func(j *job.Job) { j.MaxLatency = time.Millisecond }), laptop(), job.NoBackend, "max_latency_ms"},
	} {
		_, err := decide(c.tier, c.job, c.candidates)
		if !errors.Is(err, c.code) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %s that says %q", c.what, err, c.code, c.says)
		}
	}
}
