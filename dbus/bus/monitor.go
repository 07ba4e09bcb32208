package bus

import (
	"context"
	"log/slog"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// Service is a program on a bus, by its well-known name, whose properties are
// of interest. It may come late, leave, and come again.
type Service struct {
	Name string
	// Start has the bus start the service if it does not run when the watching
	// begins. Watching alone starts nobody.
	Start bool
	// Objects are those of its objects whose properties are mirrored.
	Objects []Object
	// Changed is called with the properties of Objects, in their order, when
	// some may have changed, and with nil when the service is not there or
	// does not say. It is called for one service of a Monitor at a time, from
	// where signals are read: it must not wait for the same bus, nor keep
	// what it is given.
	Changed func(context.Context, []Mirror)
}

// Object is one interface of an object, and the names of those of its
// properties that matter.
type Object struct {
	Path      godbus.ObjectPath
	Interface string
	Wanted    []string
}

// Mirror has the wanted properties of one object, by name, as its service told
// them last: of whatever types it liked.
type Mirror map[string]godbus.Variant

// Value returns a property if it has the type T, which must be the one that
// godbus decodes its signature to.
func Value[T any](m Mirror, name string) (T, bool) {
	v, ok := m[name].Value().(T)
	return v, ok
}

// Monitor mirrors the properties of services over one connection of its own.
// At rest it costs nothing: it polls nobody and sets no timer.
type Monitor struct {
	address  string
	log      *slog.Logger
	services []Service
	missed   bool // the bus, and it was said
}

// NewMonitor returns a monitor of services on the bus at address. Run it.
func NewMonitor(address string, log *slog.Logger, services ...Service) *Monitor {
	return &Monitor{address: address, log: log, services: services}
}

// A bus that is away is looked for again after these times, the first doubling
// up to the last. One that has lasted that long was not just stumbling.
const (
	firstWait = time.Second
	lastWait  = time.Minute
)

// Run watches until ctx is done, through every loss of the bus.
func (m *Monitor) Run(ctx context.Context) error {
	wait := firstWait
	for {
		began := time.Now()
		err := m.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, s := range m.services {
			s.Changed(ctx, nil)
		}
		if time.Since(began) >= lastWait {
			wait = firstWait
		}
		level := slog.LevelDebug
		if !m.missed {
			level, m.missed = slog.LevelWarn, true // Not once a minute on a machine without a bus.
		}
		m.log.Log(ctx, level, "no bus to watch", "address", m.address, "error", err, "retry_in", wait)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, lastWait)
	}
}

// session watches for as long as one connection lasts.
func (m *Monitor) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := newSession(ctx, m)
	if err != nil {
		return err
	}
	defer s.end()
	if err := s.subscribe(ctx); err != nil {
		return err
	}
	if m.missed {
		m.log.InfoContext(ctx, "the bus is there to watch", "address", m.address)
		m.missed = false
	}
	return s.follow(ctx)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
