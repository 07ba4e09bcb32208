package dbus

import (
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/dbustest"
)

// soon is how long a job may outlive its reader: 100 ms, and what a loaded
// machine adds to that.
const soon = 2 * time.Second

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
			options{"deadline_ms": option(100)},
			func(*dbustest.Peer, ends, godbus.ObjectPath) error { return nil },
			"deadline passed: 100 ms", "Hel\x18deadline passed: 100 ms",
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
			{"a deadline", options{"deadline_ms": option(100)}, func(*dbustest.Peer, ends, godbus.ObjectPath) error { return nil }, "deadline"},
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
