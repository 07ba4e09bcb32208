package daemontest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/joulemux/joulemux/daemon"
	"github.com/joulemux/joulemux/dbus/dbustest"
)

// Patience is what a loaded machine may take for what should take no time.
const Patience = 30 * time.Second

// Options say what is around a daemon. The zero value is a machine on mains,
// with a session bus, without UPower and without backends.
type Options struct {
	// Config is the text of the configuration, without its section "server".
	Config string
	// Server is more of that section, such as "allow_admin: true".
	Server string
	// Runtime stands for XDG_RUNTIME_DIR; "" is a folder of the daemon's own.
	Runtime string
	// State is the folder for what has to last; "" keeps nothing.
	State string
	// Pipelines are the folders with pipelines.
	Pipelines []string
	// Port is the TCP port; 0 is a free one. GRPCPort is that of gRPC, likewise.
	Port, GRPCPort int
	// Sys is the kernel's tree; nil has no supplies and no devices.
	Sys fs.FS
	// SystemBus is an address; "" is that of a bus that is not there.
	SystemBus string
	// Lonely daemons have no session bus.
	Lonely bool
	// Beside is another daemon, started before. That nothing is left of the two
	// shows when that one has ended: until then what it has open changes.
	Beside *Daemon
}

// Daemon is a whole daemon that runs in the test's own process.
type Daemon struct {
	// Socket is the path of the Unix socket, and Addr what TCP clients connect
	// to, those of gRPC to GRPCAddr.
	Socket, Addr, GRPCAddr string
	// Bus is the session bus; nil for a lonely daemon.
	Bus *dbustest.Bus
	// Log is what the daemon has said.
	Log *Log
	// Before is what the process had open when the daemon was started.
	Before Levels

	t      testing.TB
	beside *Daemon
	config string
	server string
	port   int
	grpc   int
	reload chan os.Signal
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // of Run; to be read after ended
	client *http.Client
}

// Start starts a daemon, and returns when it is ready and knows its backends. It
// stops with the test, which fails if anything of it is left then.
func Start(t testing.TB, o Options) *Daemon {
	t.Helper()
	d, err := Try(t, o)
	if err != nil {
		t.Fatal("the daemon did not start: ", err)
	}
	return d
}

// Try is Start for a daemon that may refuse to.
func Try(t testing.TB, o Options) (*Daemon, error) {
	t.Helper()
	d := &Daemon{t: t, beside: o.Beside, Log: new(Log), server: o.Server, port: o.Port, grpc: o.GRPCPort, reload: make(chan os.Signal), ended: make(chan struct{})}
	if d.port == 0 {
		d.port = FreePort(t)
	}
	if d.grpc == 0 {
		d.grpc = FreePort(t)
	}
	d.surround(o)
	d.Configure(o.Config)
	d.Before = Count()
	d.run(o)
	ready := d.Log.When("joulemux is ready")
	select {
	case <-ready:
		d.lookAtBackends()
		return d, nil
	case <-d.ended:
		return nil, d.err
	case <-time.After(Patience):
		return nil, errors.New("it is not ready in time")
	}
}

// lookAtBackends has the daemon know those of this machine. The first job would
// wait for that for 150 ms, which a loaded machine exceeds.
func (d *Daemon) lookAtBackends() {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, "http://localhost/readyz", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := d.client.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	_ = resp.Body.Close()
	d.client.CloseIdleConnections()
}

// surround makes what the daemon finds around it.
func (d *Daemon) surround(o Options) {
	d.t.Helper()
	if o.Runtime == "" {
		o.Runtime = Folder(d.t)
	}
	session := ""
	if !o.Lonely {
		d.Bus = dbustest.Start(d.t)
		session = d.Bus.Address()
	}
	if o.SystemBus == "" {
		o.SystemBus = "unix:path=" + filepath.Join(o.Runtime, "nobody")
	}
	for name, value := range map[string]string{
		"XDG_RUNTIME_DIR": o.Runtime, "DBUS_SESSION_BUS_ADDRESS": session,
		"DBUS_SYSTEM_BUS_ADDRESS": o.SystemBus, "NOTIFY_SOCKET": "",
	} {
		d.t.Setenv(name, value)
	}
	d.Socket = filepath.Join(o.Runtime, "joulemux", "api.sock")
	d.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(d.port))
	d.GRPCAddr = net.JoinHostPort("127.0.0.1", strconv.Itoa(d.grpc))
	d.config = filepath.Join(Folder(d.t), "config.yaml")
}

