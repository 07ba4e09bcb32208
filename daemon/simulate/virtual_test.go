package simulate_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/simulate"
	"github.com/joulemux/joulemux/power"
)

// TestTheDaemonDecidesAsTheSimulatorDoes runs the same traces through both: the
// daemon's own parts below its front-ends, over servers in memory that take as
// long as the simulated devices, and the simulation of that. Job by job, both
// begin the same at the same time on the same device, keep the model as long,
// and let go of it at the same time.
func TestTheDaemonDecidesAsTheSimulatorDoes(t *testing.T) {
	const halfHour = 30 * time.Minute
	var seen tally
	for _, c := range []struct {
		what     string
		workload simulate.Workload
		people   uint64 // at the one machine
		figures  simulate.Figures
	}{
		{"on battery", powered(halfHour, simulate.NeverOnLine, 1), 1, simulate.FiguresKnown},
		{"on battery, of a machine that is new", powered(halfHour, simulate.NeverOnLine, 1), 1, simulate.FiguresLearned},
		{"on line power", powered(halfHour, simulate.AlwaysOnLine, 1), 1, simulate.FiguresKnown},
		{"while the battery gets low", powered(halfHour, simulate.NeverOnLine, 0.22), 1, simulate.FiguresKnown},
		{"while line power comes and goes", powered(halfHour, simulate.FlipsLine, 0.21), 1, simulate.FiguresKnown},
		{"of many on battery", powered(halfHour, simulate.NeverOnLine, 0.6), 8, simulate.FiguresKnown},
		{"of many while line power comes and goes", powered(time.Hour, simulate.FlipsLine, 0.2), 8, simulate.FiguresKnown},
		{"of many, of a machine that is new", powered(time.Hour, simulate.FlipsLine, 0.3), 8, simulate.FiguresLearned},
	} {
		for seed := range uint64(10) {
			trace := crowded(seed, c.people, c.workload)
			o := simulate.DefaultOptions()
			o.Figures, o.Timeline = c.figures, true
			t.Run(fmt.Sprintf("%s/seed=%d", c.what, seed), func(t *testing.T) { sameDecisions(t, &trace, &o, &seen) })
		}
	}
	if t.Log(seen.String()); seen.waited == 0 || seen.loaded == 0 || seen.unloads == 0 || seen.lost == 0 || seen.changes == 0 {
		t.Errorf("some of it never came to pass")
	}
}

// tally counts what has come to pass in the traces.
type tally struct{ jobs, waited, loaded, lost, unloads, changes int }

func (n *tally) add(r *simulate.Result, d *diary) {
	n.jobs += len(r.Jobs)
	n.changes += r.TierChanges
	for i := range r.Jobs {
		j := &r.Jobs[i]
		switch {
		case j.Fate != simulate.Answered:
			n.lost++
		case j.Started > j.Arrived:
			n.waited++
		}
		if j.Loaded {
			n.loaded++
		}
	}
	for _, e := range d.list {
		if strings.HasSuffix(e.says, "lets go") {
			n.unloads++
		}
	}
}

func (n *tally) String() string {
	return fmt.Sprintf("%d jobs, of which %d waited, %d had the model loaded and %d were not answered; models were let go of %d times, and tiers changed %d times",
		n.jobs, n.waited, n.loaded, n.lost, n.unloads, n.changes)
}

// powered is the default workload for a time on a machine that is powered so.
func powered(length time.Duration, line simulate.LinePower, charge float64) simulate.Workload {
	w := simulate.DefaultWorkload()
	w.Length, w.Line, w.Charge = length, line, charge
	return w
}

// crowded is a trace of several people at one machine.
func crowded(seed, people uint64, w simulate.Workload) simulate.Trace {
	trace := simulate.Generate(seed, w)
	for i := range people - 1 {
		more := simulate.Generate(1000*(i+1)+seed, w)
		trace.Requests = append(trace.Requests, more.Requests...)
	}
	trace.Requests = slices.DeleteFunc(trace.Requests, func(r simulate.Request) bool {
		return r.At >= trace.Suspend && r.At < trace.Suspend+trace.SuspendedFor
	})
	slices.SortFunc(trace.Requests, func(a, b simulate.Request) int { return cmp.Compare(a.At, b.At) })
	return trace
}

