// Package pull fetches models: each once at a time, whoever asks for it, and
// when the rules let it.
//
// It tells a backend to fetch, follows what that says, tries again after a cut
// and goes on from there, since backends keep what they have; and it waits while
// the machine is on battery or pays for what it transfers. How a backend is told
// is its Source's, and which one it should be is whoever's who asks.
package pull

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/latest"
)

// Order is a model to fetch.
type Order struct {
	// Backend is the id of the one to fetch it.
	Backend string
	Model   string
	// Insecure permits a registry without TLS.
	Insecure bool
	// Anyway is whatever the rules say.
	Anyway bool
	// ByClient tells that it is not the user who asks, but any program, be it by
	// a job.
	ByClient bool
}

// same reports whether one pull will do for both.
func (o Order) same(p Order) bool {
	return o.Backend == p.Backend && o.Insecure == p.Insecure && job.SameModel(o.Model, p.Model)
}

// Source has backends fetch models.
type Source interface {
	// Pull calls each with what the backend says of its work, and returns when
	// the model is there or ctx is done. Any other error is the backend's own
	// word, unless it is ErrCut: then nobody knows what became of it.
	Pull(ctx context.Context, o Order, each func(Step)) error
}

// Conditions are those of the machine.
type Conditions struct {
	OnBattery bool
	Network   Network
}

// Network is whether somebody pays for what is transferred.
type Network string

// The networks. Of one that nobody knows it is taken that nobody pays.
const (
	Unmetered Network = "unmetered"
	Metered   Network = "metered"
	Unknown   Network = "unknown"
)

// Rules say under which conditions models are fetched.
type Rules struct {
	OnBattery, OnMetered bool
	// Registries are hosts that any client may have models fetched from, beside
	// Ollama's own registry.
	Registries []string
}

// permits returns why a client may not have that fetched, if it may not. To have a
// server of this machine connect to any other is to reach where a page or a sandbox
// cannot.
func (r Rules) permits(o Order) error {
	host := job.Registry(o.Model)
	switch {
	case !o.ByClient:
	case o.Anyway:
		return &job.Error{Code: job.Forbidden, Field: "anyway", Detail: "that is for the user to say, as by joulemux pull --anyway"}
	case o.Insecure:
		return &job.Error{Code: job.Forbidden, Field: "insecure", Detail: "that is for the user to say, as by joulemux pull --insecure"}
	case host != "" && !slices.Contains(r.Registries, host):
		return &job.Error{Code: job.Forbidden, Field: "model", Detail: fmt.Sprintf("%q is none of models.pull.registries in the configuration; the user's own \"joulemux pull\" fetches from any", host)}
	}
	return nil
}

// Forbids returns why nothing is fetched under some conditions, or "".
func (r Rules) Forbids(c Conditions) string {
	switch {
	case c.OnBattery && !r.OnBattery:
		return "the machine is on battery"
	case c.Network == Metered && !r.OnMetered:
		return "the network connection is metered"
	default:
		return ""
	}
}

// Parts is what pulls stand on.
type Parts struct {
	Source Source
	// Conditions yields those of the machine, and again whenever they change.
	Conditions func(context.Context) iter.Seq[Conditions]
	Log        *slog.Logger
}

// Puller fetches models. Make one with New, and Run it.
type Puller struct {
	Parts
	rules latest.Value[Rules]
	all   latest.Value[[]Progress]

	requests chan func(*pulls)
	news     chan struct{} // holds one: some pull has got on
	closed   chan struct{}
}

// pulls are those under way, which Run owns.
type pulls struct {
	list  []*task
	begin func(*task)
}

// New returns a puller with those rules.
func New(p Parts, r Rules) *Puller {
	all := &Puller{Parts: p, requests: make(chan func(*pulls)), news: make(chan struct{}, 1), closed: make(chan struct{})}
	all.rules.Publish(r)
	return all
}

// Configure replaces the rules, for pulls under way too. Calls must not overlap.
func (p *Puller) Configure(r Rules) {
	if !reflect.DeepEqual(r, p.rules.Current()) {
		p.rules.Publish(r)
	}
}

// Watch yields how all pulls are getting on, and then each change of that.
func (p *Puller) Watch(ctx context.Context) iter.Seq[[]Progress] { return p.all.Watch(ctx) }

