package plan_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/residency"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// at returns the moment so many seconds after the tests' beginning.
func at(seconds float64) time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

func settings() *plan.Settings {
	return &plan.Settings{Rules: route.DefaultRules(), Residency: residency.DefaultRules(), Predict: true}
}

// laptop is one with an NPU that is cheap, an integrated GPU that is faster,
// and an NVIDIA GPU that is fast and holds 8 W.
func laptop() []job.Candidate {
	candidate := func(id string, class power.DeviceClass, draw power.Power, decode float64, hold power.Power) job.Candidate {
		return job.Candidate{
			ID: id, Class: class, Healthy: true, Model: &job.Model{Name: "m", Size: 1e9, Resident: true},
			Profile: job.Profile{Draw: draw, Prefill: 10 * decode, Decode: decode, LoadRate: 1e9, HoldDraw: hold, Quality: power.Estimated, Samples: 3},
		}
	}
	return []job.Candidate{
		candidate("npu", power.NPU, 2*power.Watt, 10, 0),
		candidate("igpu", power.IntegratedGPU, 15*power.Watt, 20, 0),
		candidate("nvidia", power.NVIDIA, 50*power.Watt, 80, 8*power.Watt),
	}
}

// rig is a plan with what a driver keeps.
type rig struct {
	*testing.T
	*plan.Plan
	tier      power.Tier
	onBattery bool
	change    func([]job.Candidate)
}

func newRig(t *testing.T, tier power.Tier) *rig {
	t.Helper()
	return &rig{T: t, Plan: plan.New(settings()), tier: tier, onBattery: tier.MoreCarefulThan(power.Mains)}
}

func (r *rig) ask(id string, now time.Time, change func(*job.Job)) *plan.Ask {
	j := job.Job{ID: id, Kind: job.Chat, Model: "m", Client: "test", Arrived: now, Lengths: job.LengthsOf([]int32{100, 100})}
	j.Class = job.Interactive
	if change != nil {
		change(&j)
	}
	c := laptop()
	if r.change != nil {
		r.change(c)
	}
	return &plan.Ask{Job: j, Candidates: c, Tier: r.tier, OnBattery: r.onBattery}
}

// place has a job placed that must be taken.
func (r *rig) place(seconds float64, id string, change func(*job.Job)) plan.Placement {
	r.Helper()
	p, err := r.Place(at(seconds), r.ask(id, at(seconds), change))
	if err != nil {
		r.Fatal(err)
	}
	return p
}

func on(target string) func(*job.Job) { return func(j *job.Job) { j.Target = target } }

func background(j *job.Job) { j.Class = job.Background }

// kinds are the effects in short.
func kinds(effects []plan.Effect) (list []string) {
	for _, e := range effects {
		list = append(list, []string{"start ", "reconsider ", "unload "}[e.Kind]+e.ID+e.Backend)
	}
	return list
}

func TestWhoeverFindsNoSlotWaitsForOne(t *testing.T) {
	r := newRig(t, power.Low)
	if p := r.place(0, "a", on("npu")); !p.Started {
		t.Fatalf("the first waits: %+v", p)
	}
	p := r.place(1, "b", on("npu"))
	if p.Started || p.Decision.Estimate.Wait < 8*time.Second || p.Decision.Estimate.Wait > 10*time.Second {
		t.Errorf("the second is predicted to wait %v", p.Decision.Estimate.Wait)
	}
	if p := r.place(2, "c", on("npu")); p.Decision.Estimate.Wait < 17*time.Second {
		t.Errorf("the third is predicted to wait %v", p.Decision.Estimate.Wait)
	}
	if got := kinds(r.Ended(at(10), "a", plan.Outcome{})); !slices.Equal(got, []string{"start bnpu"}) {
		t.Errorf("when the first ends: %q", got)
	}
	if got := kinds(r.Ended(at(11), "c", plan.Outcome{Failed: true})); len(got) != 0 {
		t.Errorf("when one gives up that waits: %q", got)
	}
	if got := kinds(r.Ended(at(12), "b", plan.Outcome{})); len(got) != 0 {
		t.Errorf("at the end: %q", got)
	}
	if got := kinds(r.Ended(at(13), "b", plan.Outcome{})); got != nil {
		t.Errorf("an end that was told before: %q", got)
	}
}

