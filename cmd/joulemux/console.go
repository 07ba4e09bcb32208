package main

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// console is where we read and write, and what of it is a terminal.
type console struct {
	in                     io.Reader
	out, err               io.Writer
	inTerminal, onTerminal bool // onTerminal is of out.
}

func newConsole(in, out, err *os.File) console {
	c := console{in: in, out: out, err: err, inTerminal: isTerminal(in), onTerminal: isTerminal(out)}
	if c.onTerminal {
		c.out = screen{out}
	}
	if isTerminal(err) {
		c.err = screen{err}
	}
	return c
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// screen writes to a terminal what cannot drive it. What a model says is not
// to be trusted: it may have read it on a web page, and a terminal obeys
// control characters by moving its cursor, setting its title or the clipboard.
// Files and pipes get every byte. Each write is whole characters.
type screen struct{ io.Writer }

func (s screen) Write(p []byte) (int, error) {
	if _, err := io.WriteString(s.Writer, harmless(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// harmless drops the control characters, of Unicode's C0 and C1 sets, but for
// newlines and tabs.
func harmless(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, text)
}

// plain makes one line of a text that somebody else wrote.
func plain(text string) string {
	return harmless(strings.Join(strings.Fields(text), " "))
}

// record writes v as a line of JSON, for --json.
func (a *app) record(v any) error {
	e := json.NewEncoder(a.records)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
