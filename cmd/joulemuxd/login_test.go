package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/packaging/rig"
)

// login is a shell of a user who is logged in where joulemux is installed,
// under a user manager of its own.
type login struct {
	stdin io.Writer
	out   *bufio.Reader
}

// limit is how long all that happens in one login may take.
const limit = 5 * time.Minute

// logIn installs joulemux, and logs a user in until the test ends.
func logIn(t *testing.T) *login {
	t.Helper()
	tree := t.TempDir()
	userns, err := rig.Script("userns")
	if err != nil {
		t.Fatal(err)
	}
	install := exec.CommandContext(t.Context(), "make", "-C", "../..", "install", "PREFIX=/usr", "DESTDIR="+tree)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	cmd := exec.CommandContext(ctx, userns, "--root", tree, "--", "bash")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // It then takes all of it down.
	cmd.WaitDelay = 5 * time.Second
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer cancel()
		_ = stdin.Close() // The shell ends, and everything with it.
		if err := cmd.Wait(); err != nil {
			t.Errorf("the login ended with %v", err)
		}
	})
	return &login{stdin, bufio.NewReader(stdout)}
}

// try runs a command, and returns what it said and its exit code.
func (l *login) try(t *testing.T, command string) (said string, code int) {
	t.Helper()
	const end = "that was all of it: "
	if _, err := fmt.Fprintf(l.stdin, "{ %s\n} </dev/null 2>&1; printf '\\n%s%%d\\n' $?\n", command, end); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for {
		line, err := l.out.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v\n%s%s", command, err, all.String(), line)
		}
		if text, ok := strings.CutPrefix(line, end); ok {
			code, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(all.String()), code
		}
		all.WriteString(line)
	}
}

// run runs a command that has to succeed and to say certain things.
func (l *login) run(t *testing.T, command string, wants ...string) string {
	t.Helper()
	said, code := l.try(t, command)
	if code != 0 {
		t.Fatalf("%s: exit code %d\n%s", command, code, said)
	}
	for _, want := range wants {
		if !strings.Contains(said, want) {
			t.Errorf("%s does not say %q:\n%s", command, want, said)
		}
	}
	return said
}

// property returns a property of the daemon's unit.
func (l *login) property(t *testing.T, name string) string {
	t.Helper()
	return l.run(t, "systemctl --user show --value -p "+name+" "+service)
}

// configure replaces the user's configuration, as an editor does.
func (l *login) configure(t *testing.T, text string) {
	t.Helper()
	l.run(t, "mkdir -p ~/.config/joulemux && cat >~/.config/joulemux/new <<'END' && mv ~/.config/joulemux/{new,config.yaml}\n"+text+"\nEND")
}

// stop stops the daemon and leaves the sockets, and makes the manager forget
// how often it was started: a test does that more often than a user.
func (l *login) stop(t *testing.T) {
	t.Helper()
	l.run(t, "systemctl --user stop joulemuxd.service; systemctl --user reset-failed joulemuxd.service joulemux.socket joulemux-http.socket")
	l.expectState(t, "inactive")
}

// expectState checks whether the daemon runs. A start that has begun is waited for.
func (l *login) expectState(t *testing.T, want string) {
	t.Helper()
	if want == "active" && l.property(t, "ActiveState") == "activating" {
		l.run(t, "systemctl --user start "+service)
	}
	if got := l.property(t, "ActiveState"); got != want {
		t.Fatalf("the daemon is %s, want %s\n%s", got, want, l.run(t, "journalctl --user --no-pager -n 20"))
	}
}