func TestNobodyStartsWhereItGotTooHot(t *testing.T) {
	r := newRig(t, power.Low)
	for _, id := range []string{"a", "b", "c"} {
		r.place(0, id, func(j *job.Job) { j.Deadline = time.Minute })
	}
	if got := kinds(r.Ended(at(10), "a", plan.Outcome{})); !slices.Equal(got, []string{"start bnpu"}) {
		t.Fatalf("when the first ends: %q", got)
	}
	r.change = func(c []job.Candidate) { c[0].Vetoed = "too hot: 99 °C" }
	p := r.place(10, "b", func(j *job.Job) { j.Deadline = time.Minute })
	if got := kinds(p.Effects); !p.Started || p.Decision.Backend != "igpu" || !slices.Equal(got, []string{"start cnpu"}) {
		t.Errorf("it starts on %q, and then %q", p.Decision.Backend, got)
	}
	r.change = nil
	if p := r.place(11, "c", nil); !p.Started || p.Decision.Backend != "npu" {
		t.Errorf("when it is cool again the next starts on %q", p.Decision.Backend)
	}
	if got := kinds(r.Ended(at(20), "b", plan.Outcome{})); len(got) != 0 {
		t.Errorf("at the end of the one: %q", got)
	}
	if got := kinds(r.Ended(at(20), "c", plan.Outcome{})); len(got) != 0 {
		t.Errorf("at the end of the other: %q", got)
	}
}

func TestNobodyStartsLaterThanHeAllows(t *testing.T) {
	r := newRig(t, power.Low)
	r.place(0, "a", on("npu"))
	patient := func(j *job.Job) { j.Target, j.Arrived, j.MaxLatency = "npu", at(0), 10500*time.Millisecond }
	r.place(0, "b", patient)
	if got := kinds(r.Ended(at(10.6), "a", plan.Outcome{})); !slices.Equal(got, []string{"start bnpu"}) {
		t.Fatalf("when the first ends: %q", got)
	}
	if p, err := r.Place(at(10.6), r.ask("b", at(0), patient)); !errors.Is(err, job.NoBackend) || p.Started {
		t.Errorf("it starts: %v, %v", p.Started, err)
	}
	if p := r.place(11, "c", on("npu")); !p.Started {
		t.Error("and keeps the slot")
	}
}

func TestTheLineSendsJobsElsewhere(t *testing.T) {
	r := newRig(t, power.Low)
	for i, want := range []string{"npu", "igpu"} {
		id := string(rune('a' + i))
		if p := r.place(0, id, func(j *job.Job) { j.Deadline = 15 * time.Second }); p.Decision.Backend != want || !p.Started {
			t.Errorf("job %s goes to %s: %s", id, p.Decision.Backend, p.Decision.Reason())
		}
	}
	// Nobody waits for this one, and it has the time.
	if p := r.place(0, "c", func(j *job.Job) { j.Class, j.PreferPowerEfficiency, j.Deadline = job.Interactive, true, time.Hour }); p.Started || p.Decision.Backend != "npu" {
		t.Errorf("one with time goes to %s at once", p.Decision.Backend)
	}
}

func TestAWaitThatLastsLongerIsThoughtOver(t *testing.T) {
	r := newRig(t, power.Low)
	patient := func(j *job.Job) { j.Deadline = time.Minute }
	r.place(0, "a", on("npu"))
	if p := r.place(0, "b", patient); p.Started || p.Decision.Backend != "npu" {
		t.Fatalf("it does not wait: %+v", p)
	}
	next := r.Next()
	if next.Before(at(10)) || next.After(at(13)) {
		t.Fatalf("it is thought over %v after it began", next.Sub(at(0)))
	}
	if got := kinds(r.Tick(next)); !slices.Equal(got, []string{"reconsider b"}) {
		t.Fatalf("then: %q", got)
	}
	ask := r.ask("b", at(0), patient)
	if p, err := r.Place(next, ask); err != nil || p.Started || p.Decision.Backend != "npu" {
		t.Errorf("it has time yet, but goes to %s, %v", p.Decision.Backend, err)
	}
	if again := r.Next(); again.Sub(next) < 2*time.Second {
		t.Errorf("it is thought over again after %v", again.Sub(next))
	}
	// The time is almost up, and the NPU is at it still.
	ask = r.ask("b", at(0), patient)
	p, err := r.Place(at(51), ask)
	if err != nil || !p.Started || p.Decision.Backend != "igpu" {
		t.Errorf("it stays with %s: %v", p.Decision.Backend, err)
	}
}

