// Package daemon assembles the parts of joulemux and runs them until told to
// stop.
//
// Data flows one way through what is built here: supplies and wishes to the
// tier, tier and backends to decisions, decisions to answers. Every part is
// told what it needs by the one before, and none knows of the assembly.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/cache"
	"github.com/joulemux/joulemux/daemon/config"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/grpcapi"
	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/metrics"
	"github.com/joulemux/joulemux/daemon/peer"
	"github.com/joulemux/joulemux/daemon/pipeline"
	"github.com/joulemux/joulemux/daemon/pull"
	"github.com/joulemux/joulemux/daemon/registry"
	"github.com/joulemux/joulemux/daemon/token"
	"github.com/joulemux/joulemux/dbus"
	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/profiles"
	"github.com/joulemux/joulemux/dbus/upower"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
	"github.com/joulemux/joulemux/power/sysfs"
	"github.com/joulemux/joulemux/power/tracker"
	"github.com/joulemux/joulemux/systemd"
)

// Options are what the program, and not the user's file, decides.
type Options struct {
	// Config is the path of the configuration file.
	Config string
	// State is the folder for what has to last; "" keeps nothing.
	State string
	// Sys is the kernel's tree, /sys but in tests.
	Sys fs.FS
	// Proc is the table of processes, /proc but in tests.
	Proc fs.FS
	// Pipelines are the folders with pipelines; the first that has a name counts.
	Pipelines []string
	// EnergySocket is where the helper is that reads what root alone may; "" is
	// nowhere.
	EnergySocket string
	Version      string
	Log          *slog.Logger
	// Level is that of Log. The configuration sets it unless FixedLevel.
	Level      *slog.LevelVar
	FixedLevel bool
	// LogTarget is "journal" or "console".
	LogTarget string
	// Reload asks for the configuration to be read again.
	Reload <-chan os.Signal
	// Inherited are sockets that the service manager opened, by name.
	Inherited map[string][]net.Listener
}

// daemon is the parts.
type daemon struct {
	Options
	settings   config.Config
	refusal    *job.Error // nil but before the configuration is one
	tiers      *tiers
	supplies   *upower.Watcher
	backends   *backend.Set
	cooled     cooled // those, for whoever chooses among them
	meter      metering
	ledger     *ledger.Ledger
	peers      peer.Table
	profiles   *profiles.Watcher
	check      *crossCheck
	cache      *cache.Cache
	heat       *heat
	metrics    *metrics.Metrics
	npu        *sysfs.Occupancy // nil if there is none that tells
	puller     *pull.Puller
	models     *registry.Registry
	dispatcher *dispatch.Dispatcher
	door       *door.Door
	tokens     *token.File
	http       *httpapi.Server
	grpc       *grpcapi.Server
	status     status
	tariff     atomic.Pointer[wire.Tariff] // nil if nobody said
	// reported is closed when it has been said once how the machine is powered.
	reported chan struct{}
	// mended has where to listen, once that is known after a start without
	// a configuration.
	mended chan config.Server
}

// Run runs the daemon until ctx is done, and returns when everything has ended.
// A socket on which another daemon listens is an error; a port that is taken and
// a bus that is not there are logged.
//
// With a configuration that has faults it runs too, and answers every job with
// what is wrong, until the file is mended. Were it to end, the service manager
// would start it again for each client who waits, and soon give up.
func Run(ctx context.Context, o Options) error {
	d, err := assemble(ctx, o)
	if err != nil {
		return err
	}
	defer d.backends.Close()
	defer d.meter.Close()
	entrances, err := d.listen(ctx)
	if err != nil {
		return err
	}
	// What the front-ends stand on outlives them.
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	sensors, base := errgroup.WithContext(base)
	d.runSensors(base, sensors)
	err = d.serve(ctx, entrances)
	stop()
	if ended := sensors.Wait(); !errors.Is(ended, context.Canceled) {
		err = errors.Join(err, ended)
	}
	return err
}

