package dbus

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/dbus/bus"
)

// requests are the jobs under way that came over one connection.
type requests struct {
	callers *bus.Callers
	most    int // of one caller

	mu      sync.Mutex // guards the following
	last    uint64
	running map[string]*request // by name
	stopped *job.Error
	jobs    sync.WaitGroup
}

// request is one of them.
type request struct {
	name   string // the last element of its path
	sender string
	cancel context.CancelCauseFunc
	end    func()
}

func newRequests(callers *bus.Callers, most int) *requests {
	return &requests{callers: callers, most: most, running: make(map[string]*request)}
}

// begin admits a job, and returns the context in which it is to run: it ends
// when the caller leaves the bus. The request has to be ended.
func (all *requests) begin(ctx context.Context, c bus.Call) (context.Context, *request, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	r := &request{sender: c.Sender, cancel: cancel}
	if err := all.enter(r); err != nil {
		cancel(nil)
		return nil, nil, err
	}
	c.Answered(all.jobs.Done)
	unwatch := all.callers.Watch(c.Conn, c.Sender, func() {
		cancel(job.Errorf(job.Cancelled, "the caller has left the bus"))
	})
	r.end = func() {
		unwatch()
		cancel(nil)
		all.leave(r)
	}
	return ctx, r, nil
}

func (all *requests) enter(r *request) error {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.stopped != nil {
		return all.stopped
	}
	same := 0
	for _, other := range all.running {
		if other.sender == r.sender {
			same++
		}
	}
	if same >= all.most {
		return bus.Errorf(bus.LimitsExceeded, "you have %d jobs under way already", same)
	}
	all.last++
	r.name = strconv.FormatUint(all.last, 10)
	all.running[r.name] = r
	all.jobs.Add(2) // It, and the call that asks for it.
	return nil
}

func (all *requests) leave(r *request) {
	all.mu.Lock()
	delete(all.running, r.name)
	all.mu.Unlock()
	all.jobs.Done()
}

// names lists the requests by name.
func (all *requests) names() []string {
	all.mu.Lock()
	defer all.mu.Unlock()
	list := make([]string, 0, len(all.running))
	for name := range all.running {
		list = append(list, name)
	}
	return list
}

// cancel is Request1.Cancel.
func (all *requests) cancel(_ context.Context, c bus.Call) error {
	all.mu.Lock()
	r, ok := all.running[string(c.Path[strings.LastIndexByte(string(c.Path), '/')+1:])]
	all.mu.Unlock()
	switch {
	case !ok:
		return bus.Errorf(bus.UnknownObject, "the job at %s has ended", c.Path)
	case r.sender != c.Sender:
		return bus.Errorf(bus.AccessDenied, "the job at %s is somebody else's", c.Path)
	}
	r.cancel(job.Errorf(job.Cancelled, "by its caller"))
	return nil
}

// stop ends every job, admits no more, and returns when the last has ended and
// its call is answered.
func (all *requests) stop(why *job.Error) {
	all.mu.Lock()
	all.stopped = why
	for _, r := range all.running {
		r.cancel(why)
	}
	all.mu.Unlock()
	all.jobs.Wait()
}

// reason returns why a job ended that ended with err: if it was us who ended
// it, then we know best.
func reason(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	var why *job.Error
	switch {
	case err == nil, cause == nil:
		return err
	case errors.As(cause, &why):
		return why
	default:
		return &job.Error{Code: job.Cancelled, Err: errBusLost} // The connection has ended, and its context.
	}
}
