package daemon_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/daemontest"
)

// stalled is when a reader who takes nothing is given up, at the latest: that is
// after 30 seconds, and what a loaded machine adds to them.
const stalled = time.Minute

// flooding is a canned server whose answers never end. It reports each client
// who has gone.
func flooding(gone chan<- struct{}) http.Handler {
	canned := daemontest.CannedOllama()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said := strings.Repeat("word ", 1000)
		var line string
		switch r.URL.Path {
		case "/api/generate":
			line = `{"model":"` + model + `","response":"` + said + `","done":false}`
		case "/api/chat":
			line = `{"model":"` + model + `","message":{"role":"assistant","content":"` + said + `"},"done":false}`
		default:
			canned.ServeHTTP(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-ndjson")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, line+"\n"); err != nil {
				break
			}
		}
		gone <- struct{}{}
	})
}

func TestReadersWhoStopReading(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 30 seconds")
	}
	gone := make(chan struct{}, 3)
	addr := daemontest.Serve(t, flooding(gone))
	d := daemontest.Start(t, daemontest.Options{Config: backends(map[string]string{"cpu": addr})})
	peer := d.Bus.Connect(t)
	status(t, d)
	before := levels(t, d)

	overHTTP := map[string]net.Conn{"the socket": stall(t, "unix", d.Socket), "TCP": stall(t, "tcp", d.Addr)}
	r, w := pipe(t)
	if err := call(t, inference(peer), "GenerateTo", godbus.UnixFD(w.Fd()), message(), options{"model": godbus.MakeVariant(model)}).Err; err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	for range 3 {
		select {
		case <-gone:
		case <-time.After(stalled):
			t.Fatal("the backend works on for who does not read")
		}
	}
	for wire, conn := range overHTTP {
		got, err := io.ReadAll(conn)
		_ = conn.Close()
		if !strings.Contains(string(got), "word ") || strings.HasSuffix(string(got), "\r\n0\r\n\r\n") {
			t.Errorf("over %s there is a clean end after %d bytes, %v", wire, len(got), err)
		}
	}
	got, err := io.ReadAll(r)
	_ = r.Close()
	if !strings.Contains(string(got), "word ") || strings.Contains(string(got), "\x04") {
		t.Errorf("over D-Bus there is a clean end after %d bytes, %v", len(got), err)
	}
	t.Logf("before: %v; after: %v", before, d.Settle(before))
}

// stall has an answer begun, and does not read it.
func stall(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	body := `{"model":"` + model + `","prompt":"Why?"}`
	if _, err := fmt.Fprintf(conn, "POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestHalfOpenConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 seconds")
	}
	const connections = 1000
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	before := warm(t, d)
	var conns []net.Conn
	for i := range connections {
		network, addr := "unix", d.Socket
		if i%2 == 1 {
			network, addr = "tcp", d.Addr
		}
		conn, err := net.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		conns = append(conns, conn)
		if _, err := io.WriteString(conn, "POST /api/generate HTTP/1.1\r\nHost: local"); err != nil {
			t.Fatal(err)
		}
	}
	if got := ran(t, d); got != "ollama-cpu" {
		t.Errorf("meanwhile a job ran on %s", got)
	}
	t.Logf("with %d open: %v", connections, daemontest.Count())
	var all sync.WaitGroup
	for _, conn := range conns {
		all.Go(func() {
			_ = conn.SetReadDeadline(time.Now().Add(stalled))
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("the daemon does not give up: %v", err)
			}
			_ = conn.Close()
		})
	}
	all.Wait()
	settled(t, d, before)
}
