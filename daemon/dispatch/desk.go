package dispatch

import (
	"context"
	"log/slog"
	"slices"
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
	turns map[string]*run // by job
	timer *time.Timer
	watch *watch // nil while the tier makes no difference
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
	defer func() { k.watch.stop() }()
	defer close(k.closed)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case request := <-k.requests:
			d.recall(ctx, time.Now())
			request(ctx, time.Now())
		case <-k.timer.C:
			if k.watch != nil && !k.reported {
				d.look(ctx)
			}
			d.carryOut(ctx, k.plan.Tick(time.Now()))
		case <-k.watch.changed():
			d.look(ctx)
		}
		k.settle(ctx, d.Tiers)
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

// settle watches the tier while that makes a difference, and sets the timer.
func (k *desk) settle(ctx context.Context, tiers Tiers) {
	next := k.plan.Next()
	switch watching := k.plan.Watching(); {
	case !watching:
		k.watch.stop()
		k.watch = nil
	case k.watch == nil:
		k.watch = watchTier(ctx, tiers)
	case !k.reported:
		if look := time.Now().Add(lookAgain); next.IsZero() || look.Before(next) {
			next = look
		}
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
		return job.Errorf(job.Stopping, "")
	}
}

// carryOut does what the plan asks for. Its context is Drive's.
func (d *Dispatcher) carryOut(ctx context.Context, effects []plan.Effect) {
	for _, e := range effects {
		if e.Kind == plan.Unload {
			d.unload(ctx, e.Backend, e.Model)
			continue
		}
		select {
		case d.desk.turns[e.ID].turn <- e:
		default: // it has yet to place itself again, and will find out then
		}
	}
}

// place asks the plan where the job runs.
func (r *run) place(j job.Job, candidates []job.Candidate) (p plan.Placement, err error) {
	ask := plan.Ask{Job: j, Candidates: candidates, Tier: r.now.Tier, OnBattery: r.now.Supply.Discharging}
	gone := r.desk.do(func(ctx context.Context, now time.Time) {
		p, err = r.desk.plan.Place(now, &ask)
		if err == nil {
			r.desk.turns[j.ID] = r
		} else {
			delete(r.desk.turns, j.ID)
		}
		r.carryOut(ctx, p.Effects)
	})
	if gone != nil {
		return p, gone
	}
	return p, err
}

// ended tells the plan that the job has no place there any more.
func (r *run) ended(o plan.Outcome) {
	_ = r.desk.do(func(ctx context.Context, now time.Time) { // fails if nobody is there to care
		delete(r.desk.turns, r.job.ID)
		r.carryOut(ctx, r.desk.plan.Ended(now, r.job.ID, o))
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

// watch tells when the tier changes. The nil watch sees nothing.
type watch struct {
	events chan struct{}
	cancel context.CancelFunc
	ended  chan struct{}
}

func watchTier(ctx context.Context, tiers Tiers) *watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{events: make(chan struct{}, 1), cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		var last tracker.Snapshot
		for s := range tiers.Watch(ctx) {
			if s.Tier == last.Tier && s.Supply.Discharging == last.Supply.Discharging && s.Reported == last.Reported {
				continue
			}
			last = s
			select {
			case w.events <- struct{}{}:
			default:
			}
		}
	}()
	return w
}

func (w *watch) changed() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.events
}

func (w *watch) stop() {
	if w != nil {
		w.cancel()
		<-w.ended
	}
}
