package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"time"
)

// measureCache measures what an answer takes that was given before, over the
// socket and beside a request that nothing is done for.
func measureCache(ctx context.Context, p plan) (rows []row, err error) {
	w, err := newWorld(ctx, 1, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	client := w.joulemuxd.client()
	defer client.CloseIdleConnections()
	ours := proxy{w.joulemuxd.process, local, client}
	hit := repeated(false)
	if err := hit.ask(ctx, client, local); err != nil {
		return nil, err
	}
	if err := isFromCache(ctx, hit, client); err != nil {
		return nil, err
	}
	nothing := func(ctx context.Context) (time.Duration, error) {
		start := time.Now()
		err := get(ctx, client, local+"/version", nil)
		return time.Since(start), err
	}
	r, err := pair{"an answer from the cache, median", hit.timed(ours), nothing, p.requests, 100, 1}.compare(ctx, p.rounds)
	if err != nil {
		return nil, err
	}
	rows = append(rows, r)
	var ofHit, ofNothing, more []float64
	for round := range p.rounds + 1 {
		with, err := w.joulemuxd.spent(ctx, p.requests, hit.timed(ours))
		if err != nil {
			return nil, err
		}
		without, err := w.joulemuxd.spent(ctx, p.requests, nothing)
		if err != nil {
			return nil, err
		}
		if round > 0 {
			ofHit, ofNothing, more = append(ofHit, with), append(ofNothing, without), append(more, with-without)
		}
	}
	return append(rows, row{
		what: "an answer from the cache, CPU", joulemux: fmt.Sprintf("%.1f us", median(ofHit)), baseline: fmt.Sprintf("%.1f us", median(ofNothing)),
		value: median(more), target: 100, unit: " us",
	}), nil
}

// local stands for the host of a URL, where a socket's path is the address.
const local = "http://localhost"

// client returns one that keeps a connection to the socket.
func (d daemon) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", d.socket)
		},
	}}
}

// repeated is a chat that has the same answer every time.
func repeated(stream bool) question {
	q := question{path: "/api/chat", lines: 1, body: encode(map[string]any{
		"model": model, "stream": stream, "messages": messages(), "options": map[string]any{"temperature": 0, "num_predict": pieces},
	})}
	if stream {
		q.lines = pieces + 1
	}
	return q
}

// isFromCache sees to it that the answer is.
func isFromCache(ctx context.Context, q question, client *http.Client) error {
	resp, err := q.send(ctx, client, local)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.Header.Get("X-From-Cache") != "true" {
		return errors.New("the answer is not kept")
	}
	return nil
}

// spent returns the processor time that each of so many takes of the daemon, in
// microseconds.
func (d daemon) spent(ctx context.Context, count int, do func(context.Context) (time.Duration, error)) (float64, error) {
	before, err := cpu(d.process.PID())
	if err != nil {
		return 0, err
	}
	for range count {
		if _, err := do(ctx); err != nil {
			return 0, err
		}
	}
	after, err := cpu(d.process.PID())
	return micros(after-before) / float64(count), err
}

// get asks for what is at a URL, with a header.
func get(ctx context.Context, client *http.Client, url string, header http.Header) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	maps.Copy(req.Header, header)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return nil
}
