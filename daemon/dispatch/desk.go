package dispatch

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power/tracker"
)

// desk is where jobs hear whose turn it is. Its goroutine owns the plan, and
// sleeps while there is nothing to say.
type desk struct {
	requests chan func(ctx context.Context, now time.Time)
	closed   chan struct{}

	plan  *plan.Plan      // the following are the goroutine's
	turns map[string]*run // by seat
	// again are the jobs to be placed again, in their order: the first has been
	// told, and the next is when that is done. So those who came first have the
	// first choice.
	again []string
	timer *time.Timer
	// reported tells that somebody reports how the machine is powered.
	reported bool
	// recalled tells that the plan was given earlier answers, or will be.
	recalled bool
}

func newDesk(s *Settings) *desk {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &desk{
		requests: make(chan func(context.Context, time.Time)), closed: make(chan struct{}),
		plan: plan.New(s.plan()), turns: make(map[string]*run), timer: timer,
	}
}

// Drive says whose turn it is until ctx is done. Jobs run only meanwhile.
func (d *Dispatcher) Drive(ctx context.Context) error {
	k := d.desk
	defer d.errands.Wait()
	defer close(k.closed)
	changed := d.watchTier(ctx)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case request := <-k.requests:
			d.recall(ctx, time.Now())
			request(ctx, time.Now())
		case <-k.timer.C:
			if k.mustLook() {
				d.look(ctx)
			}
			d.carryOut(ctx, k.plan.Tick(time.Now()))
		case <-changed:
			d.look(ctx)
		}
		k.settle()
	}
}

// mostRecalled is how many answers of earlier days the plan learns from: enough
// for all that one asker is judged by, of some askers.
const mostRecalled = 500

// recall has the plan learn, once, from answers that the ledger has. Whoever
// asks first does not wait for it, as the file has yet to be opened. Answers
// since then are learned from when they end.
func (d *Dispatcher) recall(ctx context.Context, now time.Time) {
	if d.desk.recalled || !d.settings.Current().Learn {
		return
	}
	d.desk.recalled = true
	d.errands.Go(func() {
		answers, err := d.Ledger.Answers(ctx, mostRecalled)
		if err != nil {
			return // the daemon ends
		}
		earlier := slices.DeleteFunc(answers, func(e ledger.Entry) bool { return !e.Ended.Before(now) })
		_ = d.desk.do(func(context.Context, time.Time) { d.desk.plan.Recall(earlier) }) // fails then, too
	})
}

// look tells the plan the tier.
func (d *Dispatcher) look(ctx context.Context) {
	now := d.Tiers.Look(ctx)
	d.desk.reported = now.Reported
	d.carryOut(ctx, d.desk.plan.Tier(time.Now(), now.Tier, now.Supply.Discharging))
}

// lookAgain is how often is looked how the machine is powered while that makes
// a difference, where nobody reports it.
const lookAgain = time.Minute

// mustLook reports whether the tier makes a difference, and nobody reports it.
func (k *desk) mustLook() bool { return !k.reported && k.plan.Watching() }

// settle sets the timer.
func (k *desk) settle() {
	next := k.plan.Next()
	if look := time.Now().Add(lookAgain); k.mustLook() && (next.IsZero() || look.Before(next)) {
		next = look
	}
	if next.IsZero() {
		k.timer.Stop()
	} else {
		k.timer.Reset(time.Until(next))
	}
}

// do has the desk run f, and returns when it has. It fails when the desk is
// closed.
func (k *desk) do(f func(ctx context.Context, now time.Time)) error {
	done := make(chan struct{})
	request := func(ctx context.Context, now time.Time) {
		defer close(done)
		f(ctx, now)
	}
	select {
	case k.requests <- request:
		<-done
		return nil
	case <-k.closed:
		return errClosed()
	}
}

// errClosed is what jobs get where nobody says whose turn it is.
func errClosed() error { return job.Errorf(job.Stopping, "") }

// carryOut does what the plan asks for. Its context is Drive's.
func (d *Dispatcher) carryOut(ctx context.Context, effects []plan.Effect) {
	for _, e := range effects {
		switch e.Kind {
		case plan.Unload:
			d.unload(ctx, e.Backend, e.Model)
		case plan.Start:
			d.desk.placed(e.ID)
			d.desk.tell(e)
		case plan.Reconsider:
			if d.desk.again = append(d.desk.again, e.ID); len(d.desk.again) == 1 {
				d.desk.tellNext()
			}
		}
	}
}

