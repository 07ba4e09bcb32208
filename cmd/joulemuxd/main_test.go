package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "joulemuxd-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "joulemuxd")
	if out, err := exec.Command("go", "build", "-race", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", out, err)
		return 1
	}
	return m.Run()
}

func TestCommandLines(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"good.yaml":    "server:\n  http_port: 0\n",
		"remarks.yaml": "monitoring:\n  prometheus_port: 9090\n",
		"unknown.yaml": "server:\n  http_prt: 1\n",
		"faults.yaml":  "server:\n  http_port: 70000\n  host: nowhere\n",
		"broken.yaml":  "server: [\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // regular expressions for all of it
	}{
		{"a good file is in order", []string{"--check", "--config=good.yaml"}, 0, `^good\.yaml is in order\n$`, `^$`},
		{"a file that is not there is one with nothing in it, and said not to be there", []string{"--check", "--config=none.yaml"}, 0, `^there is no none\.yaml, and so the defaults are in force\n$`, `^$`},
		{"what has no effect is remarked on", []string{"--check", "--config=remarks.yaml"}, 0, `^line 2: monitoring\.prometheus_port: .*\nremarks\.yaml is in order\n$`, `^$`},
		{
			"an unknown key is named with its line and what may be meant",
			[]string{"--check", "--config=unknown.yaml"},
			78, `^$`,
			`^joulemuxd: .*unknown\.yaml: line 2: server\.http_prt: no such key; did you mean "http_port"\?\n$`,
		},
		{
			"all faults are told at once",
			[]string{"--check", "--config=faults.yaml"},
			78, `^$`,
			`(?s)2 faults:.*line 2: server\.http_port: .*line 3: server\.host: `,
		},
		{"a file that is no YAML is a fault", []string{"--check", "--config=broken.yaml"}, 78, `^$`, `^joulemuxd: .*not YAML`},
		{"a directory is no file", []string{"--check", "--config=."}, 78, `^$`, `^joulemuxd: .*is no regular file, but a directory\n$`},
		{"the version is one line", []string{"--version"}, 0, `^joulemuxd \S+\n$`, `^$`},
		{"help is no failure", []string{"--help"}, 0, `^$`, `^Usage of joulemuxd:\n(?s:.*)-log-level level`},
		{"an unknown flag is told once", []string{"--nope"}, 2, `^$`, `^flag provided but not defined: -nope\nUsage of joulemuxd:\n([ \t].*\n)+$`},
		{"arguments are not expected", []string{"serve"}, 2, `^$`, `^joulemuxd: unexpected argument "serve"\n$`},
		{"a level of the log that there is not", []string{"--log-level=loud"}, 2, `^$`, `^joulemuxd: --log-level: .*"loud"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			cmd := exec.CommandContext(t.Context(), binary, tt.args...)
			cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
			cmd.Dir, cmd.Stdout, cmd.Stderr = folder, &stdout, &stderr
			err := cmd.Run()
			if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != tt.code {
				t.Errorf("exit code %d, want %d", got, tt.code)
			}
			expectMatch(t, "stdout", stdout.String(), tt.stdout)
			expectMatch(t, "stderr", stderr.String(), tt.stderr)
		})
	}
}

func expectMatch(t *testing.T, what, text, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(text) {
		t.Errorf("%s is %q, and does not match %q", what, text, pattern)
	}
}
