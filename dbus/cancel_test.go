package dbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/dbustest"
	"github.com/joulemux/joulemux/power"
)

// soon is how long a job may outlive its reader: 100 ms, and what a loaded
// machine adds to that. One that is not let go of goes on for good.
const soon = patience / 2

func TestJobsAreCancelled(t *testing.T) {
	cancelled := make(chan error, 1)
	for _, c := range []struct {
		rule    string
		sinks   []string
		options options
		how     func(p *dbustest.Peer, e ends, path godbus.ObjectPath) error
		says    string
		left    string // what the reader, if he still reads, finds
	}{
		{
			"by a reader who closes his end",
			[]string{"pipe", "socket"},
			nil,
			func(_ *dbustest.Peer, e ends, _ godbus.ObjectPath) error { return e.near.Close() },
			"the reader has closed its end", "",
		},
		{
			"by a reader who shuts his socket",
			[]string{"socket"},
			nil,
			func(_ *dbustest.Peer, e ends, _ godbus.ObjectPath) error {
				raw, err := e.near.SyscallConn()
				_ = raw.Control(func(fd uintptr) { err = errors.Join(err, syscall.Shutdown(int(fd), syscall.SHUT_WR)) })
				return err
			},
			"the reader has closed its end", "Hel\x18cancelled: the reader has closed its end",
		},
		{
			"by Cancel",
			[]string{"pipe", "socket"},
			nil,
			func(p *dbustest.Peer, _ ends, path godbus.ObjectPath) error {
				return p.Object(InferenceName, path).Call("io.github.joulemux.Request1.Cancel", 0).Err
			},
			"by its caller", "Hel\x18cancelled: by its caller",
		},
		{
			"by who leaves the bus",
			[]string{"pipe", "socket"},
			nil,
			func(p *dbustest.Peer, _ ends, _ godbus.ObjectPath) error { return p.Close() },
			"the caller has left the bus", "Hel\x18cancelled: the caller has left the bus",
		},
		{
			"by their deadline",
			[]string{"pipe", "socket"},
			options{"deadline_ms": option(1000)}, // by when it has begun
			func(*dbustest.Peer, ends, godbus.ObjectPath) error { return nil },
			"deadline passed: 1000 ms", "Hel\x18deadline passed: 1000 ms",
		},
	} {
		for _, kind := range c.sinks {
			t.Run(c.rule+", "+kind, func(t *testing.T) {
				r := newRig(t, nil)
				r.runner.set(hangs("Hel", cancelled))
				peer, e := r.bus.Connect(t), newSink(t, kind)
				path, _, err := generateTo(peer, e, c.options)
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if err := c.how(peer, e, path); err != nil {
					t.Fatal(err)
				}
				if why := receive(t, cancelled); !strings.Contains(why.Error(), c.says) {
					t.Errorf("ended with %v", why)
				}
				if took := time.Since(began); took > soon {
					t.Errorf("took %v", took)
				}
				if c.left != "" {
					if got := readAll(t, e); got != c.left {
						t.Errorf("the reader got %q", got)
					}
				}
				dbustest.Eventually(t, "the request is gone", func() bool {
					err := r.bus.Connect(t).Object(InferenceName, path).Call("io.github.joulemux.Request1.Cancel", 0).Err
					var refused godbus.Error
					return errors.As(err, &refused) && refused.Name == bus.UnknownObject
				})
			})
		}
	}
}

func TestOnlyWhoAskedMayCancel(t *testing.T) {
	r := newRig(t, nil)
	cancelled := make(chan error, 1)
	r.runner.set(hangs("Hel", cancelled))
	peer, e := r.bus.Connect(t), newSink(t, "pipe")
	path, _, err := generateTo(peer, e, options{})
	if err != nil {
		t.Fatal(err)
	}
	err = r.bus.Connect(t).Object(InferenceName, path).Call("io.github.joulemux.Request1.Cancel", 0).Err
	expectError(t, "somebody else", err, bus.AccessDenied, "somebody else's")
	err = peer.Object(InferenceName, requestsPath+"/99").Call("io.github.joulemux.Request1.Cancel", 0).Err
	expectError(t, "a job that there is not", err, bus.UnknownObject, "/99")
	select {
	case err := <-cancelled:
		t.Errorf("the job ended with %v", err)
	default:
	}
}

// floods is a script that writes until it is stopped, and tells what stopped it.
func floods(stopped chan<- error) script {
	return func(ctx context.Context, _ job.Job, sink dispatch.Sink) error {
		sink.Routed(decision)
		for {
			if err := sink.Chunk(ctx, job.Chunk{Text: strings.Repeat("x", 5000)}, nil); err != nil {
				stopped <- err
				return err
			}
		}
	}
}

