package dbus

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

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
	name, options, err := chooseName(c.Sender, options)
	if err != nil {
		return "", nil, err
	}
	j, err := i.newJob(ctx, c, job.Chat, job.Content{Messages: conversation}, options)
	if err != nil {
		return "", nil, err
	}
	j.ID = rand.Text() // by which it is told from others when it stands in line
	ctx, r, err := i.requests.begin(ctx, c, name)
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
		err := reason(ctx, i.run(ctx, j, s))
		early := s.settles() // Then an error is for the caller; later, it is told on the sink.
		if err != nil && !early {
			i.fail(ctx, s, err)
		}
		// Who has come to the end of the answer may ask for the next one.
		r.end()
		out.close()
		if early {
			s.fate <- fate{err: err}
		}
	}()
	f := i.await(ctx, j, s)
	return requestsPath + "/" + godbus.ObjectPath(r.name), variants(f.fields), f.err
}

// await returns where a job goes or, once callers have been kept waiting for long
// enough, where it would go now.
func (i *inference) await(ctx context.Context, j job.Job, s *stream) fate {
	select {
	case f := <-s.fate:
		return f
	case <-time.After(i.limits.reply):
	}
	d, err := i.Explainer.Explain(ctx, j, nil)
	fields := d.Fields()
	if err != nil { // and none would do
		fields["tier"] = i.Tiers.Current().Tier.String()
	}
	fields["waits"] = true
	if !s.settles() {
		return <-s.fate
	}
	return fate{fields: fields}
}

// fail tells on the sink why there is no more of an answer.
func (i *inference) fail(ctx context.Context, s *stream, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), i.limits.farewell)
	defer cancel()
	_ = s.write(ctx, s.format.failure(err)) // Who does not read it sees that the stream broke.
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
	settled atomic.Bool
	fate    chan fate // holds one: the answer to the call
}

// fate is where a job goes, or why it does not.
type fate struct {
	fields map[string]any
	err    error
}

// settles reports whether the call has no answer yet. Who is told so answers it.
func (s *stream) settles() bool { return s.settled.CompareAndSwap(false, true) }

// Routed answers the call, if it has no answer yet. Of a fallback the end of the
// stream tells.
func (s *stream) Routed(d route.Decision) {
	if s.settles() {
		s.fate <- fate{fields: d.Fields()}
	}
}

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