func TestBackgroundJobsWaitForABetterTier(t *testing.T) {
	r := newRig(t, power.Low)
	if p := r.place(0, "a", background); p.Started || p.Decision.Backend != "" || !r.Watching() {
		t.Fatalf("on low it runs: %+v", p)
	}
	if got := kinds(r.Tier(at(1), power.Critical, true)); !slices.Equal(got, []string{"reconsider a"}) {
		t.Errorf("on critical, where it is refused: %q", got)
	}
	if got := kinds(r.Tier(at(1), power.Low, true)); len(got) != 0 {
		t.Errorf("on low again: %q", got)
	}
	if got := kinds(r.Tier(at(2), power.Mains, false)); !slices.Equal(got, []string{"reconsider a"}) {
		t.Errorf("on mains: %q", got)
	}
	r.tier, r.onBattery = power.Mains, false
	if p := r.place(2, "a", background); !p.Started || p.Decision.Backend != "npu" || r.Watching() {
		t.Errorf("on mains it still waits: %+v", p)
	}
	r.tier = power.Critical
	_, err := r.Place(at(3), r.ask("b", at(3), background))
	if !errors.Is(err, job.PowerPolicy) {
		t.Errorf("on critical: %v", err)
	}
}

func TestAJobTellsTheTierAsWell(t *testing.T) {
	r := newRig(t, power.Mains)
	r.place(0, "a", on("nvidia"))
	r.Ended(at(1), "a", plan.Outcome{})
	r.place(2, "b", on("npu"))
	r.place(2, "c", on("npu"))
	r.tier, r.onBattery = power.Battery, true
	p := r.place(3, "d", on("igpu"))
	if got := kinds(p.Effects); !p.Started || !slices.Equal(got, []string{"unload nvidia", "reconsider c"}) {
		t.Errorf("with the first job on battery: %q", got)
	}
	r.tier, r.onBattery = power.Mains, false
	p = r.place(4, "c", on("npu"))
	if got := kinds(p.Effects); p.Started || len(got) != 0 {
		t.Errorf("with one that waits on line power: %q", got)
	}
	if got := kinds(r.Ended(at(9), "b", plan.Outcome{})); !slices.Equal(got, []string{"start cnpu"}) {
		t.Errorf("which stands in its line: %q", got)
	}
}

func TestAModelThatIsAtWorkIsThereForTheNext(t *testing.T) {
	r := newRig(t, power.Low)
	r.change = func(c []job.Candidate) { c[0].Model.Resident = false }
	if p := r.place(0, "a", on("npu")); p.Decision.Estimate.Load == 0 {
		t.Error("the first need not load it")
	}
	// As far as the backend has told it is not there yet.
	p := r.place(1, "b", on("npu"))
	if p.Decision.Estimate.Load != 0 {
		t.Errorf("the second has to load it again: %+v", p.Decision.Estimate)
	}
	r.Ended(at(20), "a", plan.Outcome{})
	r.Ended(at(30), "b", plan.Outcome{})
	if p := r.place(3600, "c", on("npu")); p.Decision.Estimate.Load == 0 {
		t.Error("it is there for ever")
	}
}

