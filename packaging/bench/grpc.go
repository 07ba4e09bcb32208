package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
)

// measureGRPC compares calls of the service with what joulemuxd asks the backend
// for them, asked directly, and with those of bare services: what is more than that
// is not gRPC's. That of a service that asks nobody is the least that a call adds.
func measureGRPC(ctx context.Context, p plan) (rows []row, err error) {
	w, err := newWorld(ctx, 1, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	direct := proxy{nil, w.backends[0], client}
	ours, err := newCaller(w.joulemuxd.grpc)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ours.Close()) }()
	var bare [3]caller
	for i, role := range [][]string{{bareService, w.backends[0]}, {grpcService, w.backends[0]}, {grpcService, ""}} {
		_, url, err := w.role(role...)
		if err != nil {
			return nil, err
		}
		if bare[i], err = newCaller(strings.TrimPrefix(url, "http://")); err != nil {
			return nil, err
		}
		w.later(bare[i].Close)
	}
	for _, one := range []pair{
		{"gRPC: a call of one piece, median", ours.called(1), generated(model, 1).timed(direct), p.requests, 250, 1},
		{"gRPC: the same beside a bare service", ours.called(1), bare[0].called(1), p.requests, 0, 1},
		{"gRPC: beside one of gRPC's own library", ours.called(1), bare[1].called(1), p.requests, 0, 1},
		{"gRPC: beside one that asks nobody", ours.called(1), bare[2].called(1), p.requests, 0, 1},
		{"gRPC: each piece of a stream, together", ours.streamed(model), generated(model, pieces).timed(direct), p.streams, 10, pieces},
		{fmt.Sprintf("gRPC: a stream of %d pieces, apart", pieces), ours.streamed(slowModel), generated(slowModel, pieces).timed(direct), max(1, p.streams/6), 10 * pieces, 1},
	} {
		r, err := one.compare(ctx, p.rounds)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// caller calls as gRPC's own client does, which programs in Go have.
type caller struct{ *grpc.ClientConn }

func newCaller(target string) (caller, error) {
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	return caller{conn}, err
}

// generated is a stream of a text of so many pieces, as joulemuxd asks for it.
func generated(model string, pieces int) question { return forBackend(asked(model, pieces)) }

// forBackend is what joulemuxd asks the backend for a call.
func forBackend(q *computev1.GenerateRequest) question {
	pieces := int(q.GetOptions().GetMaxTokens())
	return question{path: "/api/generate", lines: pieces + 1, body: encode(map[string]any{
		"model": q.GetModel(), "prompt": q.GetPrompt(), "system": q.GetSystem(), "stream": true,
		"options": map[string]any{"temperature": q.GetOptions().GetTemperature(), "num_predict": pieces}, "keep_alive": 60,
	})}
}

func asked(model string, pieces int) *computev1.GenerateRequest {
	return &computev1.GenerateRequest{
		Model: model, Prompt: why, System: brief,
		Options: &computev1.GenerationOptions{MaxTokens: int32(pieces), Temperature: 0.2},
	}
}

// called calls for the same in one piece.
func (c caller) called(pieces int) func(context.Context) (time.Duration, error) {
	q := asked(model, pieces)
	return func(ctx context.Context) (time.Duration, error) {
		start := time.Now()
		a := new(computev1.GenerateResponse)
		err := c.Invoke(ctx, computev1.ComputeServiceGenerateProcedure, q, a)
		if err == nil && a.GetResponse() == "" {
			err = errors.New("gRPC: the answer is empty")
		}
		return time.Since(start), err
	}
}

// streamed calls for it in pieces. Those that arrive together may be one.
func (c caller) streamed(model string) func(context.Context) (time.Duration, error) {
	q := asked(model, pieces)
	return func(ctx context.Context) (time.Duration, error) {
		start := time.Now()
		from, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, computev1.ComputeServiceGenerateStreamProcedure)
		if err != nil {
			return 0, err
		}
		if err := errors.Join(from.SendMsg(q), from.CloseSend()); err != nil {
			return 0, err
		}
		length, done := 0, false
		for {
			m := new(computev1.GenerateStreamResponse)
			if err = from.RecvMsg(m); err != nil {
				break
			}
			length += len(m.GetToken())
			done = m.GetDone()
		}
		if !errors.Is(err, io.EOF) {
			return 0, err
		}
		if want := pieces * len(" light"); !done || length != want {
			return 0, fmt.Errorf("gRPC: a stream of %d bytes, done %v; want %d", length, done, want)
		}
		return time.Since(start), nil
	}
}