func TestReaderWhoStopsReading(t *testing.T) {
	stopped := make(chan error, 1)
	for kind := range sinks {
		r := newRig(t, func(r *rig) { r.limits.stall, r.limits.farewell = 50*time.Millisecond, 10*time.Millisecond })
		r.runner.set(floods(stopped))
		e := newSink(t, kind)
		if _, _, err := generateTo(r.bus.Connect(t), e, options{}); err != nil {
			t.Fatal(err)
		}
		if err := receive(t, stopped); !errors.Is(err, errStalled) {
			t.Errorf("%s: stopped by %v", kind, err)
		}
		if got := readAll(t, e); strings.ContainsAny(got, "\x04") || !strings.HasPrefix(got, "xxx") {
			t.Errorf("%s: the reader finds %d bytes, and an end", kind, len(got))
		}
	}
}

func TestReaderWhoTricklesIsNotWaitedForForEver(t *testing.T) {
	stopped := make(chan error, 1)
	for kind := range sinks {
		r := newRig(t, func(r *rig) { r.limits.slow, r.limits.farewell = 200*time.Millisecond, 10*time.Millisecond })
		r.runner.set(floods(stopped))
		e := newSink(t, kind)
		if _, _, err := generateTo(r.bus.Connect(t), e, options{}); err != nil {
			t.Fatal(err)
		}
		over := make(chan error, 1)
		go func() { over <- trickle(e.near) }()
		if err := receive(t, stopped); !errors.Is(err, errSlow) {
			t.Errorf("%s: stopped by %v", kind, err)
		}
		_ = e.near.SetReadDeadline(time.Now()) // Who trickles may stop.
		_ = receive(t, over)
	}
}

// trickle reads a page every few milliseconds: often enough not to have
// stopped reading.
func trickle(from io.Reader) error {
	page := make([]byte, 4096)
	for range time.Tick(5 * time.Millisecond) {
		if _, err := from.Read(page); err != nil {
			return err
		}
	}
	return nil
}

func TestBlockedWriteEndsWithTheJob(t *testing.T) {
	stopped := make(chan error, 1)
	for kind := range sinks {
		for _, c := range []struct {
			rule    string
			options options
			how     func(p *dbustest.Peer, e ends, path godbus.ObjectPath) error
			says    string
		}{
			{"a deadline", options{"deadline_ms": option(1000)}, func(*dbustest.Peer, ends, godbus.ObjectPath) error { return nil }, "deadline"},
			{"Cancel", nil, func(p *dbustest.Peer, _ ends, path godbus.ObjectPath) error {
				return p.Object(InferenceName, path).Call("io.github.joulemux.Request1.Cancel", 0).Err
			}, "by its caller"},
			{"a closed end", nil, func(_ *dbustest.Peer, e ends, _ godbus.ObjectPath) error { return e.near.Close() }, "closed its end"},
		} {
			r := newRig(t, nil)
			r.runner.set(floods(stopped))
			peer, e := r.bus.Connect(t), newSink(t, kind)
			path, _, err := generateTo(peer, e, c.options)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.how(peer, e, path); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if err := receive(t, stopped); !strings.Contains(err.Error(), c.says) || time.Since(began) > soon {
				t.Errorf("%s, %s: stopped by %v after %v", kind, c.rule, err, time.Since(began))
			}
		}
	}
}