func TestAGPUIsLetGo(t *testing.T) {
	r := newRig(t, power.Battery)
	p := r.place(0, "a", on("nvidia"))
	if !p.Started || p.KeepAlive == nil || *p.KeepAlive > time.Minute || !r.Watching() {
		t.Fatalf("it is told to keep the model for %v", p.KeepAlive)
	}
	r.place(1, "b", on("nvidia"))
	if got := kinds(r.Ended(at(2), "a", plan.Outcome{})); !slices.Equal(got, []string{"start bnvidia"}) {
		t.Errorf("while one waits for it: %q", got)
	}
	if got := kinds(r.Ended(at(3), "b", plan.Outcome{})); !slices.Equal(got, []string{"unload nvidia"}) || r.Watching() {
		t.Errorf("when nobody does, on battery: %q", got)
	}
}

func TestAGPUIsHeldOnMainsUntilTheBreakEven(t *testing.T) {
	r := newRig(t, power.Mains)
	p := r.place(0, "a", on("nvidia"))
	if got := kinds(r.Ended(at(1), "a", plan.Outcome{})); len(got) != 0 || p.KeepAlive == nil {
		t.Fatalf("at the end: %q", got)
	}
	// Loading takes 50 W for 2 s, which is 8 W for 12.5 s.
	if *p.KeepAlive != 12500*time.Millisecond || !r.Next().Equal(at(13.5)) {
		t.Errorf("it is kept for %v, and thought of again %v after the end", *p.KeepAlive, r.Next().Sub(at(1)))
	}
	if got := kinds(r.Tier(at(5), power.Battery, true)); !slices.Equal(got, []string{"unload nvidia"}) {
		t.Errorf("when the plug is pulled: %q", got)
	}
	if !r.Next().IsZero() || r.Watching() {
		t.Error("and then there is nothing left to do")
	}
}

func TestForHowLongABackendHoldsSomethingUnused(t *testing.T) {
	r := newRig(t, power.Mains)
	held := func(seconds float64, want string) {
		t.Helper()
		since, until, ok := r.Held(at(seconds), "nvidia")
		got := "nothing"
		if ok {
			got = fmt.Sprintf("from %v to %v", since.Sub(at(0)), until.Sub(at(0)))
		}
		if got != want {
			t.Errorf("after %v s it holds %s, want %s", seconds, got, want)
		}
	}
	another := func(j *job.Job) { j.Target, j.Model = "nvidia", "n" }
	held(0, "nothing")
	r.place(0, "1", on("nvidia"))
	held(1, "nothing") // without work, that is
	r.Ended(at(2), "1", plan.Outcome{})
	held(2, "from 2s to 14.5s") // 100 J at 8 W
	r.place(10, "2", another)
	held(11, "nothing")
	r.Ended(at(12), "2", plan.Outcome{})
	held(12, "from 12s to 24.5s") // both, and then the one
	held(25, "nothing")
	r.place(30, "3", on("nvidia"))
	r.Ended(at(31), "3", plan.Outcome{})
	held(31, "from 31s to 43.5s")
	r.Tier(at(32), power.Battery, true)
	held(32, "nothing") // it goes at once
	r.place(40, "4", on("igpu"))
	r.Ended(at(41), "4", plan.Outcome{})
	if _, _, ok := r.Held(at(41), "igpu"); ok {
		t.Error("what costs nothing is held")
	}
}

func TestWhatCostsNothingToHoldStays(t *testing.T) {
	r := newRig(t, power.Battery)
	p := r.place(0, "a", on("igpu"))
	if got := kinds(r.Ended(at(1), "a", plan.Outcome{})); *p.KeepAlive != time.Hour || len(got) != 0 || r.Watching() || !r.Next().IsZero() {
		t.Errorf("it is to be kept for %v, and then %q", p.KeepAlive, got)
	}
	five := 5 * time.Minute
	p = r.place(2, "b", func(j *job.Job) { j.Target, j.KeepAsked = "igpu", &five })
	if p.KeepAlive != nil {
		t.Errorf("of who asks for five minutes it is kept for %v", *p.KeepAlive)
	}
	r = newRig(t, power.Mains)
	if p := r.place(0, "a", on("igpu")); p.KeepAlive != nil {
		t.Errorf("on line power it is the server's affair, but is kept for %v", *p.KeepAlive)
	}
}

