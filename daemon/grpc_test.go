package daemon_test

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
)

// dial returns a connection for gRPC, to a port or, as "unix:PATH", a socket.
func dial(t *testing.T, target string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// stream is an answer that comes in pieces.
type stream struct{ grpc.ClientStream }

func (s stream) next() (*computev1.GenerateStreamResponse, error) {
	m := new(computev1.GenerateStreamResponse)
	return m, s.RecvMsg(m)
}

// openCall has an answer begun over gRPC, and returns the rest of it.
func openCall(t *testing.T, conn *grpc.ClientConn) stream {
	t.Helper()
	s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, computev1.ComputeServiceGenerateStreamProcedure)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendMsg(&computev1.GenerateRequest{Prompt: "Why?", Model: model}); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if m, err := (stream{s}).next(); err != nil || m.Token != "Hel" {
		t.Fatalf("the stream begins with %v, %v", m, err)
	}
	return stream{s}
}

func TestGRPCIsOnItsPortAndOnTheSocket(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	for _, target := range []string{d.GRPCAddr, "unix:" + d.Socket} {
		a := new(computev1.GenerateResponse)
		err := dial(t, target).Invoke(t.Context(), computev1.ComputeServiceGenerateProcedure, &computev1.GenerateRequest{Prompt: "Why?", Model: model}, a)
		if err != nil || a.BackendUsed != "ollama-cpu" || !strings.HasPrefix(a.Response, "Rayleigh") {
			t.Errorf("%s: %v, %v", target, a, err)
		}
	}
	// Beside it, HTTP is what it was.
	if got := ran(t, d); got != "ollama-cpu" {
		t.Errorf("over HTTP a job ran on %s", got)
	}
	for url, want := range map[string]int{
		"http://" + d.Addr + computev1.ComputeServiceHealthCheckProcedure:     http.StatusNotFound,
		"http://" + d.GRPCAddr + "/api/tags":                                  http.StatusNotFound,
		"http://" + d.GRPCAddr + computev1.ComputeServiceHealthCheckProcedure: http.StatusMethodNotAllowed,
	} {
		if a, err := request(t, briefly(), "GET", url, nil); err != nil || a.status != want {
			t.Errorf("%s: %v, %v, want %d", url, a, err, want)
		}
	}
}

func TestGRPCPortIsOpenedOnceTheConfigurationIsMended(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: "backends: nonsense"})
	a := new(computev1.GenerateResponse)
	ask := &computev1.GenerateRequest{Prompt: "Why?", Model: model}
	err := dial(t, "unix:"+d.Socket).Invoke(t.Context(), computev1.ComputeServiceGenerateProcedure, ask, a)
	if err == nil || !strings.Contains(err.Error(), "the configuration has faults") {
		t.Errorf("before: %v", err)
	}
	d.Configure(oneBackend(t))
	if err := dial(t, d.GRPCAddr).Invoke(t.Context(), computev1.ComputeServiceGenerateProcedure, ask, a, grpc.WaitForReady(true)); err != nil || a.BackendUsed != "ollama-cpu" {
		t.Errorf("afterwards: %v, %v", a, err)
	}
}
