package dbus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/dbus/bus"
)

// ErrNameTaken says that somebody else owns one of our names: another daemon.
var ErrNameTaken = errors.New("the name is taken")

var errBusLost = errors.New("the bus has closed the connection")

// serve serves for as long as two connections last, and ctx.
func (f *FrontEnd) serve(ctx context.Context, address string, own ownership, ready func()) error {
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
	n := &news{FrontEnd: f, inference: i, router: r}
	return n.follow(ctx, own, ready)
}

// follow makes the names ours, calls ready when all that takes part runs, and
// tells the bus of what changes until ctx is done or a connection lost. Then it
// ends what belongs to the connections.
func (n *news) follow(ctx context.Context, own ownership, ready func()) error {
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
	// What has changed since the names are ours is news.
	n.told = n.view(n.Tiers.Current(), n.Backends.Current())
	if err := n.own(ctx, own); err != nil {
		end(err)
	} else {
		running.Go(func() { tellEach(n, n.Backends.Watch(ctx)) })
		running.Go(func() { tellEach(n, n.Tiers.Watch(ctx)) })
		running.Go(func() { n.tellPulls(ctx) })
		ready()
	}
	<-ctx.Done() // while somebody may be telling something to a bus that is frozen
	n.inference.requests.stop(lastCause(ctx))
	_, _ = n.inference.conn.Close(), n.router.conn.Close()
	running.Wait()
	return context.Cause(ctx)
}

// tellEach tells of each version of something.
func tellEach[T any](n *news, versions iter.Seq[T]) {
	for range versions {
		n.tell()
	}
}

// ownership makes a name ours. Everything is served by then: peers may call at
// once.
type ownership func(ctx context.Context, conn *godbus.Conn, name string) error

// own makes both names ours, in the order that every joulemux has: of two that
// wait, neither has what the other waits for.
func (n *news) own(ctx context.Context, own ownership) error {
	if err := own(ctx, n.inference.conn, InferenceName); err != nil {
		return err
	}
	return own(ctx, n.router.conn, RouterName)
}

// own makes a name ours, or fails.
func (f *FrontEnd) own(ctx context.Context, conn *godbus.Conn, name string) error {
	reply, err := requestName(ctx, conn, name, godbus.NameFlagDoNotQueue)
	if err == nil && reply != godbus.RequestNameReplyPrimaryOwner {
		return fmt.Errorf("%w: %s has another owner on this bus; is joulemuxd running already?", ErrNameTaken, name)
	}
	return err
}

// await makes a name ours as soon as it can be had.
func (f *FrontEnd) await(ctx context.Context, conn *godbus.Conn, name string) error {
	signals := make(chan *godbus.Signal, 16)
	conn.Signal(signals)
	defer conn.RemoveSignal(signals)
	reply, err := requestName(ctx, conn, name, 0)
	if err != nil || reply == godbus.RequestNameReplyPrimaryOwner {
		return err
	}
	f.Log.Warn("waiting for a name on the session bus, which has another owner", slog.String("name", name))
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case s, connected := <-signals:
			if !connected {
				return errBusLost
			}
			if s.Sender == busName && s.Name == busName+".NameAcquired" && len(s.Body) == 1 && s.Body[0] == name {
				return nil
			}
		}
	}
}

// busName is that of the bus itself.
const busName = "org.freedesktop.DBus"

func requestName(ctx context.Context, conn *godbus.Conn, name string, flags godbus.RequestNameFlags) (reply godbus.RequestNameReply, err error) {
	err = conn.BusObject().CallWithContext(ctx, busName+".RequestName", 0, name, flags).Store(&reply)
	if err != nil {
		return 0, fmt.Errorf("request the name %s: %w", name, err)
	}
	return reply, nil
}

// lastCause is what the jobs of a session end with.
func lastCause(ctx context.Context) *job.Error {
	if errors.Is(context.Cause(ctx), errBusLost) {
		return &job.Error{Code: job.Cancelled, Err: errBusLost}
	}
	return job.Errorf(job.Stopping, "")
}
