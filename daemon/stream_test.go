package daemon_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/dbus/dbustest"
)

func TestStopWithStreamsOpen(t *testing.T) {
	gone := make(chan struct{}, 3)
	addr := daemontest.Serve(t, hanging(gone))
	d := daemontest.Start(t, daemontest.Options{Config: backends(map[string]string{"cpu": addr})})
	overHTTP := openStream(t, d)
	overBus := openSink(t, d.Bus.Connect(t))
	overGRPC := openCall(t, dial(t, d.GRPCAddr))

	began := time.Now()
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > daemontest.Patience/2 {
		t.Errorf("the stop took %v", took)
	}
	for range 3 {
		receive(t, gone)
	}
	if m, err := overGRPC.next(); grpcstatus.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("over gRPC the end is %v, %v", m, err)
	}
	if got, err := io.ReadAll(overHTTP); !strings.Contains(string(got), `{"error":"`) || !strings.Contains(string(got), "stopping") {
		t.Errorf("over HTTP the end is %q, %v", got, err)
	}
	if got, err := io.ReadAll(overBus); !strings.Contains(string(got), "\x18") || !strings.Contains(string(got), "stopping") {
		t.Errorf("over D-Bus the end is %q, %v", got, err)
	}
}

func TestReaderWhoLeavesEndsTheBackendsWork(t *testing.T) {
	gone := make(chan struct{}, 2)
	addr := daemontest.Serve(t, hanging(gone))
	d := daemontest.Start(t, daemontest.Options{Config: backends(map[string]string{"cpu": addr})})
	for wire, open := range map[string]func() io.Closer{
		"HTTP":  func() io.Closer { return openStream(t, d) },
		"D-Bus": func() io.Closer { return openSink(t, d.Bus.Connect(t)) },
	} {
		reader := open()
		began := time.Now()
		if err := reader.Close(); err != nil {
			t.Fatal(err)
		}
		receive(t, gone)
		t.Logf("over %s the backend was stopped after %v", wire, time.Since(began))
		if took := time.Since(began); took > daemontest.Patience/2 {
			t.Errorf("over %s it took %v", wire, took)
		}
	}
}

// openStream has an answer begun over HTTP, and returns the rest of it.
func openStream(t *testing.T, d *daemontest.Daemon) io.ReadCloser {
	t.Helper()
	body := strings.NewReader(`{"model":"` + model + `","prompt":"Why?"}`)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/api/generate", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := d.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	first := make([]byte, 4096)
	if n, err := resp.Body.Read(first); err != nil || !strings.Contains(string(first[:n]), "Hel") {
		t.Fatalf("the stream begins with %q, %v", first[:n], err)
	}
	return resp.Body
}

// openSink has an answer begun over D-Bus, and returns the rest of it.
func openSink(t *testing.T, p *dbustest.Peer) io.ReadCloser {
	t.Helper()
	r, w := pipe(t)
	fd, err := syscall.Dup(int(w.Fd()))
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	err = call(t, inference(p), "GenerateTo", godbus.UnixFD(fd), message(), options{"model": godbus.MakeVariant(model)}).Err
	_ = syscall.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 3)
	if _, err := io.ReadFull(r, first); err != nil || string(first) != "Hel" {
		t.Fatalf("the stream begins with %q, %v", first, err)
	}
	return r
}

// follow returns when the tier becomes the one named, as told by the daemon.
// It returns once the daemon is telling.
func follow(t *testing.T, d *daemontest.Daemon, tier string) <-chan time.Time {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), daemontest.Patience)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/joulemux/v1/status?watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := d.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	at, over := make(chan time.Time, 1), make(chan struct{})
	t.Cleanup(func() { cancel(); resp.Body.Close(); <-over })
	go func() {
		defer close(over)
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			var s wire.Status
			if json.Unmarshal(lines.Bytes(), &s) == nil && s.Tier == tier {
				at <- time.Now()
				return
			}
		}
	}()
	return at
}

// receive waits for something that is to come.
func receive[T any](t *testing.T, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(daemontest.Patience):
		t.Fatal("waited in vain")
	}
	return v
}
