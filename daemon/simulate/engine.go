package simulate

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

const (
	// serversKeep is for how long Ollama keeps a model of itself.
	serversKeep = 5 * time.Minute
	// grace is for how long jobs may go on after the trace.
	grace = time.Hour
	// stuck is how many things may happen in one moment: a policy that makes
	// more of them goes round in a circle.
	stuck = 10_000
)

// epoch is when traces begin. It is a Monday.
func epoch() time.Time { return time.Date(2026, time.January, 5, 9, 0, 0, 0, time.UTC) }

// Run runs a trace on a machine, with a policy. The error is the policy's
// fault: it gave two jobs one slot, or one job two.
func Run(m *Machine, t *Trace, p Policy, o *Options) (Result, error) {
	r := newRun(m, t, p, o)
	for r.err == nil && r.step() {
	}
	r.end()
	return r.result, r.err
}

// run is a run in progress. Its now is how long the machine has been awake.
type run struct {
	machine *Machine
	trace   *Trace
	policy  Policy
	options *Options
	result  Result

	scheduler Scheduler
	figures   *figures
	places    []*place
	supply    supply
	ladder    power.Ladder
	onBattery bool // as it was told

	now       time.Duration
	happened  int // in this moment
	requests  int // that have come
	switches  int // of the line that have been
	suspended bool
	over      bool          // the trace is
	look      time.Duration // when the battery is looked at next
	// open are the jobs that have not ended, by their ids: working or waiting.
	open map[string]*Job
	err  error
}

func newRun(m *Machine, t *Trace, p Policy, o *Options) *run {
	r := &run{
		machine: m, trace: t, policy: p, options: o, figures: newFigures(o),
		scheduler: p.New(m, o), open: make(map[string]*Job), look: never,
		supply: supply{full: m.Battery, left: power.Joules(m.Battery.Joules() * t.Charge), onLine: t.StartsOnLine || m.Battery == 0},
		result: Result{
			Machine: m.Name, Policy: p.Name, Battery: m.Battery,
			Devices: make([]DeviceResult, len(m.Devices)), Jobs: make([]Job, len(t.Requests)),
		},
	}
	for i := range m.Devices {
		d := &m.Devices[i]
		r.result.Devices[i].ID, r.result.Devices[i].Class = d.ID, d.Class
		r.places = append(r.places, &place{Device: d, result: &r.result.Devices[i], until: never, expires: never})
	}
	r.observe()
	return r
}

// clock is what the policy's clock shows.
func (r *run) clock() time.Time { return epoch().Add(r.now) }

// awake returns when something of the trace happens, on a clock that stands
// still while the machine is suspended. What comes meanwhile is there when it
// wakes up.
func (t *Trace) awake(at time.Duration) time.Duration {
	return at - max(0, min(at-t.Suspend, t.SuspendedFor))
}

// event is something that happens.
type event struct {
	at time.Duration
	do func()
}

// step goes on to what happens next, and reports whether there was something.
func (r *run) step() bool {
	e := r.next()
	if r.over && !r.goesOn() || e.at >= r.trace.awake(r.trace.Length)+grace {
		return false
	}
	if e.at == r.now {
		if r.happened++; r.happened > stuck {
			r.fail("does not get on after %v", r.now)
		}
	} else {
		r.happened = 0
	}
	r.advance(e.at)
	e.do()
	return !r.result.Empty
}

// next returns what happens next. Of what happens at the same time, jobs end
// first, so that those who come find the slot free; and a model expires last,
// so that who comes at that moment still finds it there.
func (r *run) next() (first event) {
	first.at = never
	consider := func(at time.Duration, do func()) {
		if at < first.at {
			first = event{max(at, r.now), do}
		}
	}
	for _, p := range r.places {
		consider(p.until, func() { r.phaseOver(p) })
	}
	r.considerSupply(consider)
	if r.requests < len(r.trace.Requests) {
		consider(r.trace.awake(r.trace.Requests[r.requests].At), r.arrive)
	}
	if at := r.scheduler.Next(); !at.IsZero() {
		consider(at.Sub(epoch()), func() { r.carryOut(r.scheduler.Tick(r.clock())) })
	}
	for _, p := range r.places {
		consider(p.expires, func() { p.unload(r.now) })
		consider(p.asleep(r.now), func() {})
	}
	return first
}

