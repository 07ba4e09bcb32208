package dbus

import (
	"context"
	"errors"
	"fmt"
	"sync"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/dbus/bus"
)

// ErrNameTaken says that somebody else owns one of our names: another daemon.
var ErrNameTaken = errors.New("the name is taken")

var errBusLost = errors.New("the bus has closed the connection")

// serve serves for as long as two connections last, and ctx.
func (f *FrontEnd) serve(ctx context.Context, address string, ready func()) error {
	i, err := newInference(f)
	if err != nil {
		return err
	}
	r, err := newRouter(ctx, f)
	if err != nil {
		return err
	}
	if i.conn, err = bus.Connect(ctx, address, i.tree); err != nil {
		return err
	}
	defer func() { _ = i.conn.Close() }()
	if r.conn, err = bus.Connect(ctx, address, r.tree); err != nil {
		return err
	}
	defer func() { _ = r.conn.Close() }()
	// What has changed since the names are ours is news.
	n := &news{FrontEnd: f, inference: i, router: r}
	n.told = f.view(f.Tiers.Current(), f.Backends.Current())
	if err := own(ctx, i.conn, InferenceName); err != nil {
		return err
	}
	if err := own(ctx, r.conn, RouterName); err != nil {
		return err
	}
	return n.follow(ctx, ready)
}

// own makes a name ours. Everything is served by then: peers may call at once.
func own(ctx context.Context, conn *godbus.Conn, name string) error {
	var reply godbus.RequestNameReply
	err := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.RequestName", 0, name, godbus.NameFlagDoNotQueue).Store(&reply)
	switch {
	case err != nil:
		return fmt.Errorf("request the name %s: %w", name, err)
	case reply != godbus.RequestNameReplyPrimaryOwner:
		return fmt.Errorf("%w: %s has another owner on this bus; is joulemuxd running already?", ErrNameTaken, name)
	}
	return nil
}

// follow tells the bus of what changes until ctx is done or a connection lost,
// and then ends what belongs to the connections. ready is called when all that
// takes part in it runs.
func (n *news) follow(ctx context.Context, ready func()) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var running sync.WaitGroup
	for _, conn := range []*godbus.Conn{n.inference.conn, n.router.conn} {
		context.AfterFunc(conn.Context(), func() { end(errBusLost) })
	}
	n.inference.callers.Listen(n.inference.conn)
	n.router.callers.Listen(n.router.conn)
	running.Go(func() { n.inference.callers.Run(n.inference.conn) })
	running.Go(func() { n.router.callers.Run(n.router.conn) })
	running.Go(func() {
		for range n.Backends.Watch(ctx) {
			n.tell()
		}
	})
	running.Go(func() {
		for range n.Tiers.Watch(ctx) {
			n.tell()
		}
	})
	ready()
	<-ctx.Done() // while somebody may be telling something to a bus that is frozen
	n.inference.requests.stop(lastCause(ctx))
	_, _ = n.inference.conn.Close(), n.router.conn.Close()
	running.Wait()
	return context.Cause(ctx)
}

// lastCause is what the jobs of a session end with.
func lastCause(ctx context.Context) *job.Error {
	if errors.Is(context.Cause(ctx), errBusLost) {
		return &job.Error{Code: job.Cancelled, Err: errBusLost}
	}
	return job.Errorf(job.Stopping, "")
}
