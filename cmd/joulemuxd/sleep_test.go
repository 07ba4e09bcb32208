package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/packaging/rig"
	"github.com/joulemux/joulemux/power/nvml"
	"github.com/joulemux/joulemux/power/powertest"
)

// TestSleepingGPUIsLeftAlone has the daemon do all that it does, on a laptop
// whose NVIDIA GPU sleeps, and goes by the system calls that it makes. What a
// server on that GPU does is the server's affair: here it is a canned one.
func TestSleepingGPUIsLeftAlone(t *testing.T) {
	l := startSleeper(t)
	l.work(t)
	for _, change := range []func() error{
		l.machine.Unplug, func() error { return l.machine.SetDraw(20) }, func() error { return l.machine.SetCharge(15) },
		l.machine.StopUPower, l.machine.Plug, func() error { return l.machine.StartUPower(t.Context()) },
		func() error { return l.machine.SetCharge(3) }, l.machine.Unplug, l.machine.Plug,
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		l.look(t)
	}
	daemontest.Eventually(t, "a charge of 3 %, on line power", func() bool {
		s := l.look(t)
		return s.Tier == "mains" && math.Round(s.Supply.ChargePercent) == 3
	})
	l.configure(t, "second")
	l.signal(t, syscall.SIGHUP)
	daemontest.Eventually(t, "the new configuration", func() bool {
		return strings.HasPrefix(l.look(t).Backends[0].ID, "second-")
	})
	l.work(t)
	l.signal(t, syscall.SIGTERM)
	<-l.daemon.Done()
	l.expectUndisturbed(t)
}

// sleeper is a laptop whose NVIDIA GPU sleeps, and the daemon on it.
type sleeper struct {
	folder  string
	machine *rig.Machine
	daemon  *rig.Process
	client  *http.Client
	server  string // behind every backend
	config  string // its name is in the ids of backends
}

// classes are those of the backends; of one nothing is said.
var classes = []string{"npu", "igpu", "nvidia", "dgpu", "cpu", "cloud", "unclassified"}

func startSleeper(t *testing.T) *sleeper {
	t.Helper()
	l := &sleeper{folder: daemontest.Folder(t), server: daemontest.Serve(t, unhurried(daemontest.CannedOllama()))}
	if err := os.Mkdir(l.file("joulemux"), 0o700); err != nil {
		t.Fatal(err)
	}
	// That of joulemux-nvml, for whoever would connect.
	socket, err := net.Listen("unix", l.file(nvml.Socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	system, session := startBus(t), startBus(t)
	l.startMachine(t, system)
	l.configure(t, "first")
	l.startDaemon(t, "DBUS_SYSTEM_BUS_ADDRESS="+system, "DBUS_SESSION_BUS_ADDRESS="+session)
	return l
}

func startBus(t *testing.T) (address string) {
	t.Helper()
	bus, err := rig.StartBus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bus.Close() })
	return bus.Address()
}

// startMachine starts a laptop with the hardware of a recorded one, and a
// battery that changes.
func (l *sleeper) startMachine(t *testing.T, system string) {
	t.Helper()
	var err error
	if l.machine, err = rig.StartMachine(t.Context(), system, t.Output()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.machine.Close() })
	hardware := powertest.Load(t, "optimus")
	hardware.Remove("sys/class/power_supply")
	if err := hardware.WriteSys(l.machine.SysDir()); err != nil {
		t.Fatal(err)
	}
	if err := l.machine.StartUPower(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (l *sleeper) startDaemon(t *testing.T, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binary,
		"--config", l.file("config.yaml"), "--sysfs", l.machine.SysDir(), "--log-level", "debug")
	cmd.Env = append(env, "XDG_RUNTIME_DIR="+l.folder, "HOME="+l.folder, "GORACE=atexit_sleep_ms=0")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := rig.Trace(cmd, l.file("trace")); err != nil {
		t.Fatal(err)
	}
	var err error
	if l.daemon, err = rig.StartFamily(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.daemon.Kill() })
	l.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.file("joulemux/api.sock"))
	}}}
	t.Cleanup(l.client.CloseIdleConnections)
	ready := func(ctx context.Context) error {
		_, err := l.ask(ctx, "GET", "/health", "")
		return err
	}
	if err := l.daemon.Await(t.Context(), ready); err != nil {
		t.Fatal(err)
	}
}

