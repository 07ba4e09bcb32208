package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power/tracker"
)

// desk is where jobs hear whose turn it is. A job that need not wait passes it
// without waking anybody: were the plan a goroutine's, each would wake it twice,
// which takes as much as a tenth of all that a job takes here.
type desk struct {
	closed chan struct{}
	errand chan struct{} // holds one: Drive is to see what errands there are

	mu    sync.Mutex // guards the following
	shut  bool
	plan  *plan.Plan
	turns map[string]*run // by seat
	letGo []plan.Effect
	held  *holder   // to be measured, until Drive knows
	asked time.Time // when somebody first did, likewise
	// spoil ends the measurement that is under way, if one is.
	spoil context.CancelFunc
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
		closed: make(chan struct{}), errand: make(chan struct{}, 1),
		plan: plan.New(s.plan()), turns: make(map[string]*run), timer: timer,
	}
}

// Drive says whose turn it is until ctx is done. No job runs after that.
func (d *Dispatcher) Drive(ctx context.Context) error {
	k := d.desk
	defer d.errands.Wait()
	defer k.close()
	changed := d.watchTier(ctx)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.timer.C:
			_ = k.do(func(now time.Time) { // it closes only here
				if k.mustLook() {
					k.look(ctx, d.Tiers)
				}
				k.carryOut(k.plan.Tick(now))
			})
		case <-changed:
			_ = k.do(func(time.Time) { k.look(ctx, d.Tiers) })
		case <-k.errand:
			letGo, held, asked := k.errands()
			for _, e := range letGo {
				d.unload(ctx, e.Backend, e.Model)
			}
			d.measureHeld(ctx, held)
			d.recall(ctx, asked)
		}
	}
}

// close has jobs end that wait, and none come.
func (k *desk) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.shut = true
	k.timer.Stop()
	close(k.closed)
}

// errands returns what is to be let go of, what is to be measured, and when
// somebody first asked if that is news.
func (k *desk) errands() (letGo []plan.Effect, held *holder, asked time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	letGo, held, asked = k.letGo, k.held, k.asked
	k.letGo, k.held, k.asked = nil, nil, time.Time{}
	return letGo, held, asked
}

// mostRecalled is how many answers of earlier days the plan learns from: enough
// for all that one asker is judged by, of some askers.
const mostRecalled = 500

// recall has the plan learn from answers that the ledger has. Whoever asks first
// does not wait for it, as the file has yet to be opened. Answers since then are
// learned from when they end.
func (d *Dispatcher) recall(ctx context.Context, asked time.Time) {
	if asked.IsZero() || !d.settings.Current().Learn {
		return
	}
	d.errands.Go(func() {
		answers, err := d.Ledger.Answers(ctx, mostRecalled)
		if err != nil {
			return // the daemon ends
		}
		earlier := slices.DeleteFunc(answers, func(e ledger.Entry) bool { return !e.Ended.Before(asked) })
		_ = d.desk.do(func(time.Time) { d.desk.plan.Recall(earlier) }) // fails then, too
	})
}

// look tells the plan the tier.
func (k *desk) look(ctx context.Context, tiers Tiers) {
	now := tiers.Look(ctx)
	k.reported = now.Reported
	k.carryOut(k.plan.Tier(time.Now(), now.Tier, now.Supply.Discharging))
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

// do runs f with the desk to itself. It fails when the desk is closed.
func (k *desk) do(f func(now time.Time)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.shut {
		return errClosed()
	}
	f(time.Now())
	k.settle()
	return nil
}

// ask takes note that somebody asks of the plan: it had better know then what
// earlier answers tell.
func (k *desk) ask(now time.Time) {
	if !k.recalled {
		k.recalled, k.asked = true, now
		k.call()
	}
}

// call has Drive see what errands there are.
func (k *desk) call() {
	select {
	case k.errand <- struct{}{}:
	default: // they will be found with the one before
	}
}

// errClosed is what jobs get where nobody says whose turn it is.
func errClosed() error { return job.Errorf(job.Stopping, "") }

// carryOut does what the plan asks for.
func (k *desk) carryOut(effects []plan.Effect) {
	for _, e := range effects {
		switch e.Kind {
		case plan.Unload:
			k.letGo = append(k.letGo, e)
			k.call()
			if k.spoil != nil { // whatever it is of
				k.spoil()
			}
		case plan.Start:
			k.placed(e.ID)
			k.tell(e)
		case plan.Reconsider:
			if k.again = append(k.again, e.ID); len(k.again) == 1 {
				k.tellNext()
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
func (r *run) place(ctx context.Context, j job.Job, candidates []job.Candidate) (p plan.Placement, err error) {
	k := r.desk
	gone := k.do(func(now time.Time) {
		k.ask(now)
		j.ID = k.seat(r)
		ask := plan.Ask{Job: j, Candidates: candidates, Tier: r.now.Tier, OnBattery: r.now.Supply.Discharging}
		p, err = k.plan.Place(now, &ask)
		if err != nil {
			k.rise(r)
		}
		k.carryOut(p.Effects)
		k.placed(j.ID)
		if k.reported { // it may have changed since the job has looked
			k.look(ctx, r.Tiers)
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
	k := r.desk
	_ = k.do(func(now time.Time) { // fails if nobody is there to care
		seat := k.rise(r)
		k.carryOut(k.plan.Ended(now, seat, o))
		k.placed(seat)
	})
}

// weigh asks the plan where a job would go.
func (d *Dispatcher) weigh(ask plan.Ask) (found route.Decision, err error) {
	gone := d.desk.do(func(now time.Time) {
		d.desk.ask(now)
		found, err = d.desk.plan.Weigh(now, &ask)
	})
	if gone != nil {
		return found, gone
	}
	return found, err
}

// unloadPatience is how long a server may take to let go of a model.
const unloadPatience = 10 * time.Second

// unload has a backend let go of a model, if it can.
func (d *Dispatcher) unload(ctx context.Context, id, model string) {
	b := d.Backends.Current().Find(id)
	if b == nil {
		return
	}
	unloader, able := b.Server().(backend.Unloader)
	if !able {
		return
	}
	d.errands.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, unloadPatience)
		defer cancel()
		err := unloader.Unload(ctx, model)
		if errors.Is(err, errors.ErrUnsupported) {
			return // as it turned out to be when it was asked what it is
		}
		if err != nil {
			d.Log.LogAttrs(ctx, slog.LevelWarn, "backend keeps a model that it was asked to let go of",
				slog.String("backend", id), slog.String("model", model), slog.Any("err", err))
			return
		}
		d.Backends.Unloaded(id, model)
		d.Observer.Unloaded(id)
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
