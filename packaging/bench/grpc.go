package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
)

// measureGRPC compares calls of the service with what joulemuxd asks the backend
// for them, asked directly.
func measureGRPC(ctx context.Context, p plan) (rows []row, err error) {
	w, err := newWorld(ctx, 1, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	direct := proxy{nil, w.backends[0], client}
	service := newService(w.joulemuxd.grpc)
	for _, one := range []pair{
		{"gRPC: a call of one piece, median", called(service, 1), generated(model, 1).timed(direct), p.requests, 250, 1},
		{"gRPC: each piece of a stream, together", streamed(service, model), generated(model, pieces).timed(direct), p.streams, 10, pieces},
		{"gRPC: each piece of a stream, apart", streamed(service, slowModel), generated(slowModel, pieces).timed(direct), p.streams, 10, pieces},
	} {
		r, err := one.compare(ctx, p.rounds)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// newService returns a client of the service. gRPC takes HTTP/2, here without TLS.
func newService(url string) computev1.ComputeServiceClient {
	plain := new(http.Protocols)
	plain.SetUnencryptedHTTP2(true)
	return computev1.NewComputeServiceClient(&http.Client{Transport: &http.Transport{Protocols: plain}}, url, connect.WithGRPC())
}

// generated is a stream of a text of so many pieces, as joulemuxd asks for it.
func generated(model string, pieces int) question {
	return question{path: "/api/generate", lines: pieces + 1, body: encode(map[string]any{
		"model": model, "prompt": why, "system": brief, "stream": true,
		"options": map[string]any{"temperature": 0.2, "num_predict": pieces}, "keep_alive": 60,
	})}
}

func asked(model string, pieces int) *computev1.GenerateRequest {
	return &computev1.GenerateRequest{
		Model: model, Prompt: why, System: brief,
		Options: &computev1.GenerationOptions{MaxTokens: int32(pieces), Temperature: 0.2},
	}
}

// called calls for the same in one piece.
func called(service computev1.ComputeServiceClient, pieces int) func(context.Context) (time.Duration, error) {
	q := asked(model, pieces)
	return func(ctx context.Context) (time.Duration, error) {
		start := time.Now()
		a, err := service.Generate(ctx, q)
		if err == nil && a.GetResponse() == "" {
			err = errors.New("gRPC: the answer is empty")
		}
		return time.Since(start), err
	}
}

// streamed calls for it in pieces. Those that arrive together may be one.
func streamed(service computev1.ComputeServiceClient, model string) func(context.Context) (time.Duration, error) {
	q := asked(model, pieces)
	return func(ctx context.Context) (time.Duration, error) {
		start := time.Now()
		s, err := service.GenerateStream(ctx, q)
		if err != nil {
			return 0, err
		}
		length, done := 0, false
		for s.Receive() {
			length += len(s.Msg().GetToken())
			done = s.Msg().GetDone()
		}
		if err := errors.Join(s.Err(), s.Close()); err != nil {
			return 0, err
		}
		if want := pieces * len(" light"); !done || length != want {
			return 0, fmt.Errorf("gRPC: a stream of %d bytes, done %v; want %d", length, done, want)
		}
		return time.Since(start), nil
	}
}
