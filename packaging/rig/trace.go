package rig

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
)

// traced are the system calls by which a process reaches for what is outside.
const traced = "trace=open,openat,openat2,connect,execve"

// Trace has a program that is yet to be started run under strace, which writes
// to a file what it and all that it starts open, connect to and execute. strace
// takes no notice of signals: send them to the process group.
func Trace(cmd *exec.Cmd, file string) error {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return fmt.Errorf("%w; packaging/rig/install gets it", err)
	}
	// The filter has all other calls run at their usual speed. Of each caller
	// its name is told, and of each descriptor where it leads.
	cmd.Args = append([]string{
		strace, "--follow-forks", "--seccomp-bpf", "--decode-pids=comm", "--decode-fds=path",
		"--quiet=all", "--string-limit=4096", "-e", traced, "--output=" + file, "--", cmd.Path,
	}, cmd.Args[1:]...)
	cmd.Path = strace
	return nil
}

// A Call is a line of a trace: a system call, or how one ended.
type Call struct {
	Program string // that called
	Text    string // as strace writes it
}

// Calls reads the calls of some programs from a trace.
func Calls(file string, programs ...string) ([]Call, error) {
	trace, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = trace.Close() }()
	line := regexp.MustCompile(`^\d+<([^>]*)> +(.*)$`)
	var calls []Call
	lines := bufio.NewScanner(trace)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if found := line.FindStringSubmatch(lines.Text()); found != nil && slices.Contains(programs, found[1]) {
			calls = append(calls, Call{found[1], found[2]})
		}
	}
	return calls, lines.Err()
}

// Paths returns all that may be a path in the call: as the caller gave it, and
// where the kernel says that it leads.
func (c Call) Paths() []string {
	var paths []string
	for _, found := range regexp.MustCompile(`(?:<([^<>]*)>, )?"([^"]*)"`).FindAllStringSubmatch(c.Text, -1) {
		folder, name := found[1], found[2]
		if !filepath.IsAbs(name) {
			name = filepath.Join(folder, name)
		}
		paths = append(paths, name)
	}
	for _, found := range regexp.MustCompile(`= \d+<([^<>]*)>$`).FindAllStringSubmatch(c.Text, -1) {
		paths = append(paths, found[1])
	}
	return paths
}
