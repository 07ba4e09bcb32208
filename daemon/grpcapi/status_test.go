package grpcapi_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/power"
)

func TestBackendsAreListedByTypeOrHardware(t *testing.T) {
	r := newRig(t, place{power.NPU, scripted(says(last))}, place{power.CPU, scripted(says(last))}, place{power.NVIDIA, scripted(says(last))})
	for filter, want := range map[string]string{
		"": "ollama-npu ollama-cpu ollama-nvidia", "ollama": "ollama-npu ollama-cpu ollama-nvidia", "OLLAMA": "ollama-npu ollama-cpu ollama-nvidia",
		"npu": "ollama-npu", "nvidia": "ollama-nvidia", "openai": "", "ollama-npu": "",
	} {
		a, err := call[computev1.ListBackendsResponse](within(t), r.calls, "ListBackends", &computev1.ListBackendsRequest{TypeFilter: filter})
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, b := range a.Backends {
			ids = append(ids, b.Id)
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%q lists %q, want %q", filter, got, want)
		}
	}
}

func TestEveryFigureOfABackendIsReal(t *testing.T) {
	r := newRig(t, place{power.IntegratedGPU, scripted(says(piece("ok"), last))}, place{power.CPU, scripted(refuses(500, "broken"))})
	if _, err := r.calls.generate(within(t), ask()); err != nil {
		t.Fatal(err)
	}
	broken := ask()
	broken.Annotations = &computev1.JobAnnotations{Target: "cpu"}
	_, err := r.calls.generate(within(t), broken)
	fails(t, "the broken one", err, codes.Unavailable, "ollama-cpu: 500")
	a, err := call[computev1.ListBackendsResponse](within(t), r.calls, "ListBackends", &computev1.ListBackendsRequest{})
	if err != nil || len(a.Backends) != 2 {
		t.Fatalf("got %v, %v", a, err)
	}
	b := a.Backends[0]
	if b.Type != "ollama" || b.Name != "ollama-igpu" || b.Hardware != "igpu" || b.Status.State != "healthy" || time.Since(time.Unix(b.Status.LastCheckUnix, 0)) > time.Hour {
		t.Errorf("it is %v", b)
	}
	if c := b.Capabilities; !c.Generate || !c.Embed || !c.Stream || len(c.Models) != 1 || c.Models[0] != "m:latest" || c.MaxContext != 4096 || c.Slots != 64 {
		t.Errorf("it can %v", c)
	}
	if m := b.Metrics; m.RequestsPerMinute != 1 || m.ErrorRate != 0 || m.PowerWatts != 12 || m.PowerQuality != "estimated" || len(m.LoadedModels) != 1 {
		t.Errorf("it did %v", m)
	}
	// A failure has no latency: as one of 0 ms it would make the broken one the
	// fastest.
	if m := a.Backends[1].Metrics; m.RequestsPerMinute != 1 || m.ErrorRate != 1 || m.AvgLatencyMs != 0 {
		t.Errorf("the broken one did %v", m)
	}
	if a, err := r.calls.generate(within(t), &computev1.GenerateRequest{Prompt: "Why?", Model: "m", Annotations: &computev1.JobAnnotations{LatencyCritical: true}}); err != nil || a.BackendUsed != "ollama-igpu" {
		t.Errorf("the fastest is %v, %v", a, err)
	}
}

