package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
)

// forwarder is the least that could answer calls: it asks one backend for the same as
// joulemuxd does, and knows nothing else.
type forwarder struct {
	computev1.UnimplementedComputeServiceHandler
	backend string
	client  *http.Client
}

// serveService serves it with the library that joulemuxd has for gRPC.
func serveService(l net.Listener, backend string) error {
	mux := http.NewServeMux()
	mux.Handle(computev1.NewComputeServiceHandler(forwarder{
		backend: backend, client: &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16}},
	}))
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	return (&http.Server{Handler: mux, Protocols: both}).Serve(l)
}

// Generate answers a prompt in one piece.
func (f forwarder) Generate(ctx context.Context, q *computev1.GenerateRequest) (*computev1.GenerateResponse, error) {
	body, err := json.Marshal(map[string]any{
		"model": q.GetModel(), "prompt": q.GetPrompt(), "system": q.GetSystem(), "stream": true,
		"options":    map[string]any{"temperature": q.GetOptions().GetTemperature(), "num_predict": q.GetOptions().GetMaxTokens()},
		"keep_alive": 60,
	})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.backend+"/api/generate", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := f.client.Do(req)
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
