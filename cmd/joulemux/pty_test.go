package main

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is one that a program runs at, and what is on its screen.
type terminal struct {
	*running
	keys *os.File
}

// startAtTerminal starts joulemux at a terminal of its own.
func startAtTerminal(t *testing.T, socket string, args ...string) *terminal {
	t.Helper()
	keys, screen := openTerminal(t)
	term := &terminal{keys: keys, running: &running{
		Cmd: command(socket, args...), out: newWritten(), err: newWritten(), done: make(chan struct{}),
	}}
	term.Stdin, term.Stdout, term.Stderr = screen, screen, screen
	term.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	term.launch(t)
	if err := screen.Close(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buffer := make([]byte, 4096)
		for {
			n, err := keys.Read(buffer) // It fails when nobody has the terminal open.
			_, _ = term.out.Write(buffer[:n])
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = term.Process.Kill()
		<-term.done
		<-read
	})
	return term
}

func (term *terminal) types(t *testing.T, keys string) {
	t.Helper()
	if _, err := term.keys.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// openTerminal opens both ends of a new terminal (pts(4)), which does not
// echo: so what is read is what the program wrote.
func openTerminal(t *testing.T) (keys, screen *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	keys = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { _ = keys.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	settings, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	settings.Lflag &^= unix.ECHO
	settings.Oflag &^= unix.OPOST
	if err := unix.IoctlSetTermios(int(screen.Fd()), unix.TCSETS, settings); err != nil {
		t.Fatal(err)
	}
	return keys, screen
}

func TestTerminalsGetNoControlCharacters(t *testing.T) {
	r := replay(t, answers{"POST generate": says(
		`{"routed":{"tier":"battery","backend_used":"b\u001b[31m","hardware":"igpu","reason":"two\nlines"}}` + "\n" +
			`{"text":"a\u001b]0;title\u0007b\u009b2Jc\r\u007f\n\td ☔"}` + "\n" + endLine)})
	term := startAtTerminal(t, r.socket, "generate", "x")
	if code := term.exit(t); code != 0 {
		t.Errorf("exits with %d", code)
	}
	term.out.await(t, "tier battery, b[31m (igpu): two lines\na]0;titleb2Jc\n\td ☔\nfailed before: ")
}

func TestTerminalsGetNoneOnStandardErrorEither(t *testing.T) {
	h, _, _ := signalled(`{"cookie":7,"tier":"low","reason":"\u009b2J","holder":"","since":"2026-05-06T07:08:09Z"}` + "\n")
	r := replay(t, answers{"POST hold": h})
	term := startAtTerminal(t, r.socket, "hold", "low", "--json", "--", "true")
	if code := term.exit(t); code != 0 {
		t.Errorf("exits with %d", code)
	}
	term.out.await(t, `"reason":"2J"`)
}

func TestAnswersThatBreakOffEndTheirLine(t *testing.T) {
	r := replay(t, answers{"POST generate": says(textLines)})
	term := startAtTerminal(t, r.socket, "generate", "x")
	if code := term.exit(t); code != 1 {
		t.Errorf("exits with %d", code)
	}
	term.out.await(t, "scatters <b>\njoulemux: the answer broke off")
}

func TestPromptsCanBeTyped(t *testing.T) {
	r := replay(t, answers{"POST generate": says(wholeAnswer)})
	term := startAtTerminal(t, r.socket, "generate")
	term.out.await(t, "Ctrl-D")
	term.types(t, "why?\n\x04")
	if code := term.exit(t); code != 0 || r.requests()[0] != `POST /joulemux/v1/generate {"prompt":"why?\n"}` {
		t.Errorf("exits with %d, having asked %q", code, r.requests())
	}
}