// assemble makes the parts. Nothing runs yet.
func assemble(ctx context.Context, o Options) (*daemon, error) {
	d := &daemon{Options: o, reported: make(chan struct{}), mended: make(chan config.Server, 1)}
	d.tokens = tokensBeside(o.Config)
	d.settings = d.configuration()
	c := d.settings
	table, err := peer.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("the process table: %w", err)
	}
	d.peers = table
	keeper := preferenceFile{folder: o.State, log: o.Log}
	read := func() power.Supply { return sysfs.Supply(o.Sys) }
	d.tiers = &tiers{Tracker: tracker.New(c.Policy, keeper.load(), read), file: keeper}
	d.supplies = upower.New(d.supplied(sync.OnceFunc(func() { close(d.reported) })))
	d.profiles = profiles.New(func(ctx context.Context, p power.Profile) { _ = d.tiers.Profile(ctx, p) })
	d.backends = backend.New(connect, classifier{o.Sys, table}.classify, o.Log)
	d.heat = &heat{sys: o.Sys}
	d.cooled = cooled{d.backends, d.heat.verdict, o.Sys}
	d.npu, _ = sysfs.NPUOccupancy(o.Sys)
	d.ledger = ledger.New(o.State, ledger.DefaultKeep(), o.Log)
	d.metrics = metrics.New(d.figures()...)
	d.meter = newMeter(ctx, o, d.backends, table, func(t meter.Tail) {
		d.ledger.Tail(t.Work.ID, t.Energy)
		d.metrics.Tail(t.Work.ID, t.Energy)
		d.dispatcher.Spent(t.Work.Client, t.More)
	})
	d.check = &crossCheck{whole: d.meter.Whole, left: d.supplies.Left, log: o.Log}
	d.cache = cache.New(cache.Settings(c.Cache))
	d.puller, d.models = d.newPuller(c), d.newRegistry()
	d.dispatcher = dispatch.New(dispatch.Parts{
		Tiers: d.tiers, Backends: d.cooled, Meter: d.meter, Ledger: d.ledger, Cache: d.cache, Observer: d.metrics, Fetcher: d.puller, Log: o.Log,
	}, d.dispatchSettings(c))
	d.door = door.New(table.UID, table.Program, o.Log)
	engine := &pipeline.Engine{Runner: d.dispatcher, Tier: func(ctx context.Context) power.Tier { return d.tiers.Look(ctx).Tier }}
	shelf := pipeline.Shelf(o.Pipelines)
	d.http = httpapi.New(httpapi.Parts{
		Runner: d.dispatcher, Explainer: d.dispatcher, Tiers: d.tiers, Backends: d.cooled, Ledger: d.ledger, Cache: d.cache,
		Shelf: shelf, Engine: engine, Puller: d.puller, Models: d.models, Door: d.door, Metrics: d.metrics, Machine: d.machine, Faults: d.status.blamed, Version: o.Version, Log: o.Log,
		FullCharge: func() (power.Energy, bool) { return sysfs.FullCharge(o.Sys) },
	}, d.httpSettings(c))
	d.grpc = grpcapi.New(grpcapi.Parts{
		Runner: d.dispatcher, Backends: d.cooled, Shelf: shelf, Engine: engine, Heat: d.heat.verdict,
		Door: d.door, Version: o.Version, Log: o.Log,
	}, c.Limits.Body)
	d.door.Configure(d.doorSettings(c))
	d.backends.Configure(specs(c))
	d.tariff.Store(tariff(c.Energy))
	d.setLevel(c)
	d.note(c)
	return d, nil
}

// supplied returns what takes in how the machine is powered.
func (d *daemon) supplied(first func()) func(context.Context, power.Supply) {
	return func(ctx context.Context, s power.Supply) {
		_ = d.tiers.Supply(ctx, s) // fails when the daemon ends
		d.check.supplied(ctx, s)
		first()
	}
}