// run runs the daemon.
func (d *Daemon) run(o Options) {
	if o.Sys == nil {
		o.Sys = fstest.MapFS{"class/power_supply": {Mode: fs.ModeDir | 0o755}, "bus/pci/devices": {Mode: fs.ModeDir | 0o755}}
	}
	level := new(slog.LevelVar)
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	d.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", d.Socket)
		},
	}}
	d.t.Cleanup(d.end)
	go func() {
		defer close(d.ended)
		d.err = daemon.Run(ctx, daemon.Options{
			Config: d.config, State: o.State, Pipelines: o.Pipelines, Sys: o.Sys, Proc: os.DirFS("/proc"), Version: "0-test",
			Log:   slog.New(slog.NewTextHandler(d.Log, &slog.HandlerOptions{Level: level})),
			Level: level, LogTarget: "console", Reload: d.reload,
		})
	}()
}

// Stop stops the daemon, and returns what Run did.
func (d *Daemon) Stop() error {
	d.cancel()
	select {
	case <-d.ended:
		return d.err
	case <-time.After(Patience):
		return errors.New("the daemon does not stop")
	}
}

// end stops the daemon with the test, and sees to it that nothing is left.
func (d *Daemon) end() {
	err := d.Stop()
	d.client.CloseIdleConnections()
	if d.beside == nil && !d.t.Failed() {
		d.Settle(d.Before)
	}
	if d.t.Failed() {
		d.t.Logf("the daemon ended with %v; it said:\n%s", err, d.Log)
	}
}

// Client asks over the Unix socket, whatever host a URL names.
func (d *Daemon) Client() *http.Client { return d.client }

// Configure replaces the configuration, as an editor does.
func (d *Daemon) Configure(text string) {
	d.t.Helper()
	text = fmt.Sprintf("server: {http_port: %d, grpc_port: %d, %s}\n%s", d.port, d.grpc, d.server, text)
	if err := errors.Join(os.WriteFile(d.config+".new", []byte(text), 0o600), os.Rename(d.config+".new", d.config)); err != nil {
		d.t.Fatal(err)
	}
}

// ConfigPath is where the configuration is.
func (d *Daemon) ConfigPath() string { return d.config }

// Reload has the daemon read its configuration, as SIGHUP does.
func (d *Daemon) Reload() {
	d.t.Helper()
	select {
	case d.reload <- os.Interrupt:
	case <-time.After(Patience):
		d.t.Fatal("the daemon does not take a signal")
	}
}

// Await waits until the daemon has said something.
func (d *Daemon) Await(text string) {
	d.t.Helper()
	select {
	case <-d.Log.When(text):
	case <-time.After(Patience):
		d.t.Fatalf("the daemon never said %q", text)
	}
}

// Folder returns an empty folder whose path is short enough for a socket in
// it, other than the test's own.
func Folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "jm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// FreePort returns a TCP port on which nobody listens. Until the test ends the
// kernel gives it to nobody who asks for any: it is bound, and yet whoever names
// it may listen there, as all do with SO_REUSEADDR.
func FreePort(t testing.TB) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	err = errors.Join(
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
	)
	bound, failed := syscall.Getsockname(fd)
	if err = errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return bound.(*syscall.SockaddrInet4).Port
}

// Log keeps what a daemon says.
type Log struct {
	mu      sync.Mutex
	text    strings.Builder
	awaited map[string]chan struct{}
}

// Write adds to the log.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	l.tellLocked()
	return len(p), nil
}

// When returns a channel that is closed once the log has that text in it.
func (l *Log) When(text string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.awaited == nil {
		l.awaited = make(map[string]chan struct{})
	}
	if l.awaited[text] == nil {
		l.awaited[text] = make(chan struct{})
	}
	there := l.awaited[text]
	l.tellLocked()
	return there
}

func (l *Log) tellLocked() {
	for text, there := range l.awaited {
		if strings.Contains(l.text.String(), text) {
			close(there)
			delete(l.awaited, text)
		}
	}
}

// String returns all that was said.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