// considerSupply considers what happens to the supply.
func (r *run) considerSupply(consider func(time.Duration, func())) {
	if r.trace.SuspendedFor > 0 && !r.suspended {
		consider(r.trace.Suspend, r.suspend)
	}
	if r.switches < len(r.trace.Line) {
		consider(r.trace.awake(r.trace.Line[r.switches].At), r.switchLine)
	}
	if due := r.ladder.Due; !due.IsZero() {
		consider(due.Sub(epoch()), r.observe)
	}
	consider(r.look, r.observe)
	if left := r.supply.empties(r.draw()); left < never {
		consider(r.now+left, r.empty)
	}
	if !r.over {
		consider(r.trace.awake(r.trace.Length), func() { r.over = true })
	}
}

// goesOn reports whether there are jobs that may still end.
func (r *run) goesOn() bool {
	working := slices.ContainsFunc(r.places, (*place).busy)
	return working || len(r.open) > 0 && !r.scheduler.Next().IsZero()
}

// draw is what the devices and the rest of the machine take now.
func (r *run) draw() power.Power {
	sum := r.machine.Base
	for _, p := range r.places {
		sum += p.draw(r.now)
	}
	return sum
}

// advance accounts for the time until then, in which nothing changes.
func (r *run) advance(then time.Duration) {
	if then == r.now {
		return
	}
	if r.options.Timeline {
		r.record()
	}
	d := then - r.now
	r.supply.spend(r.draw(), d)
	r.result.Base += r.machine.Base.For(d)
	for _, p := range r.places {
		p.spend(r.now, then)
	}
	r.now = then
}

// record notes how things stand, unless that is as it was.
func (r *run) record() {
	m := Moment{At: r.now, Tier: r.ladder.Tier, OnLine: r.supply.onLine, Charge: r.supply.charge()}
	for _, p := range r.places {
		m.Draws = append(m.Draws, p.draw(r.now))
	}
	if n := len(r.result.Timeline); n > 0 {
		last := &r.result.Timeline[n-1]
		if slices.Equal(last.Draws, m.Draws) && last.Tier == m.Tier && last.OnLine == m.OnLine && math.Abs(last.Charge-m.Charge) < 0.005 {
			return
		}
	}
	r.result.Timeline = append(r.result.Timeline, m)
}

// observe has the tier follow the supply, as the daemon's tracker does.
func (r *run) observe() {
	was, wasOnBattery := r.ladder.Tier, r.onBattery
	r.onBattery = r.supply.onBattery()
	r.ladder = r.ladder.Observe(r.options.Power, r.supply.reported(), r.clock())
	r.look = never
	if r.onBattery {
		r.look = r.now + polling
	}
	now := r.ladder.Tier
	if now != was && was != power.TierUnknown {
		r.result.TierChanges++
	}
	if now != was || r.onBattery != wasOnBattery {
		r.carryOut(r.scheduler.Tier(r.clock(), now, r.onBattery))
	}
}

// switchLine has line power come or go. What it did while the machine was
// suspended is seen when it wakes up, all at once.
func (r *run) switchLine() {
	for line := r.trace.Line; r.switches < len(line) && r.trace.awake(line[r.switches].At) <= r.now; r.switches++ {
		if r.result.Battery > 0 {
			r.supply.onLine = line[r.switches].On
		}
	}
	r.observe()
}

// suspend lets the time pass in which the machine sleeps: it takes no energy,
// and its clock stands still. It is powered as it was when it fell asleep.
func (r *run) suspend() {
	r.suspended = true
	r.supply.charged(r.trace.SuspendedFor)
}

// empty ends it all.
func (r *run) empty() { r.result.Empty = true }

// arrive has the next request come.
func (r *run) arrive() {
	j := &r.result.Jobs[r.requests]
	*j = Job{
		ID: fmt.Sprintf("job-%04d", r.requests), Request: r.trace.Requests[r.requests],
		Arrived: r.now, Fate: Lost,
	}
	j.Due = r.now + j.Request.Due(&r.options.Rules)
	r.requests++
	r.open[j.ID] = j
	r.place(j)
}

// place asks the policy where a job is to run.
func (r *run) place(j *Job) {
	j.Tier = r.ladder.Tier
	if r.policy.PutsOff && j.Class == Background && r.options.Rules.For(j.Tier).Background != route.Run {
		j.PutOff = true
	}
	placed, err := r.scheduler.Place(r.clock(), r.ask(j))
	switch {
	case err != nil:
		j.Ended, j.Fate, j.Why = r.now, Refused, err.Error()
		delete(r.open, j.ID)
	case placed.Started:
		r.begin(j.ID, placed.Decision.Backend, placed.KeepAlive)
	}
	r.carryOut(placed.Effects)
}

