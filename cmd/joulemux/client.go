package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

const (
	// patience is how long the daemon may take to answer what needs no model.
	// systemd may have to start it first.
	patience = 10 * time.Second
	// maxLine bounds a line of an answer: some backends say everything in one.
	maxLine = 64 << 20
	// maxAnswer bounds what is no stream of lines.
	maxAnswer = 16 << 20
)

// client asks the daemon.
type client struct {
	socket string
	// jobs has no limit of its own: how long an answer may take is the
	// daemon's to decide. Of prompt the headers come at once.
	jobs, prompt *http.Client
}

func (a *app) client() *client {
	c := &client{socket: a.socket}
	jobs := &http.Transport{DialContext: c.dial, DisableCompression: true}
	prompt := jobs.Clone()
	prompt.ResponseHeaderTimeout = patience
	c.jobs, c.prompt = &http.Client{Transport: jobs}, &http.Client{Transport: prompt}
	return c
}

func (c *client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil && ctx.Err() == nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // Without the path, which is in the text below.
		}
		return nil, failuref(codeUnreachable,
			"no daemon answers on %s (%v); start it with: systemctl --user start joulemuxd", c.socket, err)
	}
	return conn, err
}

// call sends body, if it is not nil, and decodes the answer.
func (c *client) call(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := c.send(ctx, c.prompt, method, path, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	text, err := io.ReadAll(io.LimitReader(answer, maxAnswer))
	if err != nil {
		return c.lost(ctx, err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return failuref(codeBroken, "the daemon's answer is not what it should be: %v", err)
	}
	return nil
}

// lines sends body, if it is not nil, and returns the answer's lines. Their
// owner closes them.
func (c *client) lines(ctx context.Context, method, path string, body any) (*lines, error) {
	answer, err := c.send(ctx, c.prompt, method, path, body)
	if err != nil {
		return nil, err
	}
	return newLines(answer), nil
}

// stream sends a request whose answer is events, a line each, and has each shown;
// with --json it writes them as they came before. It returns nil if the answer is
// whole: whether an event is its end, or why there is none, over says.
func stream[E any](ctx context.Context, a *app, path string, request any, show func(E) error, over func(E) (end bool, failed *wire.Error)) error {
	c := a.client()
	answer, err := c.send(ctx, c.jobs, http.MethodPost, path, request)
	if err != nil {
		return err
	}
	l := newLines(answer)
	defer l.close()
	for {
		var e E
		line, err := l.next(&e)
		if err != nil {
			return broken(ctx, err)
		}
		if a.json {
			_, err = fmt.Fprintf(a.records, "%s\n", line)
		}
		if err == nil {
			err = show(e)
		}
		if err != nil {
			return err
		}
		switch end, failed := over(e); {
		case failed != nil:
			return &failure{record: *failed, told: a.json}
		case end:
			return nil
		}
	}
}

// overEvent is the over of an answer.
func overEvent(e wire.Event) (end bool, failed *wire.Error) { return e.End != nil, e.Error }

// broken is the failure for an answer that has no end.
func broken(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF):
		return failuref(codeBroken, "the answer broke off: the daemon did not say that it is whole")
	default:
		return failuref(codeBroken, "the answer broke off: %v", err)
	}
}

// send returns the body of a successful answer; the caller closes it.
func (c *client) send(ctx context.Context, h *http.Client, method, path string, body any) (io.ReadCloser, error) {
	var text io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		text = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost/joulemux/v1/"+path, text)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.Do(req)
	if err != nil {
		return nil, c.lost(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	return resp.Body, nil
}

// lost is the failure for a daemon from which no answer came.
func (c *client) lost(ctx context.Context, err error) error {
	var f *failure
	var late interface{ Timeout() bool }
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // Without the URL, which says nothing to a user.
	}
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case errors.As(err, &late) && late.Timeout():
		return failuref(codeUnreachable, "the daemon on %s does not answer: nothing within %v", c.socket, patience)
	default:
		return failuref(codeUnreachable, "the daemon on %s hung up: %v", c.socket, err)
	}
}

// refusal is the failure that an answer tells.
func refusal(resp *http.Response) error {
	var e wire.Error
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if json.Unmarshal(body, &e) != nil || e.Text == "" {
		return failuref(codeFailed, "%s: %s", resp.Request.URL.Path, resp.Status)
	}
	return &failure{record: e}
}

// lines reads an answer that comes a line at a time.
type lines struct {
	body io.Closer
	scan *bufio.Scanner
}

func newLines(body io.ReadCloser) *lines {
	l := &lines{body: body, scan: bufio.NewScanner(body)}
	l.scan.Buffer(nil, maxLine)
	return l
}

// next decodes a line, and returns it as it came. It is valid until the next
// call. The error is io.EOF at the end.
func (l *lines) next(into any) ([]byte, error) {
	if !l.scan.Scan() {
		if err := l.scan.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
	if err := json.Unmarshal(l.scan.Bytes(), into); err != nil {
		return nil, err
	}
	return l.scan.Bytes(), nil
}

func (l *lines) close() { _ = l.body.Close() }
