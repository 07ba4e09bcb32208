package dbus

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"

	godbus "github.com/godbus/dbus/v5"

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
	name   string // what its path ends in
	sender string
	cancel context.CancelCauseFunc
	end    func()
}

func newRequests(callers *bus.Callers, most int) *requests {
	return &requests{callers: callers, most: most, running: make(map[string]*request)}
}

// chooseName returns the name that options ask for, or "", and the options that are
// the job's. It is made of what the caller knows, as that of a portal's request is, so
// that he can cancel the job while he waits to be told of it.
func chooseName(sender string, options map[string]godbus.Variant) (name string, rest map[string]godbus.Variant, err error) {
	token, rest, err := without(options, "handle_token")
	if err != nil || token == nil {
		return "", rest, err
	}
	element := *token != "" && len(*token) <= 255 && !strings.Contains(*token, "/") && godbus.ObjectPath("/"+*token).IsValid()
	if !element {
		return "", nil, job.InvalidField("handle_token", "want up to 255 letters, digits and underscores, got %q", *token)
	}
	return strings.NewReplacer(":", "", ".", "_").Replace(sender) + "/" + *token, rest, nil
}

// begin admits a job, and returns the context in which it is to run: it ends
// when the caller leaves the bus. The request has to be ended. Its name is made up
// if it is "".
func (all *requests) begin(ctx context.Context, c bus.Call, name string) (context.Context, *request, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	r := &request{name: name, sender: c.Sender, cancel: cancel}
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
	if all.running[r.name] != nil {
		return job.InvalidField("handle_token", "is that of a job of yours which is under way")
	}
	if r.name == "" {
		all.last++
		r.name = strconv.FormatUint(all.last, 10)
	}
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
	r, ok := all.running[strings.TrimPrefix(string(c.Path), string(requestsPath)+"/")]
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
