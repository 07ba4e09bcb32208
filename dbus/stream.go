package dbus

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/dbus/bus"
)

// generateTo is Inference1.GenerateTo.
func (i *inference) generateTo(ctx context.Context, c bus.Call, sink godbus.UnixFD, messages []map[string]godbus.Variant, options map[string]godbus.Variant) (godbus.ObjectPath, map[string]godbus.Variant, error) {
	conversation, err := conversation(messages)
	if err != nil {
		return "", nil, err
	}
	newFormat, options, err := chooseFormat(options)
	if err != nil {
		return "", nil, err
	}
	j, err := i.newJob(ctx, c, job.Chat, job.Content{Messages: conversation}, options)
	if err != nil {
		return "", nil, err
	}
	ctx, r, err := i.requests.begin(ctx, c)
	if err != nil {
		return "", nil, err
	}
	out, err := openOutlet(int(sink), i.limits, func() { r.cancel(errHungUp) })
	if err != nil {
		r.end()
		return "", nil, err
	}
	s := &stream{format: newFormat(j), write: out.write, fate: make(chan fate, 1)}
	go func() {
		err := i.stream(ctx, j, s, out)
		// Who has come to the end of the answer may ask for the next one.
		r.end()
		out.close()
		s.settle(fate{err: err})
	}()
	f := <-s.fate
	return requestsPath + "/" + godbus.ObjectPath(r.name), variants(f.route.Fields()), f.err
}

// stream runs a job. Once it is routed, an error is told on the sink; before,
// it is for the caller.
func (i *inference) stream(ctx context.Context, j job.Job, s *stream, out *outlet) error {
	err := reason(ctx, i.run(ctx, j, s))
	if err == nil || !s.settled {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), i.limits.farewell)
	defer cancel()
	_ = out.write(ctx, s.format.failure(err)) // Who does not read it sees that the stream broke.
	return err
}

// run runs a job outside of a call, where a panic would end us all.
func (i *inference) run(ctx context.Context, j job.Job, s dispatch.Sink) (err error) {
	defer func() {
		if p := recover(); p != nil {
			i.Log.Error("job panicked", slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
			err = bus.Errorf(bus.Failed, "internal error")
		}
	}()
	return i.Runner.Run(ctx, j, s)
}

// stream writes an answer piece by piece.
type stream struct {
	format  format
	write   func(context.Context, []byte) error
	settled bool
	fate    chan fate // holds one: the answer to the call
}

// fate is where a job goes, or why it does not.
type fate struct {
	route route.Decision
	err   error
}

// settle answers the call, if it has no answer yet.
func (s *stream) settle(f fate) {
	if !s.settled {
		s.settled = true
		s.fate <- f
	}
}

// Routed answers the call. Of a fallback the end of the stream tells.
func (s *stream) Routed(d route.Decision) { s.settle(fate{route: d}) }

// Begin has nothing to do.
func (*stream) Begin(job.Head) error { return nil }

// Chunk writes a piece.
func (s *stream) Chunk(ctx context.Context, c job.Chunk, r *dispatch.Report) error {
	switch {
	case c.Last:
		return s.write(ctx, s.format.end(c, r))
	case c.Text == "":
		return nil
	default:
		return s.write(ctx, s.format.piece(c.Text))
	}
}