// sameDecisions runs a trace through both, and compares what became of it.
func sameDecisions(t *testing.T, trace *simulate.Trace, o *simulate.Options, seen *tally) {
	t.Helper()
	m, err := simulate.Named("hybrid")
	if err != nil {
		t.Fatal(err)
	}
	var told diary
	simulated, err := simulate.Run(&m, trace, witnessed(simulate.Joulemux(), &told), o)
	if err != nil {
		t.Fatal(err)
	}
	seen.add(&simulated, &told)
	var really *laptop
	synctest.Test(t, func(t *testing.T) {
		really = newLaptop(t, &m, o)
		really.live(t, trace, &simulated)
	})
	for i := range simulated.Jobs {
		if want, got := outcome(&simulated.Jobs[i]), outcome(&really.jobs[i]); got != want {
			t.Errorf("the daemon's job is\n  %s\nand the simulator's\n  %s", got, want)
		}
	}
	got, want := really.diary.entries(), told.entries()
	says(t, "daemon", got, want)
	says(t, "simulator", want, got)
	for i, s := range really.servers {
		if d := simulated.Devices[i]; s.loads != d.Loads || s.needed != d.Needed || s.resident() != d.Resident {
			t.Errorf("%s was loaded %d times, needed for %v and resident for %v, in the simulation %d times, for %v and for %v",
				d.ID, s.loads, s.needed, s.resident(), d.Loads, d.Needed, d.Resident)
		}
	}
}

// says fails for what only one of them has told servers.
func says(t *testing.T, who string, list, other []string) {
	t.Helper()
	for _, e := range list {
		if !slices.Contains(other, e) {
			t.Errorf("only the %s: %s", who, e)
		}
	}
}

// outcome is what became of a job in short.
func outcome(j *simulate.Job) string {
	if j.Fate != simulate.Answered {
		return fmt.Sprintf("%s %s", j.ID, j.Fate)
	}
	return fmt.Sprintf("%s on %s, decided on %v, loaded %v, arrived %v, started %v, first token %v, ended %v",
		j.ID, j.Backend, j.Tier, j.Loaded, j.Arrived, j.Started, j.FirstToken, j.Ended)
}

// diary is what servers are told, and when.
type diary struct {
	mu   sync.Mutex
	list []entry
}

type entry struct {
	at   time.Duration
	says string
}

func (d *diary) starts(at time.Duration, id, device string, keep *time.Duration) {
	stays := "as long as the server likes"
	if keep != nil {
		stays = keep.String()
	}
	d.note(at, "%s begins on %s, whose model stays %s", id, device, stays)
}

func (d *diary) unloads(at time.Duration, device string) { d.note(at, "%s lets go", device) }

func (d *diary) note(at time.Duration, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, entry{at, fmt.Sprintf(format, args...)})
}

// entries are in the order of time. What happens at the same time on several
// devices is in no order.
func (d *diary) entries() (list []string) {
	for _, e := range d.list {
		list = append(list, fmt.Sprintf("%15.9f %s", e.at.Seconds(), e.says))
	}
	slices.Sort(list)
	return list
}

// witness writes down what a scheduler has servers told.
type witness struct {
	simulate.Scheduler
	diary *diary
	epoch time.Time
}

func witnessed(p simulate.Policy, d *diary) simulate.Policy {
	inner := p.New
	p.New = func(m *simulate.Machine, o *simulate.Options) simulate.Scheduler {
		return &witness{Scheduler: inner(m, o), diary: d}
	}
	return p
}

func (w *witness) write(now time.Time, effects []plan.Effect) []plan.Effect {
	for _, e := range effects {
		switch e.Kind {
		case plan.Start:
			w.diary.starts(now.Sub(w.epoch), e.ID, e.Backend, e.KeepAlive)
		case plan.Unload:
			w.diary.unloads(now.Sub(w.epoch), e.Backend)
		case plan.Reconsider:
		}
	}
	return effects
}

func (w *witness) Place(now time.Time, ask *plan.Ask) (plan.Placement, error) {
	p, err := w.Scheduler.Place(now, ask)
	if p.Started {
		w.diary.starts(now.Sub(w.epoch), ask.Job.ID, p.Decision.Backend, p.KeepAlive)
	}
	w.write(now, p.Effects)
	return p, err
}

func (w *witness) Ended(now time.Time, id string, o plan.Outcome) []plan.Effect {
	return w.write(now, w.Scheduler.Ended(now, id, o))
}

func (w *witness) Tier(now time.Time, tier power.Tier, onBattery bool) []plan.Effect {
	if w.epoch.IsZero() { // told at the begin, before all else
		w.epoch = now
	}
	return w.write(now, w.Scheduler.Tier(now, tier, onBattery))
}

func (w *witness) Tick(now time.Time) []plan.Effect { return w.write(now, w.Scheduler.Tick(now)) }
