package dbus

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/backend/ollama"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/dbus/dbustest"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
)

func TestTakenNameIsAnError(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range []string{InferenceName, RouterName} {
		if name == RouterName {
			_ = r.stop()
			r.bus.Connect(t).Own(RouterName)
		}
		err := New(r.Parts).Run(t.Context(), r.bus.Address(), func() { t.Error("ready without a name") })
		if !errors.Is(err, ErrNameTaken) || !strings.Contains(err.Error(), name) {
			t.Errorf("with %s taken: %v", name, err)
		}
	}
}

func TestNameThatIsTakenWhenTheBusIsBackIsWaitedFor(t *testing.T) {
	for _, name := range []string{InferenceName, RouterName} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.bus.Stop(t)
			dbustest.Eventually(t, "we have let go of the bus", func() bool { return strings.Contains(r.log.String(), "the session bus is gone") })
			other := r.bus.RestartFor(t, name)
			dbustest.Eventually(t, "we wait for the name", func() bool { return strings.Contains(r.log.String(), "waiting for a name") })
			if log := r.log.String(); !strings.Contains(log, "name="+name) || strings.Contains(log, "the session bus is back") {
				t.Errorf("the log has %s", log)
			}
			other.Disown(name)
			dbustest.Eventually(t, "we serve again", func() bool { return strings.Contains(r.log.String(), "the session bus is back") })
			if err := inferenceOf(other).Call(InferenceName+".Generate", 0, "x", options{}).Err; err != nil {
				t.Error(err)
			}
			r.supply(t, 70)
			if err := r.stop(); !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

func TestNameThatIsTakenIsNotWaitedForBeyondTheStop(t *testing.T) {
	r := newRig(t, nil)
	r.bus.Stop(t)
	dbustest.Eventually(t, "we have let go of the bus", func() bool { return strings.Contains(r.log.String(), "the session bus is gone") })
	r.bus.RestartFor(t, RouterName)
	dbustest.Eventually(t, "we wait for the name", func() bool { return strings.Contains(r.log.String(), "waiting for a name") })
	began := time.Now()
	if err := r.stop(); !errors.Is(err, context.Canceled) || time.Since(began) > soon {
		t.Errorf("ended with %v after %v", err, time.Since(began))
	}
}

func TestNoBusIsAnError(t *testing.T) {
	r := newRig(t, nil)
	err := New(r.Parts).Run(t.Context(), "unix:path="+t.TempDir()+"/bus", func() { t.Error("ready without a bus") })
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestServesAgainWhenTheBusIsBack(t *testing.T) {
	r := newRig(t, nil)
	cancelled := make(chan error, 1)
	r.runner.set(hangs("Hel", cancelled))
	peer, e := r.bus.Connect(t), newSink(t, "pipe")
	holdTier(t, routerOf(peer), "low")
	if _, _, err := generateTo(peer, e, options{}); err != nil {
		t.Fatal(err)
	}
	r.bus.Stop(t)
	if err := receive(t, cancelled); err == nil {
		t.Error("the job was not cancelled")
	}
	if got := readAll(t, e); !strings.HasPrefix(got, "Hel\x18cancelled") {
		t.Errorf("the reader got %q", got)
	}
	dbustest.Eventually(t, "the holds of the lost bus end", func() bool { return len(r.tiers.Current().Holds) == 0 })
	for range 2 {
		r.bus.Restart(t)
		peer = r.bus.Connect(t)
		for _, name := range []string{InferenceName, RouterName} {
			dbustest.Eventually(t, name+" has an owner", func() bool {
				var owned bool
				_ = peer.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, name).Store(&owned)
				return owned
			})
		}
		signals := hear(t, peer)
		cookie := holdTier(t, routerOf(peer), "low")
		if got := told(t, next(t, signals)); !strings.Contains(got, `Tier="low"`) {
			t.Errorf("after the return it is told that %s", got)
		}
		if err := routerOf(peer).Call(RouterName+".Release", 0, cookie).Err; err != nil {
			t.Error(err)
		}
	}
	if log := r.log.String(); strings.Count(log, "the session bus is gone") != 2 || strings.Count(log, "the session bus is back") != 2 {
		t.Errorf("the log has %s", log)
	}
}

func TestStopsWithAStreamOpen(t *testing.T) {
	r := newRig(t, nil)
	cancelled, stopped := make(chan error, 1), make(chan error, 1)
	peer, quiet, stuck := r.bus.Connect(t), newSink(t, "pipe"), newSink(t, "socket")
	r.runner.set(hangs("Hel", cancelled))
	if _, _, err := generateTo(peer, quiet, options{}); err != nil {
		t.Fatal(err)
	}
	r.runner.set(floods(stopped))
	if _, _, err := generateTo(peer, stuck, options{}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := r.stop(); !errors.Is(err, context.Canceled) || time.Since(began) > soon {
		t.Errorf("ended with %v after %v", err, time.Since(began))
	}
	if got := readAll(t, quiet); got != "Hel\x18joulemux is stopping" {
		t.Errorf("the reader got %q", got)
	}
	if err := receive(t, stopped); !errors.Is(err, job.Stopping) {
		t.Errorf("who did not read was stopped by %v", err)
	}
}

func TestStopsWhileTheBusIsFrozen(t *testing.T) {
	r := newRig(t, nil)
	cancelled := make(chan error, 1)
	r.runner.set(hangs("", cancelled))
	inferenceOf(r.bus.Connect(t)).Go(InferenceName+".Generate", 0, nil, "x", options{})
	dbustest.Eventually(t, "a job runs", func() bool { return r.runner.count() == 1 })
	r.bus.Freeze(t)
	charge := 50
	dbustest.Eventually(t, "the socket is full", func() bool {
		charge = 50 + (charge+1)%50
		r.supply(t, power.Charge(charge))
		return writing()
	})
	began := time.Now()
	// It takes 750 ms, and what a loaded machine adds.
	if err := r.stop(); !errors.Is(err, context.Canceled) || time.Since(began) > time.Second+soon {
		t.Errorf("ended with %v after %v", err, time.Since(began))
	}
	if err := receive(t, cancelled); !errors.Is(err, job.Stopping) {
		t.Errorf("the job was stopped by %v", err)
	}
}

// writing reports whether somebody waits for the bus to take what we say.
func writing() bool {
	all := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(all[:runtime.Stack(all, true)]), "\n\n") {
		if strings.Contains(stack, "[IO wait") && strings.Contains(stack, "bus.(*socket).Write") {
			return true
		}
	}
	return false
}

func TestReadyIsSaidWhenAllRuns(t *testing.T) {
	r := newRig(t, nil)
	_ = r.stop()
	peer := r.bus.Connect(t)
	running := 0
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- New(r.Parts).Run(ctx, r.bus.Address(), func() { running = runtime.NumGoroutine(); close(ready) })
	}()
	receive(t, ready)
	if err := inferenceOf(peer).Call(InferenceName+".Generate", 0, "x", options{}).Err; err != nil {
		t.Error(err)
	}
	dbustest.Eventually(t, "no more goroutines than when it was ready", func() bool { return runtime.NumGoroutine() <= running })
	cancel()
	_ = receive(t, ended)
}

