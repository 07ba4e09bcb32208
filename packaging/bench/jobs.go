package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/joulemux/joulemux/packaging/rig"
)

// proxy is one of the two that are compared.
type proxy struct {
	process *rig.Process
	url     string
	// client keeps its connection: what a new one costs is not part of a job.
	client *http.Client
}

// load is a kind of job, and how many of it make a round.
type load struct {
	what       string
	ours, bare question // what joulemuxd is asked, and what the bare proxy is
	count      int
	target     float64
}

// question is a request, and how many lines its answer has.
type question struct {
	path  string
	body  []byte
	lines int    // or any number, if it is negative
	class string // of the job, if it is said
}

// as returns the question as a job of a class.
func (q question) as(class string) question {
	q.class = class
	return q
}

// measureJobs compares the processor time of jobs.
func measureJobs(ctx context.Context, p plan) (rows []row, err error) {
	w, err := newWorld(ctx, 1, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	process, url, err := w.role(bareProxy, w.backends[0])
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	ours, bare := proxy{w.joulemuxd.process, w.joulemuxd.url, client}, proxy{process, url, client}
	if process, url, err = w.role(bareProxy, w.other); err != nil {
		return nil, err
	}
	other := proxy{process, url, client} // the same before the server of OpenAI's API alone
	for _, l := range []struct {
		load
		bare proxy
	}{
		{load{"CPU per chat that is not streamed", chat(false, 0), chat(false, 0), p.requests, 1.5}, bare},
		{load{fmt.Sprintf("CPU per stream of %d pieces", pieces), chat(true, pause), chat(true, pause), p.streams, 1.3}, bare},
		{load{"CPU per stream of OpenAI's API", completion(model), completion(model), p.streams, 1.3}, bare},
		{load{"CPU per stream of Anthropic's API", message(model), message(model), p.streams, 1.3}, bare},
		{load{"CPU per stream that is translated", ollamaChat(otherModel, true, pause), completion(otherModel), p.streams, 2}, other},
	} {
		fmt.Fprintf(os.Stderr, "%s: %d rounds of %d\n", l.what, p.rounds, l.count)
		r, err := l.compare(ctx, ours, l.bare, p.rounds)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// pause between the pieces of a stream keeps them apart, as those of a model
// are, in microseconds.
const pause = 200

// chat is a chat of about a kilobyte with the model that most have.
func chat(stream bool, pause int) question { return ollamaChat(model, stream, pause) }

func ollamaChat(model string, stream bool, pause int) question {
	q := question{path: "/api/chat", lines: 1, body: encode(map[string]any{
		"model": model, "stream": stream, "messages": messages(),
		"options": map[string]any{"temperature": 0.2, "num_predict": pieces, "pause": pause},
	})}
	if stream {
		q.lines = pieces + 1
	}
	return q
}

// completion is the same as a stream in OpenAI's dialect, whose events have two
// lines each, and two of which tell of the end.
func completion(model string) question {
	return question{path: "/v1/chat/completions", lines: 2 * (pieces + 2), body: encode(map[string]any{
		"model": model, "stream": true, "messages": messages(), "temperature": 0.2, "max_tokens": pieces,
	})}
}

// message is the same as a stream in Anthropic's dialect, whose events have three
// lines each: one begins, and three tell of the end.
func message(model string) question {
	return question{path: "/v1/messages", lines: 3 * (pieces + 4), body: encode(map[string]any{
		"model": model, "stream": true, "max_tokens": pieces, "temperature": 0.2, "system": brief, "messages": messages()[1:],
	})}
}

// What is asked: about a kilobyte.
var (
	brief = strings.Repeat("Be brief and to the point. ", 12)
	why   = strings.Repeat("Why is the sky blue? ", 30)
)

func messages() []map[string]string {
	return []map[string]string{{"role": "system", "content": brief}, {"role": "user", "content": why}}
}

func encode(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // it is made of strings and numbers
	}
	return body
}

// compare measures the two in turn, and each first as often as the other: what
// the machine does besides falls on both. The first round warms them up.
func (l load) compare(ctx context.Context, ours, bare proxy, rounds int) (row, error) {
	var ofOurs, ofBare, ratios []float64
	for round := range rounds + 1 {
		pair := [2]proxy{ours, bare}
		if round%2 == 1 {
			pair = [2]proxy{bare, ours}
		}
		var cost [2]float64
		for i, p := range pair {
			q := l.ours
			if p == bare {
				q = l.bare
			}
			var err error
			if cost[i], err = l.round(ctx, p, q); err != nil {
				return row{}, err
			}
		}
		if round%2 == 1 {
			cost[0], cost[1] = cost[1], cost[0]
		}
		if round > 0 {
			ofOurs, ofBare = append(ofOurs, cost[0]), append(ofBare, cost[1])
			ratios = append(ratios, cost[0]/cost[1])
		}
	}
	return row{
		what: l.what, joulemux: fmt.Sprintf("%.0f us", median(ofOurs)), baseline: fmt.Sprintf("%.0f us", median(ofBare)),
		value: median(ratios), target: l.target,
	}, nil
}

// round returns the processor time that a proxy takes for a job, in
// microseconds. A client asks one thing after the other on one connection.
func (l load) round(ctx context.Context, p proxy, q question) (float64, error) {
	before, err := cpu(p.process.PID())
	if err != nil {
		return 0, err
	}
	for range l.count {
		if err := q.ask(ctx, p.client, p.url); err != nil {
			return 0, err
		}
	}
	after, err := cpu(p.process.PID())
	return float64(after-before) / float64(time.Microsecond) / float64(l.count), err
}

// send sends it.
func (q question) send(ctx context.Context, client *http.Client, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+q.path, bytes.NewReader(q.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if q.class != "" {
		req.Header.Set("X-Priority", q.class)
	}
	return client.Do(req)
}

// ask runs a job, and sees to it that the answer is whole.
func (q question) ask(ctx context.Context, client *http.Client, url string) error {
	resp, err := q.send(ctx, client, url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var lines lineCounter
	if _, err := io.Copy(&lines, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || q.lines >= 0 && int(lines) != q.lines {
		return fmt.Errorf("%s answered %s with %s and %d lines, want %d", url, q.path, resp.Status, lines, q.lines)
	}
	return nil
}

// lineCounter counts the lines that are written to it.
type lineCounter int

func (n *lineCounter) Write(p []byte) (int, error) {
	*n += lineCounter(bytes.Count(p, []byte("\n")))
	return len(p), nil
}
