package pull

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// ErrCut says that a pull broke off, without the backend's saying why.
var ErrCut = errors.New("the pull broke off")

// A pull that was cut is tried again after these times, the first doubling up to
// the last, until so many in a row have got nowhere.
const (
	firstWait = time.Second
	lastWait  = time.Minute
	mostTries = 6
)

// attempts is a task with what it knows while it runs.
type attempts struct {
	*task
	*Puller
	tally
	progress Progress
	shown    time.Time
	tries    int // in a row that got nowhere

	conditions <-chan Conditions
	rules      <-chan Rules
	// why is why the rules do not let it go on, or "".
	why       string
	condition Conditions
	rule      Rules
}

// run runs a pull to its end.
func (t *task) run(ctx context.Context, p *Puller) {
	a := &attempts{task: t, Puller: p, progress: t.now.Current()}
	following, stop := context.WithCancel(ctx)
	var followed sync.WaitGroup
	a.conditions = follow(following, &followed, p.Conditions(following))
	a.rules = follow(following, &followed, p.rules.Watch(following))
	err := a.untilThere(ctx)
	stop()
	followed.Wait()
	a.end(ctx, err)
}

// follow hands over what is yielded, for a select. A slow reader is waited for.
func follow[T any](ctx context.Context, followed *sync.WaitGroup, all iter.Seq[T]) <-chan T {
	c := make(chan T)
	followed.Go(func() {
		for v := range all {
			select {
			case c <- v:
			case <-ctx.Done():
				return
			}
		}
	})
	return c
}

// errPaused ends an attempt that the rules do not let go on.
var errPaused = errors.New("the pull is paused")

// untilThere returns nil when the model is there.
func (a *attempts) untilThere(ctx context.Context) error {
	err := a.begin(ctx)
	for err == nil {
		err = a.attempt(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errPaused):
			err = a.untilAllowed(ctx)
		case a.worthAnother(err):
			err = a.afterCut(ctx, err)
		}
	}
	return err
}

// begin learns what the conditions are, and refuses what they forbid: whoever
// asks now had better hear it now.
func (a *attempts) begin(ctx context.Context) error {
	for conditions, rules := a.conditions, a.rules; conditions != nil || rules != nil; {
		select {
		case a.condition = <-conditions:
			conditions = nil
		case a.rule = <-rules:
			rules = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if a.judge(); a.why != "" {
		return &job.Error{Code: job.PowerPolicy, Detail: a.why + ", and no model is fetched then unless it is told to be fetched anyway"}
	}
	return nil
}

// judge finds out whether the rules let the pull go on.
func (a *attempts) judge() {
	a.why = ""
	if !a.anyway.Load() {
		a.why = a.rule.Forbids(a.condition)
	}
}

// attempt has the backend fetch the model once, and cuts it off if the rules do
// not let it go on.
func (a *attempts) attempt(ctx context.Context) error {
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	a.tally.attempt()
	a.show(Pulling, "")
	steps := make(chan Step)
	ended := make(chan error, 1)
	go func() {
		// Each step is waited for, after a cut too: the model may be there all the same.
		ended <- a.Source.Pull(ctx, a.order, func(s Step) { steps <- s })
	}()
	for paused := false; ; {
		select {
		case s := <-steps:
			a.step(s)
		case err := <-ended:
			if paused && err != nil {
				return errPaused
			}
			return err
		case a.condition = <-a.conditions:
		case a.rule = <-a.rules:
		case <-a.urged:
		}
		if a.judge(); a.why != "" && !paused {
			paused = true
			a.Log.LogAttrs(ctx, slog.LevelInfo, "pull is paused", a.attributes(), slog.String("reason", a.why))
			a.show(Paused, a.why)
			cut()
		}
	}
}

// step takes in what the backend says.
func (a *attempts) step(s Step) {
	now := time.Now()
	a.tally.add(now, s)
	before := a.progress.Step
	a.progress.Step = s
	if a.fetched > 0 {
		a.progress.Note = ""
	}
	if s.Status != before.Status || s.Digest != before.Digest || now.Sub(a.shown) >= often {
		a.show(a.progress.State, a.progress.Note)
	}
}

// show makes the progress visible.
func (a *attempts) show(s State, note string) {
	a.progress.State, a.progress.Note, a.progress.Network = s, note, a.condition.Network
	a.tally.into(&a.progress)
	if s != Pulling {
		a.progress.Rate, a.progress.Left = 0, 0
	}
	a.shown = time.Now()
	a.now.Publish(a.progress)
	a.told()
}

// untilAllowed waits until the rules let the pull go on.
func (a *attempts) untilAllowed(ctx context.Context) error {
	for a.why != "" {
		if a.progress.State != Paused || a.progress.Note != a.why {
			a.show(Paused, a.why)
		}
		if _, err := a.hear(ctx, nil); err != nil {
			return err
		}
	}
	a.Log.LogAttrs(ctx, slog.LevelInfo, "pull goes on", a.attributes())
	return nil
}

// hear takes in what is news about whether the pull may go on, or reports that
// the time is over before there is any.
func (a *attempts) hear(ctx context.Context, end <-chan time.Time) (over bool, err error) {
	select {
	case <-end:
		return true, nil
	case a.condition = <-a.conditions:
	case a.rule = <-a.rules:
	case <-a.urged:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	a.judge()
	return false, nil
}

// worthAnother reports whether another attempt may get further. What a backend
// says at once it would say again; what it says after some bytes may be of a
// network that has gone. Attempts that get somewhere do not count: of a large
// model a bad network may take many.
func (a *attempts) worthAnother(err error) bool {
	if a.fetched > 0 {
		a.tries = 0
	}
	a.tries++
	return a.tries < mostTries && (a.fetched > 0 || errors.Is(err, ErrCut))
}

// afterCut waits before the next attempt.
func (a *attempts) afterCut(ctx context.Context, err error) error {
	wait := min(firstWait<<(a.tries-1), lastWait)
	a.Log.LogAttrs(ctx, slog.LevelWarn, "pull was cut", a.attributes(), slog.Any("err", err), slog.Duration("retry_in", wait))
	a.show(Retrying, err.Error())
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		switch over, err := a.hear(ctx, timer.C); {
		case err != nil:
			return err
		case over:
			return a.untilAllowed(ctx)
		}
	}
}

// end shows how the pull ended.
func (a *attempts) end(ctx context.Context, err error) {
	if err == nil {
		a.Log.LogAttrs(ctx, slog.LevelInfo, "model is pulled", a.attributes(), slog.Int64("bytes", a.progress.Completed))
		a.show(Done, "")
		return
	}
	e := a.failure(err)
	a.progress.Err = e
	a.Log.LogAttrs(ctx, slog.LevelInfo, "pull failed", a.attributes(), slog.Any("err", e))
	a.show(Failed, e.Error())
}

// failure is why a pull failed, and how far it had come.
func (a *attempts) failure(err error) *job.Error {
	var e *job.Error
	switch {
	case !errors.As(err, &e) && errors.Is(err, context.Canceled):
		return job.Errorf(job.Cancelled, "the pull was given up")
	case !errors.As(err, &e):
		e = &job.Error{Code: job.BackendFailed, Detail: a.order.Backend, Err: err}
	}
	if e.Code != job.BackendFailed || a.progress.Total == 0 {
		return e
	}
	far := *e
	far.Detail = fmt.Sprintf("%s, at %.0f %% of %s", e.Detail, a.progress.Percent(), a.order.Model)
	return &far
}

func (a *attempts) attributes() slog.Attr {
	return slog.Group("pull", slog.String("model", a.order.Model), slog.String("backend", a.order.Backend))
}
