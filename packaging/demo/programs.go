package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/joulemux/joulemux/packaging/rig"
)

// build builds the daemon and the client into a folder of the laptop's.
func (l *laptop) build(ctx context.Context) error {
	l.say("building joulemuxd and joulemux")
	install, err := rig.Script("install")
	if err != nil {
		return err
	}
	work := l.file("build")
	if err := errors.Join(os.Mkdir(work, 0o700), os.Mkdir(l.file("bin"), 0o700)); err != nil {
		return err
	}
	// Git tells nothing of a checkout that belongs to somebody else, and go
	// would fail to ask it for a version.
	cmd := l.command(ctx, "go", "build", "-buildvcs=false", "-o", l.file("bin")+"/", "./cmd/joulemuxd", "./cmd/joulemux")
	cmd.Dir = filepath.Join(filepath.Dir(install), "..", "..")
	cmd.Env = append(os.Environ(), "GOTMPDIR="+work) // What is cut short there goes with the laptop.
	said := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = said, said
	if err := complete(ctx, cmd); err != nil {
		return fmt.Errorf("build: %w\n%s", err, said)
	}
	return nil
}

// command is a program on the laptop. It ends with the laptop, or when we say
// so: ctx has no part in it.
func (l *laptop) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), name, args...)
	if l.session != nil {
		cmd.Env = l.environment()
	}
	return cmd
}

// complete runs a program, and whatever it starts, to its end or that of ctx.
func complete(ctx context.Context, cmd *exec.Cmd) error {
	p, err := rig.StartFamily(cmd)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
		return p.Err()
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.Kill())
	}
}

// startDaemon starts joulemuxd, and returns when it answers.
func (l *laptop) startDaemon(ctx context.Context) error {
	l.say("starting joulemuxd")
	if err := l.shelve(); err != nil {
		return err
	}
	if err := os.WriteFile(l.file("config", "joulemux", "config.yaml"), []byte(l.configuration()), 0o600); err != nil {
		return err
	}
	cmd := l.command(ctx, l.file("bin", "joulemuxd"), "--sysfs", l.machine.SysDir())
	cmd.Stdout, cmd.Stderr = l.log, l.log
	var err error
	if l.daemon, err = rig.Start(cmd); err != nil {
		return err
	}
	l.keep(l.daemon)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return l.daemon.Await(ctx, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", l.socket())
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// shelve has the pipelines of this tree be the laptop's.
func (l *laptop) shelve() error {
	install, err := rig.Script("install") // packaging/rig/install
	if err != nil {
		return err
	}
	folder := l.file("config", "joulemux")
	shipped := filepath.Join(filepath.Dir(install), "..", "pipelines")
	return errors.Join(os.MkdirAll(folder, 0o755), os.Symlink(shipped, filepath.Join(folder, "pipelines")))
}

func (l *laptop) socket() string { return l.file("joulemux", "api.sock") }

// configuration says which Ollama is which hardware: a port tells none.
func (l *laptop) configuration() string {
	var text strings.Builder
	fmt.Fprintf(&text, "server:\n  http_port: %d\n  grpc_port: %d\n", l.httpPort, l.grpcPort)
	fmt.Fprintf(&text, "models:\n  default: %q\n", l.model)
	// The stand-ins would teach that all devices are equally fast.
	fmt.Fprintln(&text, "routing: {learn: false}")
	fmt.Fprintln(&text, "backends:")
	for _, d := range l.devices {
		fmt.Fprintf(&text, "  - {id: %s, type: ollama, hardware: %s, endpoint: %q}\n", d.id(), d.hardware, d.server.URL())
	}
	return text.String()
}

// tellLog shows the end of what the parts had to say.
func (l *laptop) tellLog() {
	const enough = 4 << 10
	text, err := os.ReadFile(l.file("log"))
	if err != nil || len(text) == 0 {
		return
	}
	if len(text) > enough {
		text = text[len(text)-enough:]
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	l.say("the last that the parts logged:\n%s", bytes.TrimRight(text, "\n"))
}
