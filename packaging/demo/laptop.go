package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/joulemux/joulemux/packaging/rig"
)

// plan is what differs between the day and the laptop to play with.
type plan struct {
	model string    // the name of the tiny model
	http  int       // the daemon's TCP port; 0 for none
	ports [4]string // where the Ollamas listen; "" for any
}

var (
	day    = plan{model: "tiny"}
	served = plan{model: "qwen2.5:0.5b", http: 8080, ports: [4]string{"11434", "11435", "11436", "11437"}}
)

// devices are the classes that CPU processes stand in for.
var devices = [4]string{"npu", "igpu", "nvidia", "cpu"}

// laptop is everything that runs.
type laptop struct {
	plan
	folder  string
	env     []string // of the daemon and the clients
	machine *rig.Machine
	log     *syncBuffer // what the daemon says
	// parts are closed from the last to the first.
	parts []io.Closer
}

// start makes the laptop. On an error nothing of it is left.
func start(ctx context.Context, p plan) (l *laptop, err error) {
	l = &laptop{plan: p, log: new(syncBuffer)}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.folder, err = os.MkdirTemp("", "joulemux-demo-"); err != nil {
		return nil, err
	}
	if err := l.build(ctx); err != nil {
		return nil, err
	}
	if err := l.startMachine(ctx); err != nil {
		return nil, err
	}
	addresses, err := l.startOllamas(ctx)
	if err != nil {
		return nil, err
	}
	return l, l.startDaemon(ctx, addresses)
}

func (l *laptop) close() error {
	var errs []error
	for _, p := range slices.Backward(l.parts) {
		errs = append(errs, p.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(l.folder))...)
}

func (l *laptop) path(names ...string) string {
	return filepath.Join(append([]string{l.folder}, names...)...)
}

// build makes the programs that are shown.
func (l *laptop) build(ctx context.Context) error {
	say("building joulemuxd and joulemux")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", l.path("bin")+"/", "./cmd/joulemuxd", "./cmd/joulemux")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building: %w", err)
	}
	return nil
}

// startMachine starts both buses, and the laptop on the system bus.
func (l *laptop) startMachine(ctx context.Context) error {
	say("starting two private buses, and a real upowerd on a simulated battery")
	system, err := rig.StartBus(ctx)
	if err != nil {
		return err
	}
	l.parts = append(l.parts, system)
	session, err := rig.StartBus(ctx)
	if err != nil {
		return err
	}
	l.parts = append(l.parts, session)
	if l.machine, err = rig.StartMachine(ctx, system.Address(), nil); err != nil {
		return err
	}
	l.parts = append(l.parts, l.machine)
	l.env = []string{
		"DBUS_SYSTEM_BUS_ADDRESS=" + system.Address(), "DBUS_SESSION_BUS_ADDRESS=" + session.Address(),
		"XDG_RUNTIME_DIR=" + l.path("run"), "XDG_STATE_HOME=" + l.path("state"), "XDG_CONFIG_HOME=" + l.path("config"),
		"HOME=" + l.folder, "PATH=" + l.path("bin") + ":" + os.Getenv("PATH"),
	}
	if err := l.machine.Plug(); err != nil {
		return err
	}
	return l.machine.StartUPower(ctx)
}

// startOllamas starts a server for each device, and gives them a model. They
// share its folder.
func (l *laptop) startOllamas(ctx context.Context) (addresses [4]string, err error) {
	binary, err := rig.OllamaBinary(ctx)
	if err != nil {
		return addresses, err
	}
	models, own := l.path("models"), true
	if name := os.Getenv("MODEL"); name != "" {
		l.model, own = name, false
		home, _ := os.UserHomeDir()
		models = cmp.Or(os.Getenv("OLLAMA_MODELS"), filepath.Join(home, ".ollama", "models"))
	}
	say("starting four Ollamas on the CPU with the model %s", l.model)
	for i, device := range devices {
		o := rig.OllamaOptions{Binary: binary, Home: l.path("home-" + device), Models: models}
		if l.ports[i] != "" {
			o.Addr = "127.0.0.1:" + l.ports[i]
		}
		if err := os.MkdirAll(o.Home, 0o700); err != nil {
			return addresses, err
		}
		server, err := rig.StartOllama(ctx, o)
		if err != nil {
			return addresses, fmt.Errorf("the Ollama that stands in for the %s: %w", device, err)
		}
		l.parts = append(l.parts, server)
		addresses[i] = server.URL()
	}
	if !own {
		return addresses, nil
	}
	gguf, err := rig.TinyModel(ctx)
	if err != nil {
		return addresses, err
	}
	return addresses, rig.CreateModel(ctx, addresses[0], l.model, gguf)
}

// configuration says outright what device each server stands for, since here
// none is what it says.
func (l *laptop) configuration(addresses [4]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "server: {http_port: %d}\nmodels: {default: %q}\nbackends:\n", l.http, l.model)
	for i, device := range devices {
		fmt.Fprintf(&b, "  - {id: ollama-%s, hardware: %s, endpoint: %q}\n", device, device, addresses[i])
	}
	return b.String()
}

// startDaemon starts joulemuxd, and returns when it answers.
func (l *laptop) startDaemon(ctx context.Context, addresses [4]string) error {
	say("starting joulemuxd")
	for _, folder := range []string{l.path("run"), l.path("config", "joulemux")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
	}
	file := l.path("config", "joulemux", "config.yaml")
	if err := os.WriteFile(file, []byte(l.configuration(addresses)), 0o600); err != nil {
		return err
	}
	// Not ended by the context: it has to outlive the questions.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), l.path("bin", "joulemuxd"), "--sysfs", l.machine.SysDir())
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), l.env...), l.log, l.log
	daemon, err := rig.Start(cmd)
	if err != nil {
		return err
	}
	l.parts = append(l.parts, daemon)
	if err := daemon.Await(ctx, l.answers); err != nil {
		return fmt.Errorf("joulemuxd: %w\n%s", err, l.log)
	}
	if l.http != 0 && strings.Contains(l.log.String(), "the HTTP port cannot be opened") {
		return fmt.Errorf("joulemuxd: port %d is taken", l.http)
	}
	return nil
}

// answers reports whether the daemon has found the Ollamas, and its names.
func (l *laptop) answers(ctx context.Context) error {
	s, err := l.status(ctx)
	if err != nil {
		return err
	}
	for _, b := range s.Backends {
		if b.Status.State != "healthy" {
			return fmt.Errorf("%s: %s", b.ID, b.Status.Message)
		}
	}
	if !strings.Contains(l.log.String(), "joulemux is ready") {
		return errors.New("it is not ready")
	}
	return nil
}

// syncBuffer keeps what a process says, for whoever reads it meanwhile.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
