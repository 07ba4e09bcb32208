package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// The names that the specification gives to the bus itself, and to properties.
const (
	busName           = "org.freedesktop.DBus"
	nameOwnerChanged  = busName + ".NameOwnerChanged"
	propertiesIface   = busName + ".Properties"
	propertiesChanged = propertiesIface + ".PropertiesChanged"
	noOwner           = busName + ".Error.NameHasNoOwner"
)

// patience is how long we wait for an answer: a daemon that has just been
// started may be slow.
const patience = 10 * time.Second

var (
	errLost     = errors.New("the bus has closed the connection")
	errRestless = errors.New("too many calls are unanswered")
)

// session is one connection of a Monitor, with what has been learned over it.
//
// Signals are handled by godbus's own goroutine, the one that reads them: a
// change of goroutines costs a wake-up, on which most signals are not worth
// it. So there is a mutex. Answers are handled by whoever follows.
type session struct {
	conn    *godbus.Conn
	log     *slog.Logger
	answers chan *godbus.Call

	mu      sync.Mutex // guards the following
	watches []*watch
	// pending are the calls without an answer. They are never more than
	// answers has room for, or godbus would block.
	pending map[*godbus.Call]pending
}

type pending struct {
	stop context.CancelFunc // Frees the timer.
	then func(*godbus.Call) error
}

// newSession connects, and tells ctx to those whom the services call.
func newSession(ctx context.Context, m *Monitor) (*session, error) {
	s := &session{
		log:     m.log,
		answers: make(chan *godbus.Call, 64),
		pending: make(map[*godbus.Call]pending),
	}
	for _, service := range m.services {
		s.watches = append(s.watches, newWatch(service))
	}
	connecting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	signals := listener(func(signal *godbus.Signal) { s.deliver(ctx, signal) })
	var err error
	s.conn, err = connect(ctx, connecting, m.address, nil, signals)
	return s, err
}

// listener is called with the signals that a session can be interested in.
type listener func(*godbus.Signal)

// DeliverSignal is called by the goroutine that reads for godbus.
func (l listener) DeliverSignal(_, _ string, signal *godbus.Signal) {
	if signal.Name == propertiesChanged || signal.Name == nameOwnerChanged {
		l(signal)
	}
}

// deliver handles a signal, and tells of what is new in it.
func (s *session) deliver(ctx context.Context, signal *godbus.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.hear(ctx, signal); err != nil {
		s.log.Warn("giving up a connection", "error", err)
		_ = s.conn.Close()
		return
	}
	s.tell(ctx)
}

// subscribe asks for the signals of every service, and then for what they can
// have told before: the bus does first what it was asked first.
func (s *session) subscribe(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watches {
		for _, rule := range w.rules() {
			if err := s.call(ctx, s.ofBus("AddMatch", rule, failed)); err != nil {
				return err
			}
		}
		owner := s.ofBus("GetNameOwner", w.Name, func(c *godbus.Call) error { return s.found(ctx, w, c) })
		if err := s.call(ctx, owner); err != nil {
			return err
		}
	}
	return nil
}

// follow handles answers until ctx is done or the connection lost.
func (s *session) follow(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.conn.Context().Done():
			return errLost
		case call := <-s.answers:
			if err := s.answer(ctx, call); err != nil {
				return err
			}
		}
	}
}

// answer handles the answer to a call, and tells of what is new in it.
func (s *session) answer(ctx context.Context, call *godbus.Call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pending[call]
	delete(s.pending, call)
	p.stop()
	if err := p.then(call); err != nil {
		return err
	}
	s.tell(ctx)
	return nil
}

// end closes the connection. Nobody is told anything from then on.
func (s *session) end() {
	_ = s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watches = nil
}

func (s *session) tell(ctx context.Context) {
	for _, w := range s.watches {
		w.tell(ctx)
	}
}

// hear handles a signal. Anybody can send us one, so it counts only if it is
// from whom it should be.
func (s *session) hear(ctx context.Context, signal *godbus.Signal) error {
	for _, w := range s.watches {
		var err error
		switch {
		case signal.Sender == busName && signal.Name == nameOwnerChanged:
			err = s.changedHands(ctx, w, signal)
		case signal.Sender == w.owner && w.owner != "" && signal.Name == propertiesChanged:
			err = s.ask(ctx, w, w.hear(signal)...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// found takes the answer to who owns the name of w. If nobody does then this
// is the time to have the service started; NameOwnerChanged will tell.
func (s *session) found(ctx context.Context, w *watch, c *godbus.Call) error {
	var owner string
	var reply godbus.Error
	if err := c.Store(&owner); err != nil && !(errors.As(err, &reply) && reply.Name == noOwner) {
		return fmt.Errorf("owner of %s: %w", w.Name, err)
	}
	if owner == "" && w.Start {
		// Nobody waits for the outcome, which can take the bus minutes.
		s.conn.BusObject().Go(busName+".StartServiceByName", godbus.FlagNoReplyExpected, nil, w.Name, uint32(0))
	}
	return s.ask(ctx, w, w.own(owner, c.ResponseSequence)...)
}

// changedHands takes a NameOwnerChanged: name, old and new owner.
func (s *session) changedHands(ctx context.Context, w *watch, signal *godbus.Signal) error {
	var name, old, owner string
	wellFormed := godbus.Store(signal.Body, &name, &old, &owner) == nil
	if !wellFormed || name != w.Name {
		return nil
	}
	return s.ask(ctx, w, w.own(owner, signal.Sequence)...)
}

// ask asks the owner of w for the properties of some of its objects, by its
// unique name, for which the bus starts nobody.
func (s *session) ask(ctx context.Context, w *watch, objects ...*object) error {
	for _, o := range objects {
		asked := w.owner
		err := s.call(ctx, request{
			to: s.conn.Object(asked, o.Path), method: propertiesIface + ".GetAll", arg: o.Interface,
			patience: o.patience,
			then: func(c *godbus.Call) error {
				if w.owner != asked {
					return nil
				}
				return s.take(ctx, w, o, c)
			},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// take takes the answer to GetAll, and asks again if that will not do.
func (s *session) take(ctx context.Context, w *watch, o *object, c *godbus.Call) error {
	all, err := allProperties(c)
	if err != nil {
		s.log.Warn("a service does not tell its properties", "service", w.Name, "path", o.Path, "error", err)
	}
	if w.answer(o, answer{all, err, c.ResponseSequence}) {
		return nil
	}
	return s.ask(ctx, w, o)
}

// request is a call to be made.
type request struct {
	to       godbus.BusObject
	method   string
	arg      string
	patience time.Duration
	then     func(*godbus.Call) error
}

// ofBus is a request to the bus itself.
func (s *session) ofBus(method, arg string, then func(*godbus.Call) error) request {
	return request{to: s.conn.BusObject(), method: busName + "." + method, arg: arg, patience: patience, then: then}
}

// call makes a call. Its answer, or the lack of one, comes to answers.
func (s *session) call(ctx context.Context, r request) error {
	if len(s.pending) == cap(s.answers) {
		return errRestless
	}
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	c := r.to.GoWithContext(ctx, r.method, godbus.FlagNoAutoStart, s.answers, r.arg)
	s.pending[c] = pending{stop: cancel, then: r.then}
	return nil
}

// failed is for calls that have nothing to tell but whether they failed.
func failed(c *godbus.Call) error { return c.Err }