// Current returns how all pulls are getting on.
func (p *Puller) Current() []Progress { return p.all.Current() }

// Run runs pulls until ctx is done; those under way end then, with the code
// Stopping.
func (p *Puller) Run(ctx context.Context) error {
	base, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	state := &pulls{begin: func(t *task) {
		ctx, cancel := context.WithCancelCause(base)
		t.cancel = cancel
		running.Go(func() {
			defer cancel(nil)
			t.run(ctx, p)
		})
	}}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case f := <-p.requests:
			f(state)
		case <-p.news:
		}
		state.list = slices.DeleteFunc(state.list, func(t *task) bool { return t.now.Current().Ended() })
		p.publish(state.list)
	}
	close(p.closed)
	stop(job.Errorf(job.Stopping, ""))
	running.Wait()
	return ctx.Err()
}

func (p *Puller) publish(list []*task) {
	if len(list) == 0 && len(p.all.Current()) == 0 {
		return
	}
	all := make([]Progress, len(list))
	for i, t := range list {
		all[i] = t.now.Current()
	}
	p.all.Publish(all)
}

// do runs f where the pulls are owned.
func (p *Puller) do(f func(*pulls)) error {
	done := make(chan struct{})
	select {
	case p.requests <- func(s *pulls) { defer close(done); f(s) }:
		<-done
		return nil
	case <-p.closed:
		return job.Errorf(job.Stopping, "")
	}
}

// told has Run look at how the pulls are getting on.
func (p *Puller) told() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// Pull fetches a model, or joins whoever fetches it already, and calls each with
// how that gets on. It returns when the model is there, or with why it is not: a
// *job.Error, or what each returned.
//
// When ctx ends, or each fails, the caller waits no longer; when nobody does, the
// pull ends. What has come is kept by the backend.
func (p *Puller) Pull(ctx context.Context, o Order, each func(Progress) error) error {
	var t *task
	err := p.rules.Current().permits(o)
	if err == nil {
		err = p.do(func(s *pulls) { t = s.join(o) })
	}
	if err != nil {
		return err
	}
	defer func() { _ = p.do(func(*pulls) { t.leave() }) }() // fails once all have ended
	for now := range t.now.Watch(ctx) {
		if err := each(now); err != nil {
			return err
		}
		if now.Err != nil {
			return now.Err
		}
		if now.Ended() {
			return nil
		}
	}
	return context.Cause(ctx)
}

// Cancel ends all pulls of a model, and reports whether there were any.
func (p *Puller) Cancel(model string) (any bool) {
	_ = p.do(func(s *pulls) { // fails when all end
		for _, t := range s.list {
			if job.SameModel(t.order.Model, model) && !t.now.Current().Ended() {
				any = true
				t.given = true
				t.cancel(job.Errorf(job.Cancelled, "by a user"))
			}
		}
	})
	return any
}

// join returns the pull of a model, which begins unless it is under way.
func (s *pulls) join(o Order) *task {
	i := slices.IndexFunc(s.list, func(t *task) bool { return t.order.same(o) && !t.given && !t.now.Current().Ended() })
	if i < 0 {
		t := newTask(o)
		s.list = append(s.list, t)
		i = len(s.list) - 1
		s.begin(t)
	}
	t := s.list[i]
	t.waiting++
	if o.Anyway && t.anyway.CompareAndSwap(false, true) {
		t.nudge()
	}
	return t
}

// leave ends a pull that nobody waits for any more.
func (t *task) leave() {
	if t.waiting--; t.waiting == 0 {
		t.given = true
		t.cancel(job.Errorf(job.Cancelled, "nobody waits for it any more"))
	}
}

// task is a pull under way.
type task struct {
	order  Order
	now    latest.Value[Progress]
	anyway atomic.Bool
	urged  chan struct{} // holds one: anyway has been set

	// These are of whoever owns the pulls: how to end it, how many wait, and that
	// it was given up, so that none may join.
	cancel  context.CancelCauseFunc
	waiting int
	given   bool
}

func newTask(o Order) *task {
	t := &task{order: o, urged: make(chan struct{}, 1)}
	t.anyway.Store(o.Anyway)
	t.now.Publish(Progress{Order: o, State: Starting})
	return t
}

func (t *task) nudge() {
	select {
	case t.urged <- struct{}{}:
	default:
	}
}
