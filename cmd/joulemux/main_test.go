package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asProgram makes the test binary the program that it tests, built in the same
// way: with the race detector if the tests have it, and known to the cache of
// test results.
const asProgram = "JOULEMUX_TEST_AS_PROGRAM"

// asListener makes it a command that tells every signal, and ends at SIGTERM.
const asListener = "JOULEMUX_TEST_AS_LISTENER"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asListener) != "":
		listen()
	case os.Getenv(asProgram) != "":
		main()
	default:
		os.Exit(m.Run())
	}
}

func listen() {
	heard := make(chan os.Signal, 16)
	signal.Notify(heard, os.Interrupt, syscall.SIGTERM)
	fmt.Println("ready")
	for s := range heard {
		fmt.Println(s)
		if s == syscall.SIGTERM {
			return
		}
	}
}

// command is the program, to talk to the daemon on socket.
func command(socket string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.WaitDelay = deadline / 3 // for commands that outlive a hold that was killed
	// The race detector would have it sleep for a second at its end.
	cmd.Env = append(os.Environ(), asProgram+"=yes", "JOULEMUX_SOCKET="+socket, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// deadline is for what ought to come at once.
const deadline = 30 * time.Second

// within waits for a channel to be closed.
func within(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(deadline):
		t.Fatal("it does not come")
	}
}

// written collects what a program writes.
type written struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed by the next write
}

func newWritten() *written { return &written{more: make(chan struct{})} }

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.more)
	w.more = make(chan struct{})
	return w.text.Write(p)
}

func (w *written) now() (string, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String(), w.more
}

func (w *written) String() string {
	text, _ := w.now()
	return text
}

// await waits until text has been written.
func (w *written) await(t *testing.T, text string) {
	t.Helper()
	late := time.After(deadline)
	for {
		now, more := w.now()
		if strings.Contains(now, text) {
			return
		}
		select {
		case <-more:
		case <-late:
			t.Fatalf("%q was not written, but %q", text, now)
		}
	}
}

// running is a joulemux that runs.
type running struct {
	*exec.Cmd
	out, err *written
	done     chan struct{}
}

// start starts joulemux, talking to the daemon on socket, outside of any
// terminal that the tests may have.
func start(t *testing.T, socket string, stdin io.Reader, args ...string) *running {
	t.Helper()
	p := &running{Cmd: command(socket, args...), out: newWritten(), err: newWritten(), done: make(chan struct{})}
	p.Stdin, p.Stdout, p.Stderr = stdin, p.out, p.err
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	p.launch(t)
	return p
}

func (p *running) launch(t *testing.T) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.Wait()
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.done
	})
}

// exit waits for the program's end, and returns its exit code.
func (p *running) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(deadline):
		t.Fatalf("it does not end; it wrote %q and %q", p.out, p.err)
	}
	if strings.Contains(p.err.String(), "DATA RACE") {
		t.Errorf("%s", p.err)
	}
	return p.ProcessState.ExitCode()
}

func (p *running) interrupt(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
}

// run runs joulemux to its end.
func run(t *testing.T, socket string, stdin io.Reader, args ...string) (out, err string, code int) {
	t.Helper()
	p := start(t, socket, stdin, args...)
	code = p.exit(t)
	return p.out.String(), p.err.String(), code
}

func TestHelpNeedsNoDaemon(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"help exit-codes", "130  Ctrl-C"},
		{"help json", "answer_broken"},
		{"status --help", "custom/joulemux"},
		{"capture --help", "no serial numbers"},
		{"version", "joulemux "},
		{"version --json", `{"version":"`},
		{"--version", "joulemux version"},
		{"completion bash", "__start_joulemux"},
		{"__complete policy s", "saver"},
		{"__complete generate --class b", "background"},
		{"__complete explain --tier s", "saver"},
		{"__complete simulate --line f", "flips"},
		{"__complete simulate --policy b", "break-even"},
		{"__complete simulate --machine hy", "thinkpad\n:0"}, // or a file
		{"__complete simulate --trace d", "csv\n:8"},         // a file of that kind
		{"explain --help", "Nothing is generated"},
		{"", "Available Commands"},
	} {
		out, err, code := run(t, "/nowhere", nil, strings.Fields(c.args)...)
		if code != 0 || !strings.Contains(out, c.says) {
			t.Errorf("joulemux %s exits with %d and says %q, %q", c.args, code, out, err)
		}
	}
}
