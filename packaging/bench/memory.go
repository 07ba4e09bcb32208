package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sync/errgroup"

	"github.com/joulemux/joulemux/packaging/rig"
)

// measureMemory looks at what joulemuxd has in use when it has started, after jobs
// on all its wires, and after many streams; and with another joulemuxd to compare
// with, what that has, and what jobs cost beside it.
func measureMemory(ctx context.Context, p plan) (rows []row, err error) {
	w, err := newWorld(ctx, 1, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	programs := []string{w.program()}
	if p.before != "" {
		programs = append(programs, p.before)
	}
	var started, worked [2][]float64 // in megabytes
	for round := range min(p.rounds, 3) {
		fmt.Fprintf(os.Stderr, "memory: %d jobs on all wires, round %d\n", jobs, round)
		for i, program := range programs {
			first, last, err := w.grown(ctx, program, fmt.Sprintf("memory-%d-%d", round, i))
			if err != nil {
				return nil, err
			}
			started[i], worked[i] = append(started[i], first), append(worked[i], last)
		}
	}
	rows = []row{
		more("resident memory after the start", started),
		more(fmt.Sprintf("resident memory after %d jobs on all wires", jobs), worked),
	}
	if p.before != "" {
		compared, err := w.compareJobs(ctx, p)
		if err != nil {
			return nil, err
		}
		rows = append(rows, compared...)
	}
	r, err := w.streamMany(ctx, p.many)
	return append(rows, r), err
}

// more tells by how much the first takes more than the second, if there is one.
func more(what string, megabytes [2][]float64) row {
	ours := median(megabytes[0])
	r := row{what: what, joulemux: fmt.Sprintf("%.1f MB", ours), baseline: "-", value: ours, unit: " MB"}
	if len(megabytes[1]) > 0 {
		before := median(megabytes[1])
		r.baseline, r.value, r.target = fmt.Sprintf("%.1f MB", before), ours-before, 8
	}
	return r
}

// grown returns what a joulemuxd has in use when it has started, and after jobs,
// in megabytes.
func (w *world) grown(ctx context.Context, program, name string) (first, last float64, err error) {
	session, err := rig.StartBus(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	d, err := w.another(ctx, program, name, w.machine.SysDir(), session)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, d.process.Close()) }()
	if first, err = d.megabytes(); err != nil {
		return 0, 0, err
	}
	if err := d.work(ctx, session, program == w.program()); err != nil {
		return 0, 0, err
	}
	last, err = d.megabytes()
	return first, last, err
}

func (d daemon) megabytes() (float64, error) {
	bytes, err := resident(d.process.PID())
	return float64(bytes) / 1e6, err
}

// jobs is how many run on all wires.
const jobs = 500

// work runs jobs on every wire that there is, with metrics that are read and
// answers that are kept. A daemon that is not new has fewer wires, and gets as
// many jobs on those.
func (d daemon) work(ctx context.Context, session *rig.Bus, isNew bool) error {
	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	grpc, err := newCaller(d.grpc)
	if err != nil {
		return err
	}
	defer grpc.Close()
	bus, err := godbus.Connect(session.Address())
	if err != nil {
		return err
	}
	defer bus.Close()
	chats := []question{chat(true, 0), chat(false, 0), generated(model, pieces), ollamaChat(otherModel, true, 0), completion(model), message(model), response(otherModel)}
	if !isNew {
		chats = append(chats[:4], chats[0], chats[0], chats[3])
	}
	for n := range jobs {
		switch kind := n % (len(chats) + 4); {
		case kind < len(chats):
			err = chats[kind].ask(ctx, client, d.url)
		case kind == len(chats):
			_, err = grpc.called(pieces)(ctx)
		case kind == len(chats)+1:
			_, err = grpc.streamed(model)(ctx)
		case kind == len(chats)+2:
			options := map[string]godbus.Variant{"model": godbus.MakeVariant(model), "max_tokens": godbus.MakeVariant(int32(pieces))}
			err = bus.Object("io.github.joulemux.Inference1", "/io/github/joulemux/Inference1").
				CallWithContext(ctx, "io.github.joulemux.Inference1.Generate", 0, why, options).Err
		default: // each twice, the second time from what is kept
			q := repeated(true)
			q.body = fmt.Appendf(q.body[:len(q.body)-1], `,"seed":%d}`, n/(2*(len(chats)+4)))
			err = q.ask(ctx, client, d.url)
		}
		if err == nil && isNew && n%50 == 0 {
			err = get(ctx, client, d.url+"/metrics", http.Header{"Accept-Encoding": {"gzip"}})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// response is a stream of OpenAI's Responses, which is translated from a chat.
func response(model string) question {
	return question{path: "/v1/responses", lines: -1, body: encode(map[string]any{
		"model": model, "stream": true, "instructions": brief, "input": why, "max_output_tokens": pieces,
	})}
}

// compareJobs compares the processor time of jobs with that of another joulemuxd.
func (w *world) compareJobs(ctx context.Context, p plan) (rows []row, err error) {
	session, err := rig.StartBus(ctx)
	if err != nil {
		return nil, err
	}
	w.later(session.Close)
	other, err := w.another(ctx, p.before, "before", w.machine.SysDir(), session)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	now, before := proxy{w.joulemuxd.process, w.joulemuxd.url, client}, proxy{other.process, other.url, client}
	for _, l := range []load{
		{"CPU per chat, now and before", chat(false, 0), chat(false, 0), p.requests, 1.05},
		{"CPU per stream, likewise", chat(true, pause), chat(true, pause), p.streams, 1.05},
	} {
		fmt.Fprintf(os.Stderr, "%s: %d rounds of %d\n", l.what, p.rounds, l.count)
		r, err := l.compare(ctx, now, before, p.rounds)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// sideBySide is how many clients stream at once when memory is measured.
const sideBySide = 8

// streamMany returns what joulemuxd has in use after many streams.
func (w *world) streamMany(ctx context.Context, many int) (row, error) {
	fmt.Fprintf(os.Stderr, "memory: %d streams\n", many)
	q := chat(true, 0)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: sideBySide}}
	defer client.CloseIdleConnections()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(sideBySide)
	for range many {
		g.Go(func() error { return q.ask(ctx, client, w.joulemuxd.url) })
	}
	if err := g.Wait(); err != nil {
		return row{}, err
	}
	megabytes, err := w.joulemuxd.megabytes()
	return row{
		what:     fmt.Sprintf("resident memory after %d streams", many),
		joulemux: fmt.Sprintf("%.1f MB", megabytes), baseline: "-", value: megabytes, target: 30, unit: " MB",
	}, err
}