// tell says to a job that waits what the plan has to say, and reports whether
// it will hear that: what has been told something yet will find out by itself.
func (k *desk) tell(e plan.Effect) bool {
	r := k.turns[e.ID]
	if r == nil {
		return false
	}
	select {
	case r.turn <- e:
		return true
	default:
		return false
	}
}

// tellNext has the first of those placed again that are to be.
func (k *desk) tellNext() {
	for len(k.again) > 0 && !k.tell(plan.Effect{Kind: plan.Reconsider, ID: k.again[0]}) {
		k.again = k.again[1:]
	}
}

// placed takes note that a job is not to be placed again any more: it has been,
// or is gone.
func (k *desk) placed(id string) {
	if len(k.again) == 0 {
		return
	}
	first := k.again[0] == id
	k.again = slices.DeleteFunc(k.again, func(other string) bool { return other == id })
	if first {
		k.tellNext()
	}
}

// place asks the plan where the job runs.
func (r *run) place(j job.Job, candidates []job.Candidate) (p plan.Placement, err error) {
	gone := r.desk.do(func(ctx context.Context, now time.Time) {
		j.ID = r.desk.seat(r)
		ask := plan.Ask{Job: j, Candidates: candidates, Tier: r.now.Tier, OnBattery: r.now.Supply.Discharging}
		p, err = r.desk.plan.Place(now, &ask)
		if err != nil {
			r.desk.rise(r)
		}
		r.carryOut(ctx, p.Effects)
		r.desk.placed(j.ID)
		if r.desk.reported { // it may have changed since the job has looked
			r.look(ctx)
		}
	})
	if gone != nil {
		return p, gone
	}
	return p, err
}

// seat returns the name of a job in the plan, which is its own unless another
// has it: clients name jobs, and may repeat a request before it has ended.
func (k *desk) seat(r *run) string {
	if r.seat == "" {
		r.seat = r.job.ID
		for n := 2; k.turns[r.seat] != nil; n++ {
			r.seat = r.job.ID + "." + strconv.Itoa(n)
		}
		k.turns[r.seat] = r
	}
	return r.seat
}

// rise ends that, and returns the name.
func (k *desk) rise(r *run) string {
	seat := r.seat
	delete(k.turns, seat)
	r.seat = ""
	return seat
}

// ended tells the plan that the job has no place there any more, if it has one.
func (r *run) ended(o plan.Outcome) {
	if r.seat == "" {
		return
	}
	_ = r.desk.do(func(ctx context.Context, now time.Time) { // fails if nobody is there to care
		seat := r.desk.rise(r)
		r.carryOut(ctx, r.desk.plan.Ended(now, seat, o))
		r.desk.placed(seat)
	})
}

// weigh asks the plan where a job would go.
func (d *Dispatcher) weigh(ask plan.Ask) (found route.Decision, err error) {
	if gone := d.desk.do(func(_ context.Context, now time.Time) { found, err = d.desk.plan.Weigh(now, &ask) }); gone != nil {
		return found, gone
	}
	return found, err
}

// unloadPatience is how long a server may take to let go of a model.
const unloadPatience = 10 * time.Second

// unload has a backend let go of a model, if it can.
func (d *Dispatcher) unload(ctx context.Context, id, model string) {
	b, found := d.Backends.Current().Find(id)
	if !found {
		return
	}
	unloader, able := b.Server().(backend.Unloader)
	if !able {
		return
	}
	d.errands.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, unloadPatience)
		defer cancel()
		if err := unloader.Unload(ctx, model); err != nil {
			d.Log.LogAttrs(ctx, slog.LevelWarn, "backend keeps a model that it was asked to let go of",
				slog.String("backend", id), slog.String("model", model), slog.Any("err", err))
			return
		}
		d.Backends.Unloaded(id, model)
	})
}

// watchTier tells when the tier changes, until ctx is done. Between changes it
// wakes only for what wakes whoever reports them.
func (d *Dispatcher) watchTier(ctx context.Context) <-chan struct{} {
	events := make(chan struct{}, 1)
	d.errands.Go(func() {
		var last tracker.Snapshot
		for s := range d.Tiers.Watch(ctx) {
			if s.Tier == last.Tier && s.Supply.Discharging == last.Supply.Discharging && s.Reported == last.Reported {
				continue
			}
			last = s
			select {
			case events <- struct{}{}:
			default:
			}
		}
	})
	return events
}
