package main

import (
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

const (
	heldLine     = `{"cookie":7,"tier":"low","reason":"on a plane","holder":"joulemux","since":"2026-05-06T07:08:09Z"}` + "\n"
	releasedLine = `{"cookie":7,"tier":"low","reason":"on a plane","holder":"joulemux","since":"2026-05-06T07:08:09Z","released":true}` + "\n"
)

func TestHoldLastsAsLongAsTheCommand(t *testing.T) {
	h, begun, gone := signalled(heldLine)
	r := replay(t, answers{"POST hold": h})
	p := start(t, r.socket, strings.NewReader("in\n"), "hold", "low", "--reason", "on a plane", "--",
		"sh", "-c", `read x; echo "$x $1"; echo err >&2; exit 3`, "sh", "--reason")
	code := p.exit(t)
	within(t, begun)
	within(t, gone)
	if code != 3 || p.out.String() != "in --reason\n" || p.err.String() != "err\n" {
		t.Errorf("it exits with %d, writes %q and says %q", code, p.out, p.err)
	}
	if want := `POST /joulemux/v1/hold {"tier":"low","reason":"on a plane"}`; r.requests()[0] != want {
		t.Errorf("it asks %s", r.requests()[0])
	}
}

func TestHoldExitsAsTheCommandDoes(t *testing.T) {
	notRunnable := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(notRunnable, []byte("\x7fELF nonsense"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		command []string
		code    int
		says    string
	}{
		{"well", []string{"true"}, 0, ""},
		{"badly", []string{"false"}, 1, ""},
		{"by a signal", []string{"sh", "-c", "kill -TERM $$"}, 128 + 15, ""},
		{"not at all, not being there", []string{"joulemux-has-no-such-command"}, 127, "cannot be run"},
		{"not at all, being no program", []string{notRunnable}, 126, "cannot be run"},
		{"not at all, being a folder", []string{t.TempDir()}, 126, "cannot be run"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, _, _ := signalled(heldLine)
			r := replay(t, answers{"POST hold": h})
			_, err, code := run(t, r.socket, nil, append([]string{"hold", "low", "--"}, c.command...)...)
			if code != c.code || (c.says == "") != (err == "") || !strings.Contains(err, c.says) {
				t.Errorf("it exits with %d and says %q", code, err)
			}
		})
	}
}

func TestHoldNamesTheCommandAsItsReason(t *testing.T) {
	h, _, _ := signalled(heldLine)
	r := replay(t, answers{"POST hold": h})
	run(t, r.socket, nil, "hold", "low", "--", "/bin/true", "love")
	if want := `POST /joulemux/v1/hold {"tier":"low","reason":"true"}`; r.requests()[0] != want {
		t.Errorf("it asks %s", r.requests()[0])
	}
}

func TestNothingRunsWithoutTheHold(t *testing.T) {
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		code int
	}{
		"the tier is none":      {refuses(400, wire.Error{Text: "tier: no such tier", Code: wire.CodeInvalid}), 2},
		"there are too many":    {refuses(429, wire.Error{Text: "busy", Code: wire.CodeBusy}), 7},
		"it is never confirmed": {says(""), 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := replay(t, answers{"POST hold": c.h})
			if out, err, code := run(t, r.socket, nil, "hold", "lo", "--", "echo", "ran"); code != c.code || out != "" || !strings.HasPrefix(err, "joulemux: ") {
				t.Errorf("it exits with %d, writes %q and says %q", code, out, err)
			}
		})
	}
}

// startHeld starts a command that runs until its standard input ends, under a hold
// that the test ends by closing end.
func startHeld(t *testing.T, last string, flags ...string) (p *running, end chan struct{}, input *os.File) {
	t.Helper()
	end = make(chan struct{})
	r := replay(t, answers{"POST hold": func(w http.ResponseWriter, req *http.Request) {
		write(w, heldLine)
		until(end, req)
		write(w, last)
		if last != "" {
			<-req.Context().Done()
		}
	}})
	in, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = input.Close() })
	p = start(t, r.socket, in, append(append([]string{"hold"}, flags...), "low", "--", "sh", "-c", "echo ready; cat")...)
	_ = in.Close()
	p.out.await(t, "ready")
	return p, end, input
}

func TestTheCommandSurvivesItsHold(t *testing.T) {
	for _, c := range []struct{ name, last, flag, says string }{
		{"the daemon goes", "", "--json=false", "joulemux: the daemon is gone, and the hold with it; sh runs on\n"},
		{"the daemon goes, in JSON", "", "--json", `{"error":{"error":"the daemon is gone, and the hold with it; sh runs on","code":"daemon_unreachable"}}` + "\n"},
		{"the user ends it", releasedLine, "--json=false", "joulemux: the hold on tier low was ended by the user; sh runs on\n"},
		{"the user ends it, in JSON", releasedLine, "--json", releasedLine},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, end, input := startHeld(t, c.last, c.flag)
			close(end)
			p.err.await(t, c.says)
			if _, err := input.WriteString("still here\n"); err != nil {
				t.Fatal(err)
			}
			p.out.await(t, "still here")
			_ = input.Close()
			if code := p.exit(t); code != 0 {
				t.Errorf("it exits with %d", code)
			}
			if said := strings.TrimPrefix(p.err.String(), heldLine); said != c.says {
				t.Errorf("it says %q", said)
			}
		})
	}
}

func TestSignalsReachTheCommand(t *testing.T) {
	// What a process ignores, as under nohup or in the background of a script, its
	// children ignore too; what it catches they do not.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP, syscall.SIGINT)
	t.Cleanup(func() { signal.Stop(caught) })
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1} {
		h, _, _ := signalled(heldLine)
		r := replay(t, answers{"POST hold": h})
		p := start(t, r.socket, nil, "hold", "low", "--",
			"sh", "-c", `trap 'echo caught; exit 9' INT TERM HUP USR1; echo ready; while :; do sleep 0.01; done`)
		p.out.await(t, "ready")
		if err := p.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if code := p.exit(t); code != 9 || p.out.String() != "ready\ncaught\n" {
			t.Errorf("%v: exits with %d, having written %q", s, code, p.out)
		}
	}
}

func TestCtrlCAtATerminalReachesTheCommandOnce(t *testing.T) {
	h, _, _ := signalled(heldLine)
	r := replay(t, answers{"POST hold": h})
	term := startAtTerminal(t, r.socket, "hold", "low", "--", "env", asListener+"=yes", os.Args[0])
	term.out.await(t, "ready\n")
	term.types(t, ctrlC)
	term.out.await(t, "interrupt\n")
	// Signals are passed on in their order: a second SIGINT would come before.
	if err := term.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := term.exit(t); code != 0 {
		t.Errorf("exits with %d", code)
	}
	term.out.await(t, "ready\ninterrupt\nterminated\n")
}