func (l *sleeper) file(name string) string { return filepath.Join(l.folder, name) }

// configure replaces the configuration by one with a name, as an editor does.
func (l *sleeper) configure(t *testing.T, name string) {
	t.Helper()
	var text strings.Builder
	text.WriteString("server: {http_port: 0, grpc_port: 0}\nthresholds: {steady_line_seconds: 0}\nbackends:\n")
	for _, class := range classes {
		hardware := "hardware: " + class + ", "
		switch class {
		case "unclassified":
			hardware = ""
		case "cloud":
			hardware += `models: {"llama3.2:1b": "llama3.2:1b"}, allow: {clients: ["*"], classes: [interactive, background]}, `
		}
		fmt.Fprintf(&text, "  - {id: %s-%s, %sendpoint: 'http://%s'}\n", name, class, hardware, l.server)
	}
	l.config = name
	err := errors.Join(os.WriteFile(l.file("new"), []byte(text.String()), 0o600), os.Rename(l.file("new"), l.file("config.yaml")))
	if err != nil {
		t.Fatal(err)
	}
}

// signal signals the daemon, whose number only strace knows.
func (l *sleeper) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(-l.daemon.PID(), s); err != nil {
		t.Fatal(err)
	}
}

// ask asks the daemon, and returns a good answer.
func (l *sleeper) ask(ctx context.Context, method, path, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, text)
	}
	return text, err
}

// look looks at all there is to see, and returns the status.
func (l *sleeper) look(t *testing.T) (s wire.Status) {
	t.Helper()
	for _, path := range []string{"/health", "/backends", "/joulemux/v1/models", "/api/tags", "/api/ps", "/metrics", "/joulemux/v1/status"} {
		text, err := l.ask(t.Context(), "GET", path, "")
		if err == nil && path == "/joulemux/v1/status" {
			err = json.Unmarshal(text, &s)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// work runs a job on each backend, all of them at once, and looks on.
func (l *sleeper) work(t *testing.T) {
	t.Helper()
	var jobs sync.WaitGroup
	for _, class := range classes {
		jobs.Go(func() {
			job := fmt.Sprintf(`{"model":"llama3.2:1b","messages":[{"role":"user","content":"Why?"}],"options":{"num_predict":25},"joulemux":{"target":"%s-%s"}}`, l.config, class)
			answer, err := l.ask(t.Context(), "POST", "/api/chat", job)
			if err != nil || class == "nvidia" && !strings.Contains(string(answer), `"energy_quality":"estimated"`) {
				t.Errorf("%s: %v, %s", class, err, answer)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		jobs.Wait()
		close(done)
	}()
	for running := true; running; {
		l.look(t)
		select {
		case <-done:
			running = false
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// expectUndisturbed goes through the trace of a daemon that has ended.
func (l *sleeper) expectUndisturbed(t *testing.T) {
	t.Helper()
	calls, err := rig.Calls(l.file("trace"), "joulemuxd")
	if err != nil {
		t.Fatal(err)
	}
	seen, disturbing := 0, 0
	for _, c := range calls {
		if strings.HasPrefix(c.Text, "execve(") {
			t.Error(c.Text) // Whatever that is, it may look at the GPU.
		}
		for _, path := range c.Paths() {
			if powertest.Disturbs(path) || strings.HasSuffix(path, nvml.Socket) {
				disturbing++
				t.Error(c.Text)
			}
			if strings.HasSuffix(path, "0000:01:00.0/power/runtime_status") {
				seen++
			}
		}
	}
	if seen == 0 {
		t.Error("it never looks whether the GPU sleeps")
	}
	t.Logf("%d calls, %d of them to see whether the GPU sleeps, and %d that disturb it", len(calls), seen, disturbing)
}

// unhurried has a server take a moment for each piece of an answer.
func unhurried(server http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		server.ServeHTTP(unhurriedWriter{w, r.Context().Done()}, r)
	})
}

type unhurriedWriter struct {
	http.ResponseWriter
	gone <-chan struct{}
}

// Write implements http.ResponseWriter.
func (w unhurriedWriter) Write(p []byte) (int, error) {
	select {
	case <-time.After(100 * time.Millisecond):
	case <-w.gone:
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w unhurriedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
