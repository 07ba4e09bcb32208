// Package meter turns what sensors count into what each job took.
//
// Every domain of the machine has an account. Time is cut into phases, in each
// of which the same jobs run and each is either reading its prompt or writing;
// a phase ends with every event of a job. When a domain's energy in a phase is
// known, the account divides it: what the domain takes without jobs is idle,
// what other processes made it take is background, and the rest is the jobs'.
// Nothing is lost or made up: jobs + background + idle is what was counted,
// to the microjoule, always. Ticks only feed the accounts, so a long job is not
// mistaken for a wrapped counter; they change nobody's share.
//
// A span of time over which a counter cannot be trusted (a suspend, a wrap that
// may have been two, a reset) is a gap. Gaps make the coverage less than one and
// are not filled in.
//
// Which sensors there are is for power/sysfs, power/nvml and power/energyd to
// find out, and what becomes of the figures is daemon/dispatch's and
// daemon/ledger's.
package meter

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/joulemux/joulemux/power"
)

// A Sensor reads one domain. Its figures may be older than the call, and calls
// may come at the same time. Of the domain only whether and how it counts may
// change, and only with a reading.
type Sensor interface {
	Domain() power.Domain
	Read(ctx context.Context) (power.Reading, error)
}

// A Rester is a sensor that holds something while it is read, such as a
// connection to another process, and lets go of it when it will not be read for
// a while.
type Rester interface{ Rest() }

// CPU tells how much processor time has been used since some moment.
type CPU interface {
	// Busy is the time of all processors together.
	Busy() (time.Duration, error)
	// Used is the time of the processes of a backend.
	Used(backend string) (time.Duration, error)
	// Count is how many processors there are.
	Count() int
}

// Options are what a meter stands on. All but Sensors may be left out.
type Options struct {
	Sensors []Sensor
	CPU     CPU
	// Suspended is how long the machine has slept since it started, give or take
	// a few milliseconds: where it has changed between two readings lies a
	// suspend.
	Suspended func() time.Duration
	// Tail is told what a job made its devices take after its end, when that
	// is known; again if more becomes known.
	Tail func(Tail)
}

const (
	// tick is how often sensors are read while a job runs.
	tick = time.Second
	// fresh is how old a reading may be to stand for now: in a burst of short
	// jobs not every one of them costs a look. Of the shortest span with a
	// measured value, 250 ms, that is 2 %.
	fresh = 5 * time.Millisecond
	// tailTime is for how long after a job its devices are still its own doing:
	// clocks fall and caches are written back within that.
	tailTime = 2 * time.Second
	// lull is for how long the machine is watched after that, to learn what it
	// draws without jobs. The pause may last for hours, over which a counter
	// that starts again at zero tells nothing.
	lull = 4 * time.Second
)

// Meter keeps the accounts.
type Meter struct {
	cpu       CPU
	suspended func() time.Duration
	tail      func(Tail)

	// The constants, but in tests.
	tick, fresh time.Duration

	mu       sync.Mutex // guards the following, and the accounts
	sensors  []*source  // all, to look at
	accounts []*account
	// How often other sensors were adopted, the accounts of those that are gone,
	// and what was counted until then.
	adopted int
	gone    []*account
	sum     power.Energy
	gaps    int
	jobs    []*Span // under way
	begun   int     // how many ever were
	now     *phase
	cpuNow  processors
	slept   slept
	timer   *time.Timer // runs while jobs or a tail do
	closed  bool
	// watching says that a pause has begun and the idle draw is to be learned.
	watching  bool
	condition string // that of Conditions
	// What somebody saw who looked, and when.
	glance  glance
	told    []Draw
	glanced time.Time
}

// New returns a meter of those sensors. It reads none until a job begins.
func New(o Options) *Meter {
	m := &Meter{cpu: o.CPU, suspended: o.Suspended, tail: o.Tail, tick: tick, fresh: fresh}
	if m.suspended == nil {
		m.suspended = func() time.Duration { return 0 }
	}
	if m.tail == nil {
		m.tail = func(Tail) {}
	}
	m.sensors = m.sources(o.Sensors)
	m.accounts = accountsOf(m.sensors)
	m.timer = time.AfterFunc(time.Hour, m.ticked)
	m.timer.Stop()
	now := time.Now()
	m.cpuNow, m.now = m.processors(now), newPhase(now, nil)
	m.slept = slept{m.suspended(), now}
	return m
}

