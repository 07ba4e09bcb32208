package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// usual is where people look for the parts, and a model that many of them
// have.
var usual = site{
	httpPort: 8080,
	grpcPort: 50051,
	ollamas:  [4]string{"127.0.0.1:11434", "127.0.0.1:11435", "127.0.0.1:11436", "127.0.0.1:11437"},
	tiny:     "qwen2.5:0.5b",
	profiles: true,
}

func (s site) http() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.httpPort)) }
func (s site) grpc() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.grpcPort)) }

// free complains of the addresses that are taken, before anything is started.
func (s site) free(ctx context.Context) error {
	var faults []error
	for _, addr := range append(s.ollamas[:], s.http(), s.grpc()) {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s is taken: stop what listens there, and try again: %w", addr, err))
			continue
		}
		faults = append(faults, listener.Close())
	}
	return errors.Join(faults...)
}

// playground keeps a laptop running until the user has had enough of it.
func playground(ctx context.Context, c console) (err error) {
	if err := usual.free(ctx); err != nil {
		return err
	}
	l, err := startLaptop(ctx, c, usual)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.examples(); err != nil {
		return err
	}
	return keyboard{l}.run(ctx)
}

// examples tells how to reach the laptop from another terminal.
func (l *laptop) examples() error {
	_, err := fmt.Fprintf(l.out, `
A laptop on the usual ports, with %[1]s. Its battery is simulated, CPU processes stand in for its four devices, and
costs are estimates: watts assumed x time. In another terminal:

    export XDG_RUNTIME_DIR=%[2]s
    export XDG_CONFIG_HOME=%[9]s
    export DBUS_SESSION_BUS_ADDRESS=%[3]s
    export PATH=%[4]s:%[5]s:$PATH
    export OLLAMA_HOST=%[6]s

    joulemux status --follow
    joulemux generate --background "Why is the sky blue?"
    joulemux explain --all-tiers "Why is the sky blue?"
    joulemux energy
    ollama list
    ollama run %[1]s "Why is the sky blue?"
    curl --unix-socket $XDG_RUNTIME_DIR/joulemux/api.sock http://localhost/api/chat \
        -d '{"model": "%[1]s", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'
    curl http://%[7]s/compute.v1.ComputeService/Generate \
        --json '{"model": "%[1]s", "prompt": "Why is the sky blue?", "options": {"max_tokens": 24}}'
    busctl --user call io.github.joulemux.Inference1 /io/github/joulemux/Inference1 \
        io.github.joulemux.Inference1 Generate 'sa{sv}' "Why is the sky blue?" 1 max_tokens i 24
    busctl --user introspect io.github.joulemux.Router1 /io/github/joulemux/Router1

Here: %[8]s

`, l.model, l.dir, l.session.Address(), l.file("bin"), filepath.Dir(l.ollama), l.http(), l.grpc(), commands, l.file("config"))
	return err
}

const commands = "unplug, plug, charge N, saver on|off, stop|start DEVICE, quit"

// keyboard does to the laptop what the user types.
type keyboard struct{ *laptop }

// run runs until the user says so, by word or by signal, or the daemon ends.
// That there is no more to read is no reason: it may be a service's input.
func (k keyboard) run(ctx context.Context) error {
	lines := readLines(ctx, bufio.NewScanner(k.in))
	for {
		select {
		case line, open := <-lines:
			if !open {
				k.say("no more commands; Ctrl-C ends it")
				lines = nil
				continue
			}
			if line == "quit" {
				return nil
			}
			if err := k.obey(ctx, strings.Fields(line)); err != nil {
				k.say("%v", err)
			}
		case <-k.daemon.Done():
			k.tellLog()
			return errors.Join(errors.New("joulemuxd has ended, and nobody asked it to"), k.daemon.Err())
		case <-ctx.Done():
			k.say("ending")
			return nil
		}
	}
}

// readLines reads in a goroutine, which the end of the program ends: a read of
// a terminal cannot be called off.
func readLines(ctx context.Context, scan *bufio.Scanner) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scan.Scan() {
			select {
			case lines <- strings.TrimSpace(scan.Text()):
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines
}

// obey does what a line says. What comes of it is the daemon's to show.
func (k keyboard) obey(ctx context.Context, words []string) error {
	switch line := strings.Join(words, " "); {
	case line == "":
		return nil
	case line == "plug":
		return k.machine.Plug()
	case line == "unplug":
		return k.machine.Unplug()
	case line == "saver on":
		return k.profile(ctx, "power-saver")
	case line == "saver off":
		return k.profile(ctx, "balanced")
	case words[0] == "stop" && len(words) == 2:
		return k.stopDevice(words[1])
	case words[0] == "start" && len(words) == 2:
		return k.startDevice(ctx, words[1])
	case words[0] == "charge" && len(words) == 2:
		percent, err := strconv.Atoi(words[1])
		if err != nil || percent < 0 || percent > 100 {
			return fmt.Errorf("charge %s: want a number from 0 to 100", words[1])
		}
		return k.machine.SetCharge(percent)
	default:
		return fmt.Errorf("%q is none of: %s", line, commands)
	}
}

func (k keyboard) profile(ctx context.Context, name string) error {
	if k.profiles == nil {
		return errors.New("there is no power-profiles-daemon here")
	}
	return k.profiles.Set(ctx, name)
}