func TestWhoWaitsIsToldOfTheStop(t *testing.T) {
	for range 20 { // The answer and the end of the connection used to race.
		r := newRig(t, nil)
		cancelled := make(chan error, 1)
		running := make(chan struct{})
		wait := hangs("", cancelled)
		r.runner.set(func(ctx context.Context, j job.Job, sink dispatch.Sink) error {
			close(running)
			return wait(ctx, j, sink)
		})
		call := inferenceOf(r.bus.Connect(t)).Go(InferenceName+".Generate", 0, nil, "x", options{})
		receive(t, running)
		_ = r.stop()
		expectError(t, "a caller who waits", receive(t, call.Done).Err, "io.github.joulemux.Error.Cancelled", "stopping")
	}
}

func TestBadCallsLeaveNothingBehind(t *testing.T) {
	r := newRig(t, nil)
	peer := r.bus.Connect(t)
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	_, w := pipe(t)
	fd := godbus.UnixFD(file.Fd())
	inference, router := inferenceOf(peer), routerOf(peer)
	messages := []options{message("user", "x")}
	fail := func(c *godbus.Call) {
		t.Helper()
		if c.Err == nil {
			t.Fatalf("%s succeeded", c.Method)
		}
	}
	bad := func() {
		fail(inference.Call(InferenceName+".GenerateTo", 0, fd, messages, options{}))
		fail(inference.Call(InferenceName+".GenerateTo", 0, w, messages, options{"format": option("xml")}))
		fail(inference.Call(InferenceName+".GenerateTo", 0, w, []options{}, options{}))
		fail(inference.Call(InferenceName+".GenerateTo", 0, w, messages))
		fail(inference.Call(InferenceName+".GenerateTo", 0, w, messages, options{"custom": option(w)}))
		fail(inference.Call(InferenceName+".Generate", 0, w, options{}))
		fail(inference.Call(InferenceName+".Nothing", 0, w, []godbus.UnixFD{fd, w}))
		fail(peer.Object(InferenceName, "/nowhere").Call(InferenceName+".GenerateTo", 0, w, messages, options{}))
		fail(router.Call(RouterName+".Hold", 0, w, "x"))
		fail(router.Call(RouterName+".Release", 0, uint32(12345)))
	}
	bad()
	open, running := dbustest.Descriptors(t), runtime.NumGoroutine()
	for range 100 {
		bad()
	}
	dbustest.Eventually(t, "as many descriptors and goroutines as before", func() bool {
		return dbustest.Descriptors(t) <= open && runtime.NumGoroutine() <= running
	})
}