// Start takes a first reading, from which the idle draw is learned by the time
// the first job begins.
func (m *Meter) Start(ctx context.Context) {
	m.update(ctx, m.due(time.Now(), true), func(time.Time) {
		m.watching = m.now.quiet()
		m.schedule()
	})
}

// Close ends the ticks. Jobs under way still end with a cost.
func (m *Meter) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.timer.Stop()
}

// Conditions says under which conditions the machine now draws what it draws
// without jobs, such as "battery": an idle draw learned under others does not
// count, and what is drawn from one change of them to another in a pause tells
// of neither.
func (m *Meter) Conditions(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.condition != "" && m.condition != name {
		if len(m.jobs) > 0 {
			m.turn(time.Now())
		}
		m.now.mixed = true
	}
	m.condition = name
	for _, a := range m.accounts {
		a.idle.conditions(name)
	}
}

// Begin opens the span of a job. Each span has to be ended.
func (m *Meter) Begin(ctx context.Context, w Work) *Span {
	s := &Span{meter: m, work: w}
	if w.Class == power.Cloud { // it takes nothing here
		s.begun = time.Now()
		return s
	}
	m.update(ctx, m.dueFor(w.Class), func(now time.Time) {
		s.begun = now
		s.open(m.accounts)
		m.found(w)
		m.jobs, m.watching = append(m.jobs, s), false
		m.begun++
		m.turn(now)
		m.schedule()
	})
	return s
}

// first notes that a job begins to write.
func (m *Meter) first(ctx context.Context, s *Span) {
	if s.work.Class == power.Cloud {
		return
	}
	m.update(ctx, m.dueFor(s.work.Class), func(now time.Time) {
		s.writing = true
		m.turn(now)
		s.renounce()
	})
}

// end closes a job's span, even if its client is gone.
func (m *Meter) end(ctx context.Context, s *Span, worked time.Duration) {
	if s.work.Class == power.Cloud {
		s.ended = time.Now()
		return
	}
	answered := ctx.Err() == nil
	m.update(context.WithoutCancel(ctx), m.dueFor(s.work.Class), func(now time.Time) {
		s.ended = now
		for _, p := range s.parts {
			if p.domain.Holds(s.work.Class) {
				p.account.worked = now
			}
		}
		m.jobs = slices.DeleteFunc(m.jobs, func(j *Span) bool { return j == s })
		m.turn(now)
		m.conclude(s, answered, worked)
		if len(m.jobs) == 0 {
			m.now.after = s
		}
		m.schedule()
	})
}

// turn ends the phase and divides what was counted in it, and begins the next
// with the jobs as they now are. What passed since the last reading of a sensor
// is not known yet and will count for the next phase, so what a job took is
// final when it ends.
func (m *Meter) turn(now time.Time) {
	cpu := m.processors(now)
	m.now.close(now, m.cpuNow, cpu)
	for _, a := range m.accounts {
		if a.parent == nil {
			a.settle(m.now, math.MaxInt64)
		}
	}
	m.cpuNow, m.now = cpu, newPhase(now, m.jobs)
}

// schedule sets the timer: for the next tick while jobs run, for the end of the
// tail after the last of them, for that of the lull after it, and else not at all.
func (m *Meter) schedule() {
	switch {
	case m.closed || len(m.accounts) == 0:
	case len(m.jobs) > 0:
		m.timer.Reset(m.tick)
	case m.now.after != nil:
		m.timer.Reset(tailTime - time.Since(m.now.start))
	case m.watching:
		m.timer.Reset(lull)
	}
}