func TestWhoFindsAGPUAwakePaysOnlyForWhatHeAdds(t *testing.T) {
	r := newRig(t, power.Mains)
	tail := func(now float64) power.Energy {
		t.Helper()
		d, err := r.Weigh(at(now), r.ask("x", at(now), on("nvidia")))
		if err != nil {
			t.Fatal(err)
		}
		return d.Estimate.Tail
	}
	if got := tail(0); got != 0 {
		t.Errorf("of a model that somebody else holds: %v", got)
	}
	r.place(0, "a", on("nvidia"))
	if got := tail(1); got != 0 {
		t.Errorf("while a job runs there: %v", got)
	}
	r.Ended(at(2), "a", plan.Outcome{})
	// It is held for 12.5 s, at 8 W.
	if soon, later := tail(4), tail(12); soon != 16*power.Joule || later != 80*power.Joule {
		t.Errorf("2 s after the last: %v, 10 s after: %v", soon, later)
	}
	r.change = func(c []job.Candidate) { c[2].Model.Resident = false }
	if got := tail(4); got != 180*power.Joule {
		t.Errorf("of a model that is not there: %v", got)
	}
}

func TestEarlierAnswersAreRecalled(t *testing.T) {
	answer := func(tokens, most int) ledger.Entry {
		return ledger.Entry{Kind: job.Chat, Model: "m:latest", Client: "editor", Class: job.Interactive, Tokens: tokens, MaxTokens: most}
	}
	var latest []ledger.Entry
	for range 64 {
		latest = append(latest, answer(20, 0), answer(900, 900))
	}
	r := newRig(t, power.Low)
	r.Recall(append(latest, answer(500, 0))) // which is older than what is remembered
	d, err := r.Weigh(at(0), r.ask("x", at(0), func(j *job.Job) { j.Client, j.Lengths = "editor", job.Lengths{} }))
	if got := d.Job().Lengths; err != nil || got != job.LengthsOf([]int32{20}) {
		t.Errorf("answers are expected to be %v, %v", got, err)
	}
}

func TestLengthsAreLearnedByWhoAsks(t *testing.T) {
	r := newRig(t, power.Low)
	said := func(client string, times, tokens int) {
		for range times {
			r.place(0, client, func(j *job.Job) { j.Client, j.Lengths = client, job.Lengths{} })
			r.Ended(at(1), client, plan.Outcome{Usage: job.Usage{Tokens: tokens}})
		}
	}
	said("terse", 64, 5)
	said("verbose", 64, 800)
	said("new", 10, 5)
	predict := func(client string) time.Duration {
		d, err := r.Weigh(at(2), r.ask("x", at(2), func(j *job.Job) { j.Client, j.Lengths, j.Target = client, job.Lengths{}, "npu" }))
		if err != nil {
			t.Fatal(err)
		}
		return d.Estimate.Total
	}
	if terse, verbose := predict("terse"), predict("verbose"); terse != 500*time.Millisecond || verbose != 80*time.Second {
		t.Errorf("who is terse takes %v, who is verbose %v", terse, verbose)
	}
	// Of few answers nobody knows the tails, and of none what others got.
	if some, none := predict("new"), predict("unheard of"); some < 5*time.Second || some > 15*time.Second || none <= some || none >= 80*time.Second {
		t.Errorf("who is new takes %v, who is unheard of %v", some, none)
	}
	off := settings()
	off.Predict = false
	r.Configure(at(2), off)
	if got := predict("terse"); got < 10*time.Second {
		t.Errorf("with nothing to be learned, %v", got)
	}
}

