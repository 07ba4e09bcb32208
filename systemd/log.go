package systemd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	sdjournal "github.com/coreos/go-systemd/v22/journal"
)

// NewLogHandler returns a handler of logs that writes to standard error, a
// line for each record of at least the given level.
//
// For the journal, lines begin with their priority, as sd-daemon(3) has it, and
// say neither level nor time: the journal has both in fields of its own.
func NewLogHandler(level slog.Leveler) slog.Handler {
	if journal, err := sdjournal.StderrIsJournalStream(); err == nil && journal {
		return newJournal(os.Stderr, level)
	}
	return slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})
}

// A priority is syslog's, from sd-daemon(3).
type priority int

const (
	priorityError   priority = 3
	priorityWarning priority = 4
	priorityInfo    priority = 6
	priorityDebug   priority = 7
)

func priorityOf(l slog.Level) priority {
	switch {
	case l >= slog.LevelError:
		return priorityError
	case l >= slog.LevelWarn:
		return priorityWarning
	case l >= slog.LevelInfo:
		return priorityInfo
	default:
		return priorityDebug
	}
}

// journal has a handler for each priority. All have the same attributes, and
// differ in what their lines begin with.
type journal map[priority]slog.Handler

func newJournal(w io.Writer, level slog.Leveler) journal {
	j := make(journal)
	for _, p := range []priority{priorityError, priorityWarning, priorityInfo, priorityDebug} {
		j[p] = slog.NewTextHandler(prefixed{w, fmt.Sprintf("<%d>", p)}, &slog.HandlerOptions{
			Level:       level,
			ReplaceAttr: withoutLevel,
		})
	}
	return j
}

// withoutLevel drops the level of the record. An attribute that looks the same
// goes with it: slog does not tell them apart.
func withoutLevel(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 || a.Key != slog.LevelKey {
		return a
	}
	if _, ok := a.Value.Any().(slog.Level); !ok {
		return a
	}
	return slog.Attr{}
}

// Enabled implements slog.Handler. The level is the same for all priorities.
func (j journal) Enabled(ctx context.Context, l slog.Level) bool {
	return j[priorityInfo].Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (j journal) Handle(ctx context.Context, r slog.Record) error {
	r.Time = time.Time{}
	return j[priorityOf(r.Level)].Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (j journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return j.each(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (j journal) WithGroup(name string) slog.Handler {
	return j.each(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (j journal) each(f func(slog.Handler) slog.Handler) journal {
	all := make(journal, len(j))
	for p, h := range j {
		all[p] = f(h)
	}
	return all
}

// prefixed writes a line with a prefix, in one write: lines of several
// goroutines must not end up in one another.
type prefixed struct {
	w      io.Writer
	prefix string
}

func (p prefixed) Write(line []byte) (int, error) {
	n, err := p.w.Write(append([]byte(p.prefix), line...))
	return max(n-len(p.prefix), 0), err
}