// ask is what the policy is told of a job and of the machine.
func (r *run) ask(j *Job) *plan.Ask {
	a := &plan.Ask{Job: r.job(j), Tier: r.ladder.Tier, OnBattery: r.supply.onBattery()}
	for _, p := range r.places {
		a.Candidates = append(a.Candidates, r.figures.candidate(p, a.OnBattery))
	}
	return a
}

// job is a request in the daemon's words.
func (r *run) job(j *Job) job.Job {
	asked := job.Job{
		ID: j.ID, Kind: job.Chat, Model: model, PromptBytes: j.Prompt * bytesPerToken, Stream: true, Client: j.Client,
		Arrived: epoch().Add(j.Arrived), Waited: r.now - j.Arrived,
	}
	switch j.Class {
	case Interactive:
		asked.Class = job.Interactive
	case Completion:
		asked.Kind, asked.Class, asked.Completion = job.Generate, job.Interactive, true
	case Background:
		asked.Class = job.Background
	}
	if r.options.Lengths == LengthsKnown {
		asked.Lengths = job.LengthsOf([]int32{int32(j.Output)})
	}
	return asked
}

// carryOut does what the policy wants done.
func (r *run) carryOut(effects []plan.Effect) {
	for _, e := range effects {
		switch e.Kind {
		case plan.Start:
			r.begin(e.ID, e.Backend, e.KeepAlive)
		case plan.Reconsider:
			if j := r.open[e.ID]; j != nil && j.Backend == "" {
				r.place(j)
			}
		case plan.Unload:
			if p := r.at(e.Backend); p != nil {
				p.unload(r.now)
			}
		}
	}
}

// at is the place of that name.
func (r *run) at(id string) *place {
	for _, p := range r.places {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// begin starts a job that was given a slot.
func (r *run) begin(id, device string, keepAlive *time.Duration) {
	p, j := r.at(device), r.open[id]
	switch {
	case p == nil:
		r.fail("starts %s on %q, which is not there", id, device)
	case j == nil:
		r.fail("starts %s, which has ended", id)
	case j.Backend != "":
		r.fail("starts %s on %s and on %s", id, j.Backend, device)
	case p.busy():
		r.fail("starts %s on %s, where %s runs", id, device, p.job.ID)
	default:
		keep := serversKeep
		if keepAlive != nil {
			keep = *keepAlive
		}
		j.onBattery = r.supply.onBattery()
		p.begin(j, keep, r.now)
	}
}

// phaseOver has a job go on to its next phase, or end.
func (r *run) phaseOver(p *place) {
	switch p.phase {
	case loading:
		p.enter(reading, r.now)
	case reading:
		p.enter(writing, r.now)
	default:
		r.ended(p, p.free(r.now))
	}
}

// ended tells of a job that is over.
func (r *run) ended(p *place, j *Job) {
	delete(r.open, j.ID)
	r.figures.learn(j, p.Device, r.clock())
	u := job.Usage{
		PromptTokens: j.Prompt, Tokens: j.Output,
		Prefill: p.Prefilling(j.Prompt), Decode: p.Decoding(j.Output),
	}
	if j.Loaded {
		u.Load = p.Load
	}
	r.carryOut(r.scheduler.Ended(r.clock(), j.ID, plan.Outcome{Usage: u}))
}

// fail notes what the policy did wrong.
func (r *run) fail(format string, args ...any) {
	r.err = errors.Join(r.err, fmt.Errorf("policy %s "+format, append([]any{r.policy.Name}, args...)...))
}

// end sums up.
func (r *run) end() {
	r.result.Lasted = r.now
	r.result.Jobs = r.result.Jobs[:r.requests]
	r.result.FromBattery = r.supply.given
	if r.options.Timeline {
		r.record()
	}
	r.bound()
}

// bound looks for the least that the answers take.
func (r *run) bound() {
	var answered []Request
	for i := range r.result.Jobs {
		if j := &r.result.Jobs[i]; j.Fate == Answered {
			asked := j.Request
			asked.At = j.Arrived
			answered = append(answered, asked)
		}
	}
	bound := LowerBound(r.machine, &r.options.Rules, answered)
	r.result.Bound, r.result.Infeasible = bound.Energy, bound.Infeasible
	r.result.HeldBound = HeldBound(r.machine, &r.options.Rules, answered)
}