func TestHealth(t *testing.T) {
	well := place{power.NPU, scripted(says(last))}
	ill := place{power.CPU, scripted(says(last))}
	for _, c := range []struct {
		name          string
		places        []place
		down          bool
		status, ofCPU string
		serving       grpc_health_v1.HealthCheckResponse_ServingStatus
	}{
		{"no backend at all is not healthy", nil, false, "unhealthy", "", grpc_health_v1.HealthCheckResponse_NOT_SERVING},
		{"all are", []place{well, ill}, false, "healthy", "healthy", grpc_health_v1.HealthCheckResponse_SERVING},
		{"one is down from the start", []place{well, {power.CPU, refuses(500, "down")}}, false, "degraded", "unhealthy", grpc_health_v1.HealthCheckResponse_SERVING},
		{"all are down", []place{{power.CPU, refuses(500, "down")}}, false, "unhealthy", "unhealthy", grpc_health_v1.HealthCheckResponse_NOT_SERVING},
	} {
		r := newRig(t, c.places...)
		a, err := call[computev1.HealthCheckResponse](within(t), r.calls, "HealthCheck", &computev1.HealthCheckRequest{})
		if err != nil || a.Status != c.status || a.BackendHealth["ollama-cpu"] != c.ofCPU || len(a.BackendHealth) != len(c.places) ||
			time.Since(time.Unix(a.TimestampUnix, 0)) > time.Hour || a.Version != "1-test" {
			t.Errorf("%s: got %v, %v", c.name, a, err)
		}
		health := grpc_health_v1.NewHealthClient(r.conn)
		for _, service := range []string{"", computev1.ComputeServiceName} {
			if h, err := health.Check(within(t), &grpc_health_v1.HealthCheckRequest{Service: service}); err != nil || h.Status != c.serving {
				t.Errorf("%s: of %q gRPC's own says %v, %v", c.name, service, h, err)
			}
		}
		_, err = health.Check(within(t), &grpc_health_v1.HealthCheckRequest{Service: "nope"})
		fails(t, "a service that there is not", err, codes.NotFound, "nope")
	}
}

func TestHealthIsWatched(t *testing.T) {
	t.Parallel()
	up := make(chan struct{})
	r := newRig(t, place{power.CPU, lateServer{up, scripted(says(piece("ok"), last))}})
	r.SetStalled(stalled) // which is of messages, and not of the time between them
	ctx := within(t)
	w, err := grpc_health_v1.NewHealthClient(r.conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if h, err := w.Recv(); err != nil || h.Status != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Fatalf("while it is down: %v, %v", h, err)
	}
	told := make(chan error, 1)
	go func() {
		h, err := w.Recv()
		if err == nil && h.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			err = fmt.Errorf("it says %v", h)
		}
		told <- err
	}()
	select {
	case err := <-told:
		t.Fatalf("while nothing changes: %v", err)
	case <-time.After(2 * stalled):
	}
	close(up)
	for { // nobody asks on a watcher's behalf, but whoever has a job does
		_, _ = r.calls.generate(ctx, ask())
		select {
		case err := <-told:
			if err != nil {
				t.Error(err)
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestWatchOfAServiceThatIsNotThereGoesOn(t *testing.T) {
	r := newRig(t, place{power.CPU, scripted(says(last))})
	ctx, cancel := context.WithCancel(within(t))
	w, err := grpc_health_v1.NewHealthClient(r.conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "nope"})
	if err != nil {
		t.Fatal(err)
	}
	if h, err := w.Recv(); err != nil || h.Status != grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN {
		t.Fatalf("it says %v, %v", h, err)
	}
	told := make(chan error, 1)
	go func() {
		_, err := w.Recv()
		told <- err
	}()
	for range 3 { // whatever becomes of the backends
		if _, err := r.calls.generate(ctx, ask()); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-told:
		t.Fatalf("the call has not been kept: %v", err)
	default:
	}
	cancel()
	fails(t, "the watcher who leaves", <-told, codes.Canceled, "")
}

func TestBackendThatWasDownAtTheStartComesUp(t *testing.T) {
	up := make(chan struct{})
	server := scripted(says(piece("ok"), last))
	r := newRig(t, place{power.CPU, lateServer{up, server}})
	_, err := r.calls.generate(within(t), ask())
	fails(t, "while it is down", err, codes.Unavailable, "")
	close(up)
	ctx := within(t)
	for { // it is not asked again at once
		a, err := r.calls.generate(ctx, ask())
		if err == nil && a.Response == "ok" {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("once it is up: %v, %v", a, err)
		}
	}
}
