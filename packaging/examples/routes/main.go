// Command routes walks through the ways in which a program may say where its
// job is to run, over gRPC, and prints for each where it ran, why, how fast, and
// for how many joules.
//
//	go run ./packaging/examples/routes
//
// It is an example: code of compute.v1 can be generated for any language from
// daemon/grpcapi/computev1/compute.proto.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"time"

	"connectrpc.com/connect"

	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
)

func main() {
	address := flag.String("address", "localhost:50051", "where joulemux has gRPC")
	model := flag.String("model", "qwen2.5:0.5b", "the model that answers")
	prompt := flag.String("prompt", "Why is the sky blue? One sentence.", "what it is asked")
	tokens := flag.Int("tokens", 48, "how long an answer may be")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := walk(ctx, os.Stdout, newClient(*address), &computev1.GenerateRequest{
		Prompt: *prompt, Model: *model, Options: &computev1.GenerationOptions{MaxTokens: int32(*tokens)},
	}); err != nil {
		fmt.Fprintln(os.Stderr, "routes:", err)
		os.Exit(1)
	}
}

// newClient returns a client of the service. gRPC takes HTTP/2, here without TLS.
func newClient(address string) computev1.ComputeServiceClient {
	plain := new(http.Protocols)
	plain.SetUnencryptedHTTP2(true)
	transport := &http.Client{Transport: &http.Transport{Protocols: plain}}
	return computev1.NewComputeServiceClient(transport, "http://"+address, connect.WithGRPC())
}

// routes are the ways. In each the backend is joulemux's choice, within what is
// said.
var routes = []struct {
	says string
	job  *computev1.JobAnnotations
}{
	{"nothing: the fewest joules that are in time", nil},
	{"latency_critical: the fastest", &computev1.JobAnnotations{LatencyCritical: true}},
	{"prefer_power_efficiency: the fewest joules, however late", &computev1.JobAnnotations{PreferPowerEfficiency: true}},
	{"target, a backend's id", &computev1.JobAnnotations{Target: "ollama-npu"}},
	{"target, a kind of device", &computev1.JobAnnotations{Target: "igpu"}},
	{"max_power_watts 15", &computev1.JobAnnotations{MaxPowerWatts: 15}},
	{"max_latency_ms 60000", &computev1.JobAnnotations{MaxLatencyMs: 60_000}},
	{"class background, streamed", &computev1.JobAnnotations{Class: "background"}},
}

// walk asks in each of the ways. One that joulemux refuses is told, and is no
// reason to stop: on a low battery it would be.
func walk(ctx context.Context, out io.Writer, client computev1.ComputeServiceClient, q *computev1.GenerateRequest) error {
	for i, route := range routes {
		if _, err := fmt.Fprintf(out, "%d. %s\n", i+1, route.says); err != nil {
			return err
		}
		// Who sets no limit waits for as long as it takes.
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		q.Annotations = route.job
		ask := client.Generate
		if route.job.GetClass() == "background" {
			ask = streamed(client)
		}
		a, err := ask(ctx, q)
		cancel()
		if refused := new(connect.Error); errors.As(err, &refused) && refused.Code() != connect.CodeUnavailable {
			fmt.Fprintf(out, "   refused   %v: %s\n", refused.Code(), refused.Message())
			continue
		} else if err != nil {
			return err
		}
		s := a.GetStats()
		fmt.Fprintf(out, "   backend   %s (%s)\n", a.GetBackendUsed(), a.GetRouting().GetHardware())
		fmt.Fprintf(out, "   reason    %s\n", a.GetRouting().GetReason())
		fmt.Fprintf(out, "   took      %d tokens, %.1f tokens/s, first after %d ms\n", s.GetTokensGenerated(), s.GetTokensPerSecond(), s.GetTimeToFirstTokenMs())
		fmt.Fprintf(out, "   energy    %s\n", energy(s))
	}
	return nil
}

// energy is what a job took. A figure that nobody has is not 0.
func energy(s *computev1.GenerationStats) string {
	switch q := s.GetEnergyQuality(); q {
	case "measured", "derived", "estimated":
		return fmt.Sprintf("%.1f J, %s (%s)", s.GetEnergyJoules(), q, s.GetEnergySource())
	default:
		return q
	}
}

// streamed returns what asks for an answer in pieces, and puts them together.
func streamed(client computev1.ComputeServiceClient) func(context.Context, *computev1.GenerateRequest) (*computev1.GenerateResponse, error) {
	return func(ctx context.Context, q *computev1.GenerateRequest) (*computev1.GenerateResponse, error) {
		stream, err := client.GenerateStream(ctx, q)
		if err != nil {
			return nil, err
		}
		defer stream.Close()
		whole := new(computev1.GenerateResponse)
		for stream.Receive() {
			piece := stream.Msg()
			whole.Response += piece.GetToken()
			if piece.GetBackendUsed() != "" {
				whole.BackendUsed, whole.Routing = piece.GetBackendUsed(), piece.GetRouting()
			}
			if piece.GetDone() {
				whole.Stats = piece.GetStats()
				return whole, nil
			}
		}
		return nil, errors.Join(stream.Err(), errors.New("the stream ended before its last message"))
	}
}