func TestWhatWasReadIsNotReadAgain(t *testing.T) {
	r := newRig(t, power.Low)
	history := strings.Repeat("once upon a time ", 1000)
	chat := func(texts ...string) func(*job.Job) {
		return func(j *job.Job) {
			j.Prompt, j.PromptBytes, j.PreferPowerEfficiency = job.PromptOf(texts...), len(strings.Join(texts, "")), true
		}
	}
	d := r.place(0, "a", chat(history)).Decision
	if d.Backend != "npu" {
		t.Fatal(d.Reason())
	}
	first := d.Estimate.FirstToken
	r.Ended(at(60), "a", plan.Outcome{Usage: job.Usage{Tokens: 9}})
	again := r.place(61, "b", chat(history, "and then?")).Decision
	if again.Estimate.FirstToken > first/10 {
		t.Errorf("the next turn is read in %v, the first in %v", again.Estimate.FirstToken, first)
	}
	for i := range again.Options {
		if o := &again.Options[i]; o.ID == "igpu" && o.Held != 0 {
			t.Error("another backend has read it, too")
		}
	}
	r.Ended(at(62), "b", plan.Outcome{Usage: job.Usage{Tokens: 9}})
	r.change = func(c []job.Candidate) { c[0].Model.Resident = false }
	if d := r.place(63, "c", on("npu")).Decision; d.Options[0].Held != 0 {
		t.Error("what was unloaded remembers")
	}
}

func TestAJobThatBringsAnotherTierIsNewsToAll(t *testing.T) {
	r := newRig(t, power.Low)
	r.place(0, "a", background)
	r.tier, r.onBattery = power.Mains, false
	p := r.place(1, "b", on("nvidia"))
	if got := kinds(p.Effects); !p.Started || !slices.Equal(got, []string{"reconsider a"}) {
		t.Errorf("one that waits for a better tier than low hears nothing of mains: %q", got)
	}
	r.Ended(at(2), "b", plan.Outcome{})
	r.tier, r.onBattery = power.Battery, true
	ask := r.ask("c", at(3), on("nowhere"))
	refused, err := r.Place(at(3), ask)
	if got := kinds(refused.Effects); err == nil || !slices.Contains(got, "unload nvidia") {
		t.Errorf("what battery holds no longer stays: %q, %v", got, err)
	}
}

func TestWhoIsPlacedAnewHearsNothingOfItself(t *testing.T) {
	r := newRig(t, power.Low)
	r.place(0, "a", background)
	r.tier, r.onBattery = power.Mains, false
	if p := r.place(1, "a", background); !p.Started || len(p.Effects) > 0 {
		t.Errorf("it runs: %v, and then %q", p.Started, kinds(p.Effects))
	}
}

func TestSlotsThatAppearAreForThoseWhoWait(t *testing.T) {
	r := newRig(t, power.Low)
	r.place(0, "a", on("npu"))
	r.place(1, "b", on("npu"))
	r.place(2, "c", on("npu"))
	r.change = func(c []job.Candidate) { c[0].Slots = 2 }
	// It finds out, as it is placed anew, and is the next itself.
	p := r.place(3, "b", on("npu"))
	if !p.Started || len(p.Effects) > 0 {
		t.Errorf("it begins: %v, and then %q", p.Started, kinds(p.Effects))
	}
	r.change = func(c []job.Candidate) { c[0].Slots = 3 }
	p = r.place(4, "d", on("npu"))
	if got := kinds(p.Effects); p.Started || !slices.Equal(got, []string{"start cnpu"}) {
		t.Errorf("the last to come begins: %v, and then %q", p.Started, got)
	}
	if got := kinds(r.Ended(at(5), "b", plan.Outcome{})); !slices.Equal(got, []string{"start dnpu"}) {
		t.Errorf("when one ends: %q", got)
	}
}

func TestAModelStaysForEmbeddingsThatWaitForIt(t *testing.T) {
	r := newRig(t, power.Battery)
	embed := func(model string) func(*job.Job) {
		return func(j *job.Job) { j.Target, j.Kind, j.Model = "nvidia", job.Embed, model }
	}
	r.place(0, "a", embed("m"))
	r.place(1, "b", func(j *job.Job) { embed("other")(j); j.Client = "first" })
	r.place(2, "c", func(j *job.Job) { embed("m")(j); j.Class = job.Background })
	if got := kinds(r.Ended(at(3), "a", plan.Outcome{})); !slices.Equal(got, []string{"start bnvidia"}) {
		t.Errorf("what the last in line waits for: %q", got)
	}
}