func TestSlowReaderGetsEverything(t *testing.T) {
	const pieces = 200 // of 5000 bytes: far more than any pipe or socket holds
	r := newRig(t, nil)
	var tokens []string
	for range pieces {
		tokens = append(tokens, strings.Repeat("abcde", 1000))
	}
	r.runner.set(answers(tokens...))
	for kind := range sinks {
		e := newSink(t, kind)
		if _, _, err := generateTo(r.bus.Connect(t), e, options{}); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		small := make([]byte, 777)
		_ = e.near.SetReadDeadline(time.Now().Add(patience))
		for {
			n, err := e.near.Read(small)
			got.Write(small[:n])
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if got.String() != strings.Join(tokens, "")+"\x04" {
			t.Errorf("%s: got %d bytes", kind, got.Len())
		}
	}
}

// waits is a script whose job gets no place before it may go on.
func waits(goOn <-chan struct{}, then script) script {
	return func(ctx context.Context, j job.Job, sink dispatch.Sink) error {
		select {
		case <-goOn:
			return then(ctx, j, sink)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tokenPath is where a caller expects a job of his to be.
func tokenPath(p *dbustest.Peer, token string) godbus.ObjectPath {
	sender := strings.ReplaceAll(strings.TrimPrefix(p.Names()[0], ":"), ".", "_")
	return requestsPath + godbus.ObjectPath("/"+sender+"/"+token)
}

func TestJobsThatWaitAreCancelled(t *testing.T) {
	for _, c := range []struct {
		rule string
		how  func(p *dbustest.Peer, e ends) error
		says string // to the caller, who may be gone
	}{
		{"by Cancel", func(p *dbustest.Peer, _ ends) error {
			return p.Object(InferenceName, tokenPath(p, "stop_1")).Call("io.github.joulemux.Request1.Cancel", 0).Err
		}, "by its caller"},
		{"by a reader who closes his end", func(_ *dbustest.Peer, e ends) error { return e.near.Close() }, "the reader has closed its end"},
		{"by who leaves the bus", func(p *dbustest.Peer, _ ends) error { return p.Close() }, ""},
	} {
		t.Run(c.rule, func(t *testing.T) {
			r := newRig(t, nil)
			ended := make(chan error, 1)
			wait := waits(nil, nil)
			r.runner.set(func(ctx context.Context, j job.Job, sink dispatch.Sink) error {
				err := wait(ctx, j, sink)
				ended <- err
				return err
			})
			peer, e := r.bus.Connect(t), newSink(t, "pipe")
			call := inferenceOf(peer).Go(InferenceName+".GenerateTo", 0, nil, e.far, []options{message("user", "Why?")}, options{"handle_token": option("stop_1")})
			dbustest.Eventually(t, "the job waits", func() bool { return r.runner.count() == 1 })
			_ = syscall.Close(int(e.far))
			if err := c.how(peer, e); err != nil {
				t.Fatal(err)
			}
			if err := receive(t, ended); !errors.Is(err, job.Cancelled) {
				t.Errorf("ended with %v", err)
			}
			if err := receive(t, call.Done).Err; c.says != "" {
				expectError(t, "the caller", err, "io.github.joulemux.Error.Cancelled", c.says)
			}
		})
	}
}

func TestCallersAreToldBeforeTheyGiveUp(t *testing.T) {
	r := newRig(t, func(r *rig) { r.limits.reply, r.Explainer = 10*time.Millisecond, foretold{} })
	peer := r.bus.Connect(t)
	for _, c := range []struct {
		rule string
		then script
		want string
	}{
		{"of a job that waits", answers("Hello"), "Hello\x04"},
		{"of one that fails at last", fails(job.Errorf(job.Busy, "no luck")), "\x18busy: no luck"},
	} {
		goOn := make(chan struct{})
		r.runner.set(waits(goOn, c.then))
		e := newSink(t, "pipe")
		path, route, err := generateTo(peer, e, options{"handle_token": option("a")})
		if err != nil || path != tokenPath(peer, "a") || route["waits"].Value() != true || route["backend_used"].Value() != "ollama-npu" {
			t.Errorf("%s: %s, %v, %v", c.rule, path, route, err)
		}
		close(goOn)
		if got := readAll(t, e); got != c.want {
			t.Errorf("%s: on the sink is %q", c.rule, got)
		}
	}
}

// foretold explains every job alike.
type foretold struct{}

// Explain tells where the scripts' jobs go.
func (foretold) Explain(context.Context, job.Job, *power.Tier) (route.Decision, error) {
	return decision, nil
}

func TestFailureIsToldOnceWheneverItComes(t *testing.T) {
	r := newRig(t, func(r *rig) { r.limits.reply, r.Explainer = time.Millisecond, foretold{} })
	peer := r.bus.Connect(t)
	r.runner.set(func(ctx context.Context, _ job.Job, _ dispatch.Sink) error {
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
		return job.Errorf(job.Busy, "no luck")
	})
	for range 200 {
		e := newSink(t, "pipe")
		_, _, err := generateTo(peer, e, options{})
		if got := readAll(t, e); (err != nil) == (got != "") {
			t.Fatalf("the call says %v, and the sink %q", err, got)
		}
		_ = e.near.Close()
	}
}

func TestTokens(t *testing.T) {
	r := newRig(t, nil)
	r.runner.set(hangs("", make(chan error, 9)))
	peer := r.bus.Connect(t)
	path, _, err := generateTo(peer, newSink(t, "pipe"), options{"handle_token": option("a_1")})
	if err != nil || path != tokenPath(peer, "a_1") {
		t.Errorf("the job is at %s, %v", path, err)
	}
	for at := requestsPath; at != path; {
		node, err := introspect.Call(peer.Object(InferenceName, at))
		if err != nil || len(node.Children) != 1 {
			t.Fatalf("at %s there is %+v, %v", at, node, err)
		}
		at += godbus.ObjectPath("/" + node.Children[0].Name)
	}
	for _, token := range []any{"a_1", "", "a/b", "a-b", "ü", strings.Repeat("a", 256), 7} {
		_, _, err := generateTo(peer, newSink(t, "pipe"), options{"handle_token": option(token)})
		expectError(t, fmt.Sprintf("the token %.10v", token), err, bus.InvalidArgs, "handle_token: ")
	}
	other := r.bus.Connect(t)
	if path, _, err := generateTo(other, newSink(t, "pipe"), options{"handle_token": option("a_1")}); err != nil || path != tokenPath(other, "a_1") {
		t.Errorf("the same of another caller is at %s, %v", path, err)
	}
}