// runSensors starts what watches the machine, and what owns the tier.
func (d *daemon) runSensors(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { return d.tiers.Run(ctx) })
	g.Go(func() error { return d.ledger.Run(ctx) })
	g.Go(func() error { return d.dispatcher.Drive(ctx) })
	g.Go(func() error { return d.puller.Run(ctx) })
	d.meter.Start(ctx)
	services := append([]bus.Service{d.supplies.Service()}, d.profiles.Services()...)
	monitor := bus.NewMonitor(bus.SystemAddress(), d.Log, services...)
	g.Go(func() error { return monitor.Run(ctx) })
	changed := make(chan struct{}, 1)
	g.Go(func() error {
		err := config.Watch(ctx, d.Config, func() {
			select {
			case changed <- struct{}{}:
			default: // one reading will see both changes
			}
		})
		if ctx.Err() == nil {
			d.Log.Error("the configuration is no longer watched; systemctl reload still works", "err", err)
		}
		return nil
	})
	g.Go(func() error { d.followConfig(ctx, changed); return nil })
}

// followConfig reads the configuration whenever it has changed or somebody asks
// for it. It alone does, so that no two readings overtake each other.
func (d *daemon) followConfig(ctx context.Context, changed <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			d.reload(ctx)
			d.tell(systemd.Status(d.status.text()))
		case <-d.Reload:
			d.tell(systemd.Reloading())
			d.reload(ctx)
			d.tell(systemd.Ready(d.status.text()))
		}
	}
}

// patience is how long the start waits to learn how the machine is powered.
const patience = 500 * time.Millisecond

// serve runs the front-ends until ctx is done.
func (d *daemon) serve(ctx context.Context, entrances []entrance) error {
	front, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	g, front := errgroup.WithContext(front)
	for _, e := range entrances {
		g.Go(func() error { return d.door.Serve(front, e.Listener, e.handler) })
	}
	g.Go(func() error { return d.servePortsOnceMended(front) })
	d.awaitSupply(ctx)
	ready := make(chan struct{})
	g.Go(func() error { d.serveBus(front, sync.OnceFunc(func() { close(ready) })); return nil })
	g.Go(func() error { d.followTiers(front); return nil })
	g.Go(func() error { d.followBackends(front); return nil })
	g.Go(func() error { d.cooled.follow(front); return nil })
	// Reading what backends there are is for people who look at the status.
	g.Go(func() error { d.backends.LookHere(front); return nil })
	g.Go(func() error {
		select {
		case <-ready:
			d.Log.Info("joulemux is ready", "version", d.Version, "tier", d.tiers.Current().Tier)
			d.tell(systemd.Ready(d.status.text()))
		case <-front.Done():
		}
		return nil
	})
	select {
	case <-ctx.Done():
		d.tell(systemd.Stopping())
	case <-front.Done(): // a front-end failed
	}
	d.dispatcher.Stop()
	cancel()
	return g.Wait()
}

func (d *daemon) awaitSupply(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-d.reported:
	case <-ctx.Done():
	}
	d.tiers.Look(ctx)
}

// serveBus serves the session bus. Without one the daemon does without.
func (d *daemon) serveBus(ctx context.Context, ready func()) {
	defer ready()
	address, err := bus.SessionAddress()
	if err != nil {
		d.Log.Warn("there is no session bus", "err", err)
		return
	}
	front := dbus.New(dbus.Parts{
		Tiers: d.tiers, Runner: d.dispatcher, Explainer: d.dispatcher, Puller: d.puller, Models: d.models, Backends: d.cooled, Draw: d.supplies.Draw,
		Program: d.peers.Program, Level: d.Level, LogTarget: d.LogTarget, Version: d.Version, Log: d.Log,
	})
	if err := front.Run(ctx, address, ready); err != nil && ctx.Err() == nil {
		d.Log.Error("the session bus is not served", "err", err)
	}
}

// tell logs that the service manager could not be told something.
func (d *daemon) tell(err error) {
	if err != nil {
		d.Log.Warn("the service manager does not listen", "err", err)
	}
}
