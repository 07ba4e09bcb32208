// Package plan decides for every job where and when it runs. It joins the
// rules of daemon/route, daemon/queue and daemon/residency with what is learned
// of answers and prompts, and is as pure as they are: events and time in,
// effects out.
//
// Whoever drives it reports what happens, each time with the time, and does
// what it is told. daemon/dispatch drives it with jobs and real time,
// daemon/simulate with a trace and time of its own. A plan is asked one
// thing at a time.
package plan

import (
	"slices"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/queue"
	"github.com/joulemux/joulemux/daemon/residency"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// Settings are the user's choices about the plan.
type Settings struct {
	Rules     route.Rules
	Residency residency.Rules
	// Predict has the lengths of answers learned; without it they are those
	// of job.PriorLengths.
	Predict bool
}

// MostWaiting is how many jobs may wait.
const MostWaiting = 1024

// Ask is a job with what its driver knows at this moment.
type Ask struct {
	Job job.Job
	// Candidates are all backends as they look to the job. What the plan knows
	// of them is filled in.
	Candidates []job.Candidate
	Tier       power.Tier
	OnBattery  bool
}

// Placement is what becomes of a job.
type Placement struct {
	// Decision is where it goes. A job that waits for a better tier has none.
	Decision route.Decision
	// Started says that the job has a slot and begins now. Else it waits.
	Started bool
	// KeepAlive is for how long the model is to stay once the job is over, or
	// nil if that is the server's and the client's affair.
	KeepAlive *time.Duration
	// Effects are what else is to be done.
	Effects []Effect
}

// Outcome is how a job's attempt ended.
type Outcome struct {
	Usage  job.Usage
	Failed bool
}

// EffectKind is what an Effect has the driver do.
type EffectKind int

// The kinds of effects.
const (
	// Start says that a waiting job has its slot now.
	Start EffectKind = iota
	// Reconsider asks for a waiting job to be placed again, with fresh
	// candidates.
	Reconsider
	// Unload says that a backend is to let go of a model now.
	Unload
)

// Effect is what the driver is to do.
type Effect struct {
	Kind           EffectKind
	ID             string // of a job
	Backend, Model string
	KeepAlive      *time.Duration // with Start
}

// Plan is what was decided, and what is waiting to be. Make one with New.
type Plan struct {
	settings *Settings
	queue    *queue.Queue
	jobs     map[string]*placed
	lengths  lengths
	prompts  map[resident][]job.Prompt
	holdings map[resident]*holding

	tier      power.Tier
	onBattery bool
}

// placed is a job that waits or runs.
type placed struct {
	job      job.Job
	decision route.Decision
	at       resident // zero while the job waits for a better tier
	started  bool
	reviews  int
	work     time.Duration // for how long it is predicted to occupy its slot
}

// resident is a model on a backend.
type resident struct{ backend, model string }

// New returns a plan without jobs.
func New(s *Settings) *Plan {
	return &Plan{
		settings: s, queue: queue.New(MostWaiting), jobs: make(map[string]*placed),
		lengths: newLengths(), prompts: make(map[resident][]job.Prompt), holdings: make(map[resident]*holding),
	}
}

// Configure replaces the settings. Jobs that wait are reconsidered.
func (p *Plan) Configure(now time.Time, s *Settings) []Effect {
	p.settings = s
	return p.reconsiderWaiting(now)
}

// Waiting returns how many jobs of a class wait.
func (p *Plan) Waiting(class job.Class) int { return p.queue.AllWaiting(class) }

// Weigh decides where a job would go, and takes no note of it.
func (p *Plan) Weigh(now time.Time, ask *Ask) (route.Decision, error) {
	ask.Job.Waited = now.Sub(ask.Job.Arrived)
	if p.settings.Predict && !ask.Job.Lengths.Known() {
		ask.Job.Lengths = p.lengths.of(&ask.Job)
	}
	rules := &p.settings.Rules
	due := rules.DueAt(&ask.Job)
	for i := range ask.Candidates {
		c := &ask.Candidates[i]
		p.atWork(c, &ask.Job)
		c.Wait = p.wait(now, c, &ask.Job, due)
		c.Held = p.held(c, &ask.Job)
		c.Tail = p.tail(now, ask, c)
	}
	return route.Decide(rules, ask.Tier, &ask.Job, ask.Candidates)
}

// Place decides where a job runs. It has a slot at once or waits, until an
// effect tells otherwise; a job that waits is placed again when an effect asks
// for it. A job that cannot run is not kept: the error says why. It may be the
// first to tell of another tier, and there are effects of that even if it fails.
func (p *Plan) Place(now time.Time, ask *Ask) (Placement, error) {
	changed := ask.Tier != p.tier || ask.OnBattery != p.onBattery
	p.tier, p.onBattery = ask.Tier, ask.OnBattery
	var news []Effect
	if changed {
		news = p.reconsiderWaiting(now)
	}
	placed, err := p.place(now, ask)
	if changed { // what the job runs with stays; who is reconsidered may want what goes
		news = append(p.letGo(now), news...)
	}
	placed.Effects = slices.DeleteFunc(append(news, placed.Effects...), func(e Effect) bool {
		return e.ID == ask.Job.ID // which the placement tells
	})
	return placed, err
}

func (p *Plan) place(now time.Time, ask *Ask) (Placement, error) {
	was := p.jobs[ask.Job.ID]
	if was != nil && was.started {
		if !ask.vetoes(was.at.backend) && !was.tooLate(now) {
			return p.started(was), nil
		}
		// While it stood in line the device got too hot, or the time passed by
		// when it had to begin: the slot is the next one's.
		next := append(p.forget(now, ask.Job.ID), p.end(now, was)...)
		placed, err := p.place(now, ask)
		placed.Effects = append(next, placed.Effects...)
		return placed, err
	}
	if p.mustWait(&ask.Job) {
		return p.park(now, ask, was)
	}
	d, err := p.Weigh(now, ask)
	if err != nil {
		p.forget(now, ask.Job.ID)
		return Placement{Decision: d}, err
	}
	j := &placed{job: ask.Job, decision: d, at: resident{d.Backend, name(&ask.Job)}}
	j.work = d.Estimate.Total - d.Estimate.Wait
	if was != nil {
		j.reviews = was.reviews + 1
	}
	return p.enter(now, j, was)
}

// enter puts a job into the line of the backend that was decided on.
func (p *Plan) enter(now time.Time, j, was *placed) (Placement, error) {
	best := j.decision.Options[0].Candidate
	more := p.start(now, p.queue.Slots(now, lineOf(best.ID, &j.job), best.Slots))
	if was != nil && was.started { // it was the next for a slot that has just appeared
		placed := p.started(was)
		placed.Effects = more
		return placed, nil
	}
	t := p.ticket(now, j)
	var err error
	if was != nil {
		j.started = p.queue.Move(now, t)
	} else if j.started, err = p.queue.Enter(now, t); err != nil {
		return Placement{Effects: more}, err
	}
	p.jobs[j.job.ID] = j
	p.note(best, j)
	if !j.started {
		return Placement{Decision: j.decision, Effects: more}, nil
	}
	p.begin(now, j)
	placed := p.started(j)
	placed.Effects = more
	return placed, nil
}

// started is the placement of a job that has its slot.
func (p *Plan) started(j *placed) Placement {
	return Placement{Decision: j.decision, Started: true, KeepAlive: p.keepAlive(j)}
}

// vetoes reports whether a backend may be given no work now.
func (a *Ask) vetoes(backend string) bool {
	return slices.ContainsFunc(a.Candidates, func(c job.Candidate) bool { return c.ID == backend && c.Vetoed != "" })
}

// tooLate reports whether the first token would come later than the client
// allows if the job began now.
func (j *placed) tooLate(now time.Time) bool {
	first := j.decision.Estimate.FirstToken - j.decision.Estimate.Wait
	return j.job.MaxLatency > 0 && now.Sub(j.job.Arrived)+first >= j.job.MaxLatency+time.Millisecond
}

// park has a job wait for a better tier.
func (p *Plan) park(now time.Time, ask *Ask, was *placed) (Placement, error) {
	t := parked(&ask.Job)
	if was != nil {
		p.queue.Move(now, t)
	} else if _, err := p.queue.Enter(now, t); err != nil {
		return Placement{}, err
	}
	p.jobs[ask.Job.ID] = &placed{job: ask.Job}
	return Placement{}, nil
}

// parked is the place of a job that stands in no line.
func parked(j *job.Job) queue.Ticket {
	return queue.Ticket{ID: j.ID, Client: j.Client, Class: j.Class}
}

// mustWait reports whether the tier lets a job run only once it is better.
func (p *Plan) mustWait(j *job.Job) bool {
	return j.Class == job.Background && p.settings.Rules.For(p.tier).Background == route.Wait
}

// When a wait is thought over: as soon as it has lasted longer than predicted,
// with some patience for predictions, and then ever less often.
const (
	firstReview = time.Second
	lastReview  = time.Minute
)

// ticket is the place in the line of the backend that j goes to.
func (p *Plan) ticket(now time.Time, j *placed) queue.Ticket {
	t := queue.Ticket{
		ID: j.job.ID, Client: j.job.Client, Class: j.job.Class, Backend: lineOf(j.at.backend, &j.job),
		Due: p.settings.Rules.DueAt(&j.job), Work: j.work,
	}
	patience := min(firstReview<<min(j.reviews, 10), lastReview)
	t.Review = now.Add(j.decision.Estimate.Wait + patience)
	if j.job.Class == job.Background && !t.Due.IsZero() {
		t.Promote = t.Due.Add(-2 * j.work)
	}
	return t
}

// overrun is for how long a job is believed to go on that should have ended.
const overrun = 2 * time.Second

// wait returns for how long a job would stand in line on c, or has yet to if it
// stands there already.
func (p *Plan) wait(now time.Time, c *job.Candidate, j *job.Job, due time.Time) time.Duration {
	line := lineOf(c.ID, j)
	ahead := p.queue.Ahead(now, queue.Ticket{ID: j.ID, Client: j.Client, Class: j.Class, Backend: line, Due: due})
	if p.queue.AtWork(line) >= max(1, c.Slots) {
		return max(overrun, ahead)
	}
	return ahead
}

// lineOf names the line of a backend that a job stands in. Embeddings have one
// of their own: servers answer them beside what they write.
func lineOf(backend string, j *job.Job) string {
	if j.Kind == job.Embed && backend != "" {
		return backend + " (embeddings)"
	}
	return backend
}

// name is what a job's model is called here, however the client spells it.
func name(j *job.Job) string { return job.CanonicalModel(j.Model) }