func TestStreamsLeaveNothingBehind(t *testing.T) {
	r := newRig(t, nil)
	peer := r.bus.Connect(t)
	open, running := dbustest.Descriptors(t), runtime.NumGoroutine()
	for n := range 200 {
		if n%2 == 0 {
			r.runner.set(answers("a", "b"))
		} else {
			r.runner.set(fails(job.Errorf(job.Busy, "x")))
		}
		for _, kind := range []string{"pipe", "socket"} {
			e := newSink(t, kind)
			_, _, err := generateTo(peer, e, options{})
			if (err == nil) != (n%2 == 0) {
				t.Fatal(err)
			}
			readAll(t, e)
			_ = e.near.Close()
		}
	}
	dbustest.Eventually(t, "as many descriptors and goroutines as before", func() bool {
		return dbustest.Descriptors(t) <= open && runtime.NumGoroutine() <= running
	})
}

func TestIntrospectingWhileBackendsComeAndGo(t *testing.T) {
	r := newRig(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var clients sync.WaitGroup
	for range 3 {
		peer := r.bus.Connect(t)
		clients.Go(func() {
			for ctx.Err() == nil {
				_, err := introspect.Call(peer.Object(RouterName, backendsPath))
				err = errors.Join(err, routerOf(peer).Call("org.freedesktop.DBus.ObjectManager.GetManagedObjects", 0).Err)
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all := []backend.Spec{spec("ollama-npu", power.NPU), spec("ollama-igpu", power.IntegratedGPU)}
	for n := 0; ctx.Err() == nil; n++ {
		r.configure(all[:n%3]...)
		r.supply(t, power.Charge(30+n%60))
	}
	clients.Wait()
}

// TestRealDispatch takes one job all the way to a server that speaks HTTP.
func TestRealDispatch(t *testing.T) {
	gone := make(chan struct{})
	http := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/api/version":
			_, _ = io.WriteString(w, `{"version":"0.17.4"}`)
		case "/api/tags":
			_, _ = io.WriteString(w, `{"models":[{"name":"m:latest","model":"m:latest","digest":"d"}]}`)
		case "/api/ps":
			_, _ = io.WriteString(w, `{"models":[{"name":"m:latest","model":"m:latest","digest":"d"}]}`)
		case "/api/chat":
			body, _ := io.ReadAll(q.Body)
			_, _ = io.WriteString(w, `{"message":{"role":"assistant","content":"Hello"},"done":false}`+"\n")
			if !strings.Contains(string(body), "wait") {
				_, _ = io.WriteString(w, `{"message":{"content":""},"done":true,"eval_count":1}`+"\n")
				return
			}
			_ = http.NewResponseController(w).Flush()
			<-q.Context().Done()
			close(gone)
		}
	}))
	defer http.Close()
	endpoint, err := url.Parse(http.URL)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(r *rig) {
		set := backend.New(func(s backend.Spec) backend.Server { return ollama.New(&s.Endpoint) },
			func(s backend.Spec, _ job.Facts) power.DeviceClass { return s.Class }, r.Log)
		t.Cleanup(set.Close)
		set.Configure([]backend.Spec{{ID: "ollama-igpu", Type: "ollama", Class: power.IntegratedGPU, Slots: 64, Endpoint: *endpoint}})
		jobs := dispatch.New(dispatch.Parts{Tiers: r.tiers, Backends: set, Meter: meter.New(meter.Options{}), Ledger: ledger.New("", ledger.DefaultKeep(), r.Log), Log: r.Log}, dispatch.DefaultSettings())
		var driven sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		driven.Go(func() { _ = jobs.Drive(ctx) })
		t.Cleanup(func() { cancel(); driven.Wait() })
		r.Backends, r.Runner = set, jobs
	})
	peer := r.bus.Connect(t)
	e := newSink(t, "pipe")
	_, route, err := generateTo(peer, e, options{})
	if err != nil || route["backend_used"].Value() != "ollama-igpu" {
		t.Fatalf("got %v, %v", route, err)
	}
	if got := readAll(t, e); got != "Hello\x04" {
		t.Errorf("got %q", got)
	}
	for _, c := range []struct {
		rule    string
		options options
		name    string
	}{
		{"a target that there is not", options{"target": option("tpu")}, "org.freedesktop.DBus.Error.InvalidArgs"},
		{"a model that there is not", options{"model": option("q")}, "io.github.joulemux.Error.ModelNotFound"},
		{"a cap that nothing meets", options{"max_power_watts": option(1)}, "io.github.joulemux.Error.NoBackend"},
	} {
		_, _, err := generateTo(peer, newSink(t, "pipe"), c.options)
		expectError(t, c.rule, err, c.name, "")
	}
	e = newSink(t, "socket")
	if _, _, err := generateTo(peer, e, options{"system": option("wait")}); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 5)
	_ = e.near.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(e.near, first); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_ = e.near.Close()
	receive(t, gone)
	if took := time.Since(began); took > soon {
		t.Errorf("the server was let go after %v", took)
	}
}
