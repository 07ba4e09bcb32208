package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/joulemux/joulemux/packaging/rig"
)

// patience is what a loaded machine may take for what should take no time.
const patience = 30 * time.Second

// world is a joulemuxd and all that is around it.
type world struct {
	session, system *rig.Bus
	machine         *rig.Machine
	joulemuxd       daemon
	backends        []string // their URLs
	other           string   // that of a server of OpenAI's API alone

	dir   string
	start []string // the command that starts a joulemuxd, or none
	close []func() error
}

// daemon is a joulemuxd that runs.
type daemon struct {
	process *rig.Process
	url     string // of the HTTP port
	grpc    string // the address of gRPC's port
	socket  string
}

// newWorld makes a laptop that runs a joulemuxd, which a command may start, with so
// many backends, which have so many models beside the usual.
func newWorld(ctx context.Context, backends, models int, start ...string) (*world, error) {
	w := &world{start: start}
	if err := w.make(ctx, backends, models); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *world) make(ctx context.Context, backends, models int) (err error) {
	if w.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return err
	}
	w.later(func() error { return os.RemoveAll(w.dir) })
	for range backends {
		_, url, err := w.role(fakeBackend, strconv.Itoa(models))
		if err != nil {
			return err
		}
		w.backends = append(w.backends, url)
	}
	if _, w.other, err = w.role(fakeOpenAI); err != nil {
		return err
	}
	if err := w.startMachine(ctx); err != nil {
		return err
	}
	return w.startDaemon(ctx)
}

// startMachine starts the buses, and upowerd on one of them.
func (w *world) startMachine(ctx context.Context) (err error) {
	if w.session, err = rig.StartBus(ctx); err != nil {
		return err
	}
	w.later(w.session.Close)
	if w.system, err = rig.StartBus(ctx); err != nil {
		return err
	}
	w.later(w.system.Close)
	if w.machine, err = rig.StartMachine(ctx, w.system.Address(), nil); err != nil {
		return err
	}
	w.later(w.machine.Close)
	// Without the kernel's own figure, which is whole percent, UPower takes the
	// charge from the energy.
	battery := rig.Battery(80)
	delete(battery, "capacity")
	if err := errors.Join(w.machine.Remove("BAT0"), w.machine.Add("BAT0", battery)); err != nil {
		return err
	}
	return w.machine.StartUPower(ctx)
}

// startDaemon builds joulemuxd and starts it with every listener it has.
func (w *world) startDaemon(ctx context.Context) (err error) {
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-o", w.program(), "github.com/joulemux/joulemux/cmd/joulemuxd")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build joulemuxd: %w", err)
	}
	w.joulemuxd, err = w.another(ctx, w.program(), "first", w.machine.SysDir(), w.session)
	return err
}

func (w *world) program() string { return filepath.Join(w.dir, "joulemuxd") }

// another starts a joulemuxd in a folder of its own, on hardware and a bus of
// its own.
func (w *world) another(ctx context.Context, program, name, sys string, session *rig.Bus) (d daemon, err error) {
	folder := filepath.Join(w.dir, name)
	if err := os.Mkdir(folder, 0o700); err != nil {
		return d, err
	}
	var ports [2]string
	for i := range ports {
		if ports[i], err = freeAddress(); err != nil {
			return d, err
		}
	}
	config := filepath.Join(folder, "config.yaml")
	if err := os.WriteFile(config, []byte(w.config(ports[0], ports[1])), 0o600); err != nil {
		return d, err
	}
	command := append(slices.Clone(w.start), program, "--config", config, "--sysfs", sys)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = []string{
		"HOME=" + folder, "XDG_RUNTIME_DIR=" + folder,
		"DBUS_SESSION_BUS_ADDRESS=" + session.Address(), "DBUS_SYSTEM_BUS_ADDRESS=" + w.system.Address(),
	}
	cmd.Stderr = os.Stderr
	if d.process, err = rig.Start(cmd); err != nil {
		return d, err
	}
	w.later(d.process.Close)
	d.url, d.grpc, d.socket = "http://"+ports[0], ports[1], filepath.Join(folder, "joulemux", "api.sock")
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return d, d.process.Await(ctx, func(ctx context.Context) error { return ready(ctx, d.url) })
}

// config names the backends, which are all of one class and so all to be
// weighed for each job. They never are what a job waits for.
func (w *world) config(http, grpc string) string {
	_, httpPort, _ := net.SplitHostPort(http)
	_, grpcPort, _ := net.SplitHostPort(grpc)
	var text strings.Builder
	fmt.Fprintf(&text, "server: {http_port: %s, grpc_port: %s}\nrouting: {default_backend: backend-0}\nmonitoring: {log_level: warn}\nbackends:\n", httpPort, grpcPort)
	for i, url := range w.backends {
		fmt.Fprintf(&text, "- {id: backend-%d, type: ollama, hardware: igpu, slots: 1024, endpoint: %q}\n", i, url)
	}
	fmt.Fprintf(&text, "- {id: other, type: openai, hardware: igpu, slots: 1024, endpoint: %q}\n", w.other)
	return text.String()
}

func ready(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// role starts this program in another role, behind a socket of its own.
func (w *world) role(args ...string) (p *rig.Process, url string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, "", err
	}
	defer socket.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	cmd := exec.Command(self, args...)
	cmd.Env = []string{}
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Stderr = os.Stderr
	if p, err = rig.Start(cmd); err != nil {
		return nil, "", err
	}
	w.later(p.Close)
	return p, "http://" + l.Addr().String(), nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// later has something undone when the world ends, the latest first.
func (w *world) later(undo func() error) { w.close = append(w.close, undo) }

// Close ends everything. That a role ends by a signal is no error.
func (w *world) Close() error {
	var errs []error
	for i := len(w.close) - 1; i >= 0; i-- {
		errs = append(errs, w.close[i]())
	}
	return errors.Join(errs...)
}