// ticked reads what is to be read, and ends a tail or a lull that is over. A tick
// may be late, and come when the job has ended that it was for.
func (m *Meter) ticked() {
	now := time.Now()
	m.mu.Lock()
	watching := m.watching
	m.mu.Unlock()
	m.update(context.Background(), m.due(now, watching), func(now time.Time) {
		switch {
		case m.now.after != nil && now.Sub(m.now.start) >= tailTime:
			m.turn(now)
			m.watching = true
		case watching && m.watching:
			m.turn(now)
			m.watching = false
		}
		m.schedule()
	})
}

// dueFor returns the accounts to read for an event of a job on such a device:
// those that see it, and those that see any other job under way, whose phase
// ends as well.
func (m *Meter) dueFor(c power.DeviceClass) []*account {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	var list []*account
	for _, a := range m.accounts {
		if (a.concerns(c) || a.wanted(m.jobs)) && a.stale(now, m.fresh) {
			list = append(list, a)
		}
	}
	return list
}

// due returns the accounts to read when no job has an event: those that see a
// job under way or its tail, or all that disturb nothing.
func (m *Meter) due(now time.Time, all bool) []*account {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*account
	for _, a := range m.accounts {
		if (a.wanted(m.jobs) || a.trails(m.now) || all && !sleeps(a.domain)) && a.stale(now, m.fresh) {
			list = append(list, a)
		}
	}
	return list
}

// update reads the sensors of those accounts, which may take a while, and then
// takes in what they say and does what is to be done at that moment.
func (m *Meter) update(ctx context.Context, due []*account, then func(now time.Time)) {
	var before slept
	if len(due) > 0 {
		before = slept{m.suspended(), time.Now()}
	}
	looks, read := make([]look, 0, 4), make([]*source, 0, 4)
	for _, a := range due {
		a.sensor.hold()
		looks, read = append(looks, a.read(ctx)), append(read, a.sensor)
	}
	m.mu.Lock()
	if len(looks) > 0 {
		m.slept = m.slept.or(before)
		after := m.suspended()
		for _, l := range looks {
			if slices.Contains(m.accounts, l.account) { // else others were adopted meanwhile
				l.account.take(l, m.slept, after, m.now)
			}
		}
	}
	sensors := m.sensors // they may be replaced now
	then(time.Now())
	for _, s := range read { // a job that begins is among the jobs now
		s.release()
	}
	tails, idle := m.tails(), m.idle(sensors, read)
	m.mu.Unlock()
	rest(idle)
	for _, t := range tails {
		m.tail(t)
	}
}

// Tail is what a job has made its devices take after its end.
type Tail struct {
	Work Work
	// Energy is all of it, and More what of that was not told before.
	Energy, More power.Energy
}

// tails returns those that have become known.
func (m *Meter) tails() (all []Tail) {
	for _, list := range [...][]*account{m.accounts, m.gone} {
		for _, a := range list {
			for _, s := range a.tails {
				if more := s.tailSoFar - s.tailTold; more > 0 { // else another account has it told
					all = append(all, Tail{s.work, s.tailSoFar, more})
					s.tailTold = s.tailSoFar
				}
			}
			a.tails = nil
		}
	}
	return all
}

// Whole reads what may be read at any time, and returns all that was ever
// counted, to compare with what a battery gave, and how often a counter failed
// to tell.
func (m *Meter) Whole(ctx context.Context) (sum power.Energy, gaps int) {
	m.update(ctx, m.due(time.Now(), true), func(time.Time) {
		sum, gaps = m.counted()
	})
	return sum, gaps
}

// Balance is how the energy of a domain was divided since the meter began.
// Jobs + Background + Idle = Counted.
type Balance struct {
	Domain                          power.Domain
	Counted, Jobs, Background, Idle power.Energy
	// IdleDraw is what the domain draws without jobs, if that is known.
	IdleDraw power.Power
}

// Balances returns the balance of every domain.
func (m *Meter) Balances() []Balance {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Balance, 0, len(m.accounts))
	for _, a := range slices.Concat(m.accounts, m.gone) {
		b := a.balance
		b.Domain = a.domain
		b.IdleDraw, _, _ = a.idleDraw()
		list = append(list, b)
	}
	return list
}
