package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/joulemux/joulemux/packaging/rig"
	"github.com/joulemux/joulemux/power/nvml"
	"github.com/joulemux/joulemux/power/powertest"
)

func TestADay(t *testing.T) {
	d := newDemo(t)
	trace := filepath.Join(t.TempDir(), "trace")
	if err := rig.Trace(d.Cmd, trace); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	d.Stderr = &said
	table, err := d.Output()
	if err != nil {
		t.Fatalf("it fails: %v\n%s%s", err, table, &said)
	}
	row := regexp.MustCompile(`(?m)^(\w+) +\d+ %  (.*)$`)
	tiers := make(map[string]int)
	for _, found := range row.FindAllStringSubmatch(string(table), -1) {
		tiers[found[1]]++
		if strings.Contains(found[2], "(CPU stands in)") == strings.Contains(found[2], "  none  ") {
			t.Errorf("a row does not say that CPU stands in, or that it does for nothing: %s", found[0])
		}
	}
	for tier, want := range map[string]int{"mains": 8, "battery": 5, "saver": 4, "low": 4, "critical": 4} {
		if tiers[tier] != want {
			t.Errorf("%d rows of tier %s, want %d", tiers[tier], tier, want)
		}
	}
	if ledger := regexp.MustCompile(`(?m)^total +\d+ `); !ledger.Match(table) {
		t.Errorf("it does not end with what the day took:\n%s", table)
	}
	for line := range strings.Lines(string(table)) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > width {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	d.leavesNothing(t)
	leavesTheGPUAlone(t, trace)
}

func TestCtrlCLeavesNothing(t *testing.T) {
	for _, c := range []struct{ when, line string }{
		{"while it builds", "building"},
		{"while the Ollamas start", "starting four Ollamas"},
		{"while the daemon starts", "starting joulemuxd"},
	} {
		t.Run(c.when, func(t *testing.T) {
			d := newDemo(t)
			said := &watched{line: c.line, seen: make(chan struct{})}
			d.Stderr = said
			if err := d.Start(); err != nil {
				t.Fatal(err)
			}
			select {
			case <-said.seen:
			case <-t.Context().Done():
			}
			if err := d.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			if err := d.Wait(); d.ProcessState.ExitCode() != 1 {
				t.Errorf("it ends with %v, want exit code 1\n%s", err, &said.text)
			}
			d.leavesNothing(t)
		})
	}
}

// demo is the program, with a folder of its own for what is temporary.
type demo struct {
	*exec.Cmd
	temporary string
}

func newDemo(t *testing.T) demo {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real daemons")
	}
	binary := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	temporary, err := os.MkdirTemp("", "d") // A test's own is too long for sockets.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(temporary) })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	d := demo{exec.CommandContext(ctx, binary), temporary}
	d.Env = append(os.Environ(), "TMPDIR="+temporary, "MODEL=")
	return d
}

// leavesTheGPUAlone complains if the daemon or the client disturbed the GPU's
// sleep, and if the daemon did not look whether it sleeps. What an Ollama does
// is its own affair.
func leavesTheGPUAlone(t *testing.T, trace string) {
	t.Helper()
	calls, err := rig.Calls(trace, "joulemuxd", "joulemux")
	if err != nil {
		t.Fatal(err)
	}
	seen, disturbing, by := 0, 0, make(map[string]int)
	for _, c := range calls {
		by[c.Program]++
		for _, path := range c.Paths() {
			if powertest.Disturbs(path) || strings.HasSuffix(path, nvml.Socket) {
				disturbing++
				t.Errorf("%s: %s", c.Program, c.Text)
			}
			if strings.HasSuffix(path, "0000:01:00.0/power/runtime_status") {
				seen++
			}
		}
	}
	if seen == 0 || len(by) != 2 {
		t.Errorf("the GPU's sleep was looked at %d times; calls by program: %v", seen, by)
	}
	t.Logf("calls %v, %d of them to see whether the GPU sleeps, and %d that disturb it", by, seen, disturbing)
}

// leavesNothing complains of files in the folder, and of processes that were
// started with it in their environment or on their command line.
func (d demo) leavesNothing(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(d.temporary, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		command, _ := os.ReadFile(filepath.Join(p, "cmdline")) // It may have ended.
		environment, _ := os.ReadFile(filepath.Join(p, "environ"))
		if bytes.Contains(append(command, environment...), []byte(d.temporary)) {
			t.Errorf("process %s is left: %q", filepath.Base(p), command)
		}
	}
}

// watched tells when a line is written that contains some words.
type watched struct {
	line string
	seen chan struct{}
	text bytes.Buffer
}

func (w *watched) Write(p []byte) (int, error) {
	before := strings.Contains(w.text.String(), w.line)
	w.text.Write(p)
	if !before && strings.Contains(w.text.String(), w.line) {
		close(w.seen)
	}
	return len(p), nil
}
