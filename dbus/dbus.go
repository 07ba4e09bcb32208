// Package dbus is the front-end on the session bus: it turns calls into jobs
// and holds, and what the daemon knows into properties.
//
// The XML files beside the code are the contract, with its documentation; what
// is behind them is checked against them whenever the front-end starts. How a
// bus is served is that of dbus/bus, and what becomes of a job that of
// daemon/dispatch.
package dbus

import (
	"cmp"
	"context"
	"iter"
	"log/slog"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/pull"
	"github.com/joulemux/joulemux/daemon/registry"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/tracker"
)

// The names that the daemon owns. Each is on a connection of its own: who may
// talk to a name may talk to everything that is on its connection.
const (
	InferenceName = "io.github.joulemux.Inference1"
	RouterName    = "io.github.joulemux.Router1"
)

// Tiers is the tier in force, and who asks for what. A *tracker.Tracker does,
// but for Prefer, which has to last.
type Tiers interface {
	Current() tracker.Snapshot
	Look(ctx context.Context) tracker.Snapshot
	Watch(ctx context.Context) iter.Seq[tracker.Snapshot]
	Hold(ctx context.Context, h power.Hold) (cookie uint32, err error)
	Release(ctx context.Context, cookie uint32, holder string) error
	Gone(ctx context.Context, holder string) error
	Prefer(ctx context.Context, p power.Preference) error
}

// Runner runs jobs. *dispatch.Dispatcher does.
type Runner interface {
	Run(ctx context.Context, j job.Job, sink dispatch.Sink) error
	Prospect(tier power.Tier, backends backend.Snapshot) (route.Decision, error)
	Home(ctx context.Context, model, target string) (id string, err error)
}

// Puller fetches models. *pull.Puller does.
type Puller interface {
	Pull(ctx context.Context, o pull.Order, each func(pull.Progress) error) error
	Cancel(model string) bool
	Current() []pull.Progress
	Watch(ctx context.Context) iter.Seq[[]pull.Progress]
}

// Explainer tells what would become of a job now, or on a tier unless it is nil.
// *dispatch.Dispatcher does.
type Explainer interface {
	Explain(ctx context.Context, j job.Job, tier *power.Tier) (route.Decision, error)
}

// Backends tells which backends there are. *backend.Set does.
type Backends interface {
	Look(ctx context.Context) backend.Snapshot
	Current() backend.Snapshot
	Watch(ctx context.Context) iter.Seq[backend.Snapshot]
}

// Models lists the models that there are. *registry.Registry does.
type Models interface {
	List(ctx context.Context) []registry.Model
}

// Parts is what the front-end makes visible.
type Parts struct {
	Tiers     Tiers
	Runner    Runner
	Explainer Explainer
	Puller    Puller
	Models    Models
	Backends  Backends
	// Draw tells what the machine takes from its battery, if it is known. It
	// is asked only when somebody reads DrawWatts.
	Draw func() (power.Power, bool)
	// Program names what a process runs, or returns "".
	Program func(pid int) string
	// Level is that of the log, which peers may change.
	Level *slog.LevelVar
	// LogTarget is where the log goes, in systemd's words: "journal", or
	// "console" for standard error, which is what "" means.
	LogTarget string
	Version   string
	Log       *slog.Logger
}

// FrontEnd serves the session bus. Make one with New, and Run it.
type FrontEnd struct {
	Parts
	limits limits
}

// limits bound what one caller can take from the others.
type limits struct {
	jobs     int           // of one caller at a time
	reply    time.Duration // for which a call may wait to be told where its job goes
	stall    time.Duration // for which a reader may take nothing
	slow     time.Duration // for which a reader may hold up one answer, all in all
	farewell time.Duration // for which one may take none of the last words
	text     int           // bytes of an answer in one piece
	vectors  int           // bytes of vectors
}

// New returns a front-end. It opens no bus.
func New(p Parts) *FrontEnd {
	p.LogTarget = cmp.Or(p.LogTarget, "console")
	return &FrontEnd{Parts: p, limits: limits{
		jobs: 4, reply: patientFor, stall: 30 * time.Second, slow: 2 * time.Minute, farewell: 500 * time.Millisecond, text: 16 << 20,
		vectors: 1 << 26, // The longest array that the specification allows.
	}}
}

// A bus that is away is tried again after these times, the first doubling up
// to the last.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = time.Minute
)

// Run serves the bus at address until ctx is done. When the bus goes away its
// jobs and holds end, and Run serves again when it is back. ready is called
// once, as soon as both names are ours.
//
// That there is no bus in the beginning is an error, and so is that somebody
// else owns one of the names then (ErrNameTaken). Later that is waited out.
func (f *FrontEnd) Run(ctx context.Context, address string, ready func()) error {
	wait, served, own := firstWait, false, f.own
	for {
		err := f.serve(ctx, address, own, func() {
			if served {
				f.Log.Info("the session bus is back")
			} else {
				ready()
			}
			wait, served, own = firstWait, true, f.await
		})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !served:
			return err
		case wait == firstWait:
			f.Log.Warn("the session bus is gone", slog.Any("err", err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, lastWait)
	}
}
