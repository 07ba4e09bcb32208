package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"

	"google.golang.org/grpc"

	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
)

// forwarder is the least that could answer calls: it asks one backend for the same as
// joulemuxd does, and knows nothing else. Without a backend it asks nobody.
type forwarder struct {
	computev1.UnimplementedComputeServiceHandler
	backend string
	client  *http.Client
}

func newForwarder(backend string) forwarder {
	return forwarder{backend: backend, client: &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16}}}
}

// serveGRPC serves it with gRPC's own library.
func serveGRPC(l net.Listener, f forwarder) error {
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: computev1.ComputeServiceName, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Generate", Handler: func(_ any, ctx context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			q := new(computev1.GenerateRequest)
			if err := read(q); err != nil {
				return nil, err
			}
			return f.Generate(ctx, q)
		}}},
	}, f)
	return server.Serve(l)
}

// serveService serves it with the library that joulemuxd has for gRPC.
func serveService(l net.Listener, f forwarder) error {
	mux := http.NewServeMux()
	mux.Handle(computev1.NewComputeServiceHandler(f))
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	return (&http.Server{Handler: mux, Protocols: both}).Serve(l)
}

// Generate answers a prompt in one piece.
func (f forwarder) Generate(ctx context.Context, q *computev1.GenerateRequest) (*computev1.GenerateResponse, error) {
	if f.backend == "" {
		return &computev1.GenerateResponse{Response: q.GetModel()}, nil
	}
	resp, err := forBackend(q).send(ctx, f.client, f.backend)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	a := new(computev1.GenerateResponse)
	for lines := json.NewDecoder(resp.Body); ; {
		var line struct{ Response string }
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			return a, nil
		} else if err != nil {
			return nil, err
		}
		a.Response += line.Response
	}
}
