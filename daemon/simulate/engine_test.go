package simulate_test

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/daemon/simulate"
	"github.com/joulemux/joulemux/power"
)

// slow is a discrete GPU whose every figure can be told from the others by its
// energy: it loads for 10 s at 7 W, reads 10 tokens/s at 2 W, writes 1 token/s
// at 3 W, is held at 5 W and sleeps 20 s after the model is gone.
func slow() *simulate.Machine {
	return &simulate.Machine{Name: "slow", Devices: []simulate.Device{{
		ID: "gpu", Class: power.NVIDIA, Prefill: 10, PrefillDraw: 2 * power.Watt, Decode: 1, DecodeDraw: 3 * power.Watt,
		Hold: 5 * power.Watt, Load: 10 * time.Second, LoadDraw: 7 * power.Watt, SleepAfter: 20 * time.Second,
	}}}
}

// policy is one of the baselines.
func policy(t *testing.T, name string) simulate.Policy {
	t.Helper()
	for _, p := range simulate.Baselines() {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("there is no policy %s", name)
	return simulate.Policy{}
}

// runOf runs a trace with the daemon's defaults.
func runOf(t *testing.T, m *simulate.Machine, trace *simulate.Trace, p simulate.Policy) simulate.Result {
	t.Helper()
	o := simulate.DefaultOptions()
	o.Timeline = true
	r, err := simulate.Run(m, trace, p, &o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// asked is a request of 20 tokens that is answered with 30.
func asked(at time.Duration, c simulate.Class) simulate.Request {
	return simulate.Request{At: at, Prompt: 20, Output: 30, Class: c}
}

func TestWhatARequestTakes(t *testing.T) {
	trace := &simulate.Trace{Length: 20 * time.Minute, Requests: []simulate.Request{asked(time.Minute, simulate.Interactive)}}
	r := runOf(t, slow(), trace, policy(t, "ollama"))
	j, s := r.Jobs[0], r.Spent()
	if want := (simulate.Spent{Prefill: 4 * power.Joule, Decode: 90 * power.Joule, Hold: 5 * 320 * power.Joule, Load: 70 * power.Joule}); s != want {
		t.Errorf("spent %+v, want %+v: five minutes kept and 20 s awake", s, want)
	}
	if j.Started != time.Minute || j.FirstToken != 72*time.Second || j.Ended != 102*time.Second || !j.Loaded || j.Energy != 164*power.Joule {
		t.Errorf("the job is %+v", j)
	}
	if d := r.Devices[0]; d.Needed != 42*time.Second || d.Resident != 342*time.Second || d.Loads != 1 || d.Jobs != 1 {
		t.Errorf("the device is %+v", d)
	}
	if r.Bound != 94*power.Joule || r.HeldBound != 164*power.Joule+100*power.Joule {
		t.Errorf("bounds are %v and %v", r.Bound, r.HeldBound)
	}
}

func TestKeepAlive(t *testing.T) {
	trace := &simulate.Trace{Length: 20 * time.Minute, Requests: []simulate.Request{
		asked(0, simulate.Interactive), asked(60*time.Second, simulate.Interactive), asked(110*time.Second, simulate.Interactive),
	}}
	// Load takes 70 J and hold 5 W: the model is kept for 14 s.
	r := runOf(t, slow(), trace, policy(t, "break-even"))
	if d := r.Devices[0]; d.Loads != 2 {
		t.Errorf("%d loads, want two: the second job comes 18 s after the first, and the third 8 s after the second", d.Loads)
	}
	if want := 5 * (18 + 8 + 34) * power.Joule; r.Spent().Hold != want {
		t.Errorf("held for %v, want %v: the GPU does not sleep before it is loaded again", r.Spent().Hold, want)
	}
}

func TestJobsWaitInTheirOrder(t *testing.T) {
	trace := &simulate.Trace{Length: time.Hour}
	for i := range 20 {
		trace.Requests = append(trace.Requests, asked(time.Duration(i)*time.Second, simulate.Background))
	}
	r := runOf(t, slow(), trace, policy(t, "ollama"))
	for i := range r.Jobs {
		if i > 0 && r.Jobs[i].Started != r.Jobs[i-1].Ended {
			t.Errorf("job %d starts after %v, and the one before ends after %v", i, r.Jobs[i].Started, r.Jobs[i-1].Ended)
		}
	}
	if first := r.FirstTokens(simulate.Background); len(first) != 20 || first[19] != 10*time.Second+19*32*time.Second+2*time.Second-19*time.Second {
		t.Errorf("times to the first token are %v", first)
	}
}

func TestSuspendStopsTheClockAndTakesNothing(t *testing.T) {
	m := slow()
	m.Battery, m.Base = 100_000*power.Joule, 10*power.Watt
	trace := &simulate.Trace{
		Length: 20 * time.Minute, Charge: 1, Suspend: 50 * time.Second, SuspendedFor: 10 * time.Minute,
		Requests: []simulate.Request{asked(30*time.Second, simulate.Interactive), asked(15*time.Minute, simulate.Interactive)},
	}
	r := runOf(t, m, trace, policy(t, "ollama"))
	if r.Lasted != 10*time.Minute {
		t.Errorf("lasted %v without the sleep", r.Lasted)
	}
	if j := r.Jobs[0]; j.Ended-j.Arrived != 42*time.Second || j.Energy != 164*power.Joule {
		t.Errorf("the job during which it slept took %v and %v", j.Ended-j.Arrived, j.Energy)
	}
	if j := r.Jobs[1]; j.Arrived != 5*time.Minute || j.Loaded {
		t.Errorf("the job after it came after %v, loaded: %v; want 5m0s awake, and the model still there", j.Arrived, j.Loaded)
	}
	if r.Base != 6000*power.Joule || r.FromBattery != r.Base+r.Spent().Total() {
		t.Errorf("the battery gave %v for %v and %v", r.FromBattery, r.Base, r.Spent().Total())
	}
}

func TestTierFollowsTheBattery(t *testing.T) {
	m := slow()
	m.Battery, m.Base = 36_000*power.Joule, 10*power.Watt // an hour
	var tiers []power.Tier
	watcher := simulate.Policy{Name: "watcher", New: func(*simulate.Machine, *simulate.Options) simulate.Scheduler {
		return tierWatcher{policy(t, "ollama").New(m, nil), &tiers}
	}}
	trace := &simulate.Trace{Length: 2 * time.Hour, Charge: 0.6, Line: []simulate.Switch{{At: 30 * time.Minute, On: true}, {At: 31 * time.Minute}}}
	r := runOf(t, m, trace, watcher)
	// At 10 % line power comes, and is believed after three seconds.
	want := []power.Tier{power.Battery, power.Saver, power.Low, power.Low, power.Mains, power.Low, power.Critical}
	if !slices.Equal(tiers, want) {
		t.Errorf("tiers are %v, want %v", tiers, want)
	}
	// 60 % of an hour, and what a minute at 45 W puts in.
	if !r.Empty || r.TierChanges != 5 || r.Lasted.Round(time.Second) != 36*time.Minute+time.Minute+270*time.Second {
		t.Errorf("after %v, empty: %v, with %d changes", r.Lasted, r.Empty, r.TierChanges)
	}
}

// tierWatcher notes what it is told of tiers.
type tierWatcher struct {
	simulate.Scheduler
	seen *[]power.Tier
}

func (w tierWatcher) Tier(now time.Time, tier power.Tier, onBattery bool) []plan.Effect {
	*w.seen = append(*w.seen, tier)
	return w.Scheduler.Tier(now, tier, onBattery)
}

// obedient does what its functions say.
type obedient struct {
	place func(ask *plan.Ask) (plan.Placement, error)
	next  func() time.Time
	tick  func(now time.Time) []plan.Effect
	ended func(id string) []plan.Effect
}

func (o obedient) Place(_ time.Time, ask *plan.Ask) (plan.Placement, error) { return o.place(ask) }
func (o obedient) Tier(time.Time, power.Tier, bool) []plan.Effect           { return nil }
func (o obedient) Tick(now time.Time) []plan.Effect                         { return o.tick(now) }

func (o obedient) Ended(_ time.Time, id string, _ plan.Outcome) []plan.Effect {
	if o.ended == nil {
		return nil
	}
	return o.ended(id)
}

func (o obedient) Next() time.Time {
	if o.next == nil {
		return time.Time{}
	}
	return o.next()
}

func (o obedient) policy() simulate.Policy {
	return simulate.Policy{Name: "obedient", PutsOff: true, New: func(*simulate.Machine, *simulate.Options) simulate.Scheduler { return o }}
}

func onGPU(keep time.Duration) plan.Placement {
	return plan.Placement{Decision: route.Decision{Backend: "gpu"}, Started: true, KeepAlive: &keep}
}

func TestWhatAPolicyDoesWrongIsAnError(t *testing.T) {
	twice := []simulate.Request{asked(0, simulate.Interactive), asked(42*time.Second-1, simulate.Interactive)}
	for says, o := range map[string]obedient{
		"where job-0000 runs": {place: func(*plan.Ask) (plan.Placement, error) { return onGPU(0), nil }},
		"which is not there": {place: func(*plan.Ask) (plan.Placement, error) {
			return plan.Placement{Decision: route.Decision{Backend: "npu"}, Started: true}, nil
		}},
		"does not get on": {
			place: func(*plan.Ask) (plan.Placement, error) { return plan.Placement{}, nil },
			next:  func() time.Time { return time.Unix(1, 0) },
			tick:  func(time.Time) []plan.Effect { return nil },
		},
		"which has ended": {
			place: func(ask *plan.Ask) (plan.Placement, error) {
				if ask.Job.ID == "job-0001" {
					return plan.Placement{}, nil
				}
				return onGPU(0), nil
			},
			ended: func(id string) []plan.Effect { return []plan.Effect{{Kind: plan.Start, ID: id, Backend: "gpu"}} },
		},
	} {
		options := simulate.DefaultOptions()
		_, err := simulate.Run(slow(), &simulate.Trace{Length: time.Hour, Requests: twice}, o.policy(), &options)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want it to say %q", err, says)
		}
	}
}

func TestEffectsAreCarriedOut(t *testing.T) {
	placed := 0
	var due time.Time
	o := obedient{
		place: func(ask *plan.Ask) (plan.Placement, error) {
			if placed++; placed == 1 {
				due = ask.Job.Arrived.Add(time.Minute)
				return plan.Placement{}, nil
			}
			due = time.Time{}
			if ask.Job.Waited != time.Minute {
				t.Errorf("it has waited for %v", ask.Job.Waited)
			}
			return onGPU(-1), nil
		},
		next: func() time.Time { return due },
		tick: func(time.Time) []plan.Effect { return []plan.Effect{{Kind: plan.Reconsider, ID: "job-0000"}} },
		ended: func(string) []plan.Effect {
			return []plan.Effect{{Kind: plan.Unload, Backend: "gpu"}}
		},
	}
	trace := &simulate.Trace{Length: time.Hour, Requests: []simulate.Request{asked(0, simulate.Interactive)}}
	r := runOf(t, slow(), trace, o.policy())
	if j := r.Jobs[0]; j.Started != time.Minute || placed != 2 {
		t.Errorf("it starts after %v, placed %d times", j.Started, placed)
	}
	if r.Spent().Hold != 100*power.Joule {
		t.Errorf("held for %v, want the 20 s until the GPU sleeps", r.Spent().Hold)
	}
}

func TestFates(t *testing.T) {
	m := slow()
	m.Battery = power.Joules(1e6)
	trace := &simulate.Trace{Length: time.Hour, Charge: 0.1, Requests: []simulate.Request{
		asked(0, simulate.Interactive), asked(time.Minute, simulate.Background), asked(2*time.Minute, simulate.Interactive), asked(3*time.Minute, simulate.Interactive),
	}}
	o := obedient{place: func(ask *plan.Ask) (plan.Placement, error) {
		switch ask.Job.ID {
		case "job-0000":
			return onGPU(0), nil
		case "job-0002":
			return plan.Placement{}, job.Errorf(job.Busy, "a test")
		default:
			return plan.Placement{}, nil
		}
	}}
	r := runOf(t, m, trace, o.policy())
	for i, want := range []struct {
		fate         simulate.Fate
		late, putOff bool
	}{{simulate.Answered, true, false}, {simulate.Lost, false, true}, {simulate.Refused, true, false}, {simulate.Lost, true, false}} {
		if j := r.Jobs[i]; j.Fate != want.fate || j.Late() != want.late || j.PutOff != want.putOff {
			t.Errorf("job %d: %s, late %v, put off %v; want %+v", i, j.Fate, j.Late(), j.PutOff, want)
		}
	}
	if r.Missed() != 0.75 || r.PutOff() != 0.25 {
		t.Errorf("%v missed, %v put off", r.Missed(), r.PutOff())
	}
}

func TestEnergyIsConservedAndEveryRequestEndsOnce(t *testing.T) {
	for seed := range uint64(30) {
		m := simulate.Random(seed)
		w := simulate.DefaultWorkload()
		w.Line, w.Charge = []simulate.LinePower{simulate.NeverOnLine, simulate.FlipsLine, simulate.AlwaysOnLine}[seed%3], 0
		trace := simulate.Generate(seed, w)
		for _, p := range simulate.Policies() {
			r := runOf(t, &m, &trace, p)
			conserved(t, &m, &r)
			endedOnce(t, &trace, &r)
		}
	}
}

// conserved checks that the energy by device and purpose is the integral of
// what was drawn, and what the battery gave.
func conserved(t *testing.T, m *simulate.Machine, r *simulate.Result) {
	t.Helper()
	drawn, discharged := make([]float64, len(m.Devices)), 0.0
	for i, now := range r.Timeline {
		until := r.Lasted
		if i+1 < len(r.Timeline) {
			until = r.Timeline[i+1].At
		}
		span := (until - now.At).Seconds()
		for d, draw := range now.Draws {
			drawn[d] += draw.Watts() * span
			if !now.OnLine {
				discharged += draw.Watts() * span
			}
		}
		if !now.OnLine {
			discharged += m.Base.Watts() * span
		}
	}
	for d := range m.Devices {
		if got := r.Devices[d].Spent.Total().Joules(); math.Abs(got-drawn[d]) > 0.01 {
			t.Errorf("%s, %s: %s spent %v J and drew %v", r.Machine, r.Policy, m.Devices[d].ID, got, drawn[d])
		}
	}
	if got := r.FromBattery.Joules(); math.Abs(got-discharged) > 0.1 {
		t.Errorf("%s, %s: the battery gave %v J, and %v were drawn", r.Machine, r.Policy, got, discharged)
	}
}

// endedOnce checks that every request that came has one fate, and that those
// on a device do not overlap.
func endedOnce(t *testing.T, trace *simulate.Trace, r *simulate.Result) {
	t.Helper()
	if !r.Empty && len(r.Jobs) != len(trace.Requests) {
		t.Errorf("%s, %s: %d jobs of %d requests", r.Machine, r.Policy, len(r.Jobs), len(trace.Requests))
	}
	answered := make(map[string][]simulate.Job)
	all := power.Energy(0)
	for _, j := range r.Jobs {
		switch {
		case j.Fate == simulate.Answered:
			answered[j.Backend] = append(answered[j.Backend], j)
			if j.Started < j.Arrived || j.FirstToken < j.Started || j.Ended < j.FirstToken {
				t.Errorf("%s, %s: %+v", r.Machine, r.Policy, j)
			}
		case !r.Empty && j.Fate == simulate.Lost && !j.PutOff:
			t.Errorf("%s, %s: %s is %s", r.Machine, r.Policy, j.ID, j.Fate)
		}
		all += j.Energy
	}
	for _, jobs := range answered {
		slices.SortFunc(jobs, func(a, b simulate.Job) int { return int(a.Started - b.Started) })
		for i := range jobs {
			if i > 0 && jobs[i].Started < jobs[i-1].Ended {
				t.Errorf("%s, %s: two jobs in one slot", r.Machine, r.Policy)
			}
		}
	}
	if s := r.Spent(); all != s.Total()-s.Hold {
		t.Errorf("%s, %s: jobs took %v, and the devices %v without holding", r.Machine, r.Policy, all, s.Total()-s.Hold)
	}
}

func TestSameSeedSameResult(t *testing.T) {
	m := simulate.Random(7)
	w := simulate.DefaultWorkload()
	w.Line = simulate.FlipsLine
	o := simulate.DefaultOptions()
	o.Figures, o.Noise, o.Timeline = simulate.FiguresLearned, 0.1, true
	for _, p := range simulate.Policies() {
		var results []simulate.Result
		for range 2 {
			trace := simulate.Generate(3, w)
			r, err := simulate.Run(&m, &trace, p, &o)
			if err != nil {
				t.Fatal(err)
			}
			results = append(results, r)
		}
		if !reflect.DeepEqual(results[0], results[1]) {
			t.Errorf("policy %s: two runs differ", p.Name)
		}
	}
}
