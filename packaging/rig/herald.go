package rig

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"sync"
)

// A herald stands at the output of a process. It passes everything on to a
// log, and hands over the first line that it was told to look for.
type herald struct {
	log  io.Writer
	line *regexp.Regexp
	news chan string // The first group of the line; holds one.

	mu   sync.Mutex
	rest []byte // The beginning of a line whose end is yet to come.
	last string // The last line that was complete, for errors.
}

func newHerald(line string, log io.Writer) *herald {
	return &herald{log: discard(log), line: regexp.MustCompile(line), news: make(chan string, 1)}
}

// Write takes output of the process. It never waits for a reader of the news.
func (h *herald) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rest = append(h.rest, p...)
	for {
		line, rest, complete := bytes.Cut(h.rest, []byte("\n"))
		if !complete {
			break
		}
		h.read(string(line))
		h.rest = rest
	}
	return h.log.Write(p)
}

func (h *herald) read(line string) {
	h.last = line
	found := h.line.FindStringSubmatch(line)
	if found == nil {
		return
	}
	select {
	case h.news <- found[1]:
	default:
	}
}

// from waits for the line, which p is to write. It gives up when p ends or ctx
// is done.
func (h *herald) from(ctx context.Context, p *Process) (string, error) {
	select {
	case found := <-h.news:
		return found, nil
	case <-p.Done():
		return "", fmt.Errorf("%s ended: %w: %s", p.name(), p.ending(), h.lastLine())
	case <-ctx.Done():
		return "", fmt.Errorf("wait for %s: %w: %s", p.name(), ctx.Err(), h.lastLine())
	}
}

func (h *herald) lastLine() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}
