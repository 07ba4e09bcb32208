package daemon_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/dbus"
	"github.com/joulemux/joulemux/dbus/dbustest"
	"github.com/joulemux/joulemux/packaging/rig/rigtest"
)

// model is one that canned servers have.
const model = "llama3.2:1b"

// backends is a configuration with backends of some classes, each at an address.
// They work on as many jobs at once as a test has.
func backends(addrs map[string]string) string {
	var text strings.Builder
	text.WriteString("backends:\n")
	for class, addr := range addrs {
		fmt.Fprintf(&text, "  - {id: ollama-%s, hardware: %s, slots: 64, endpoint: \"http://%s\"}\n", class, class, addr)
	}
	return text.String()
}

// oneBackend is a configuration with a canned server for a CPU.
func oneBackend(t *testing.T) string {
	t.Helper()
	return backends(map[string]string{"cpu": daemontest.Serve(t, daemontest.CannedOllama())})
}

// realOllama starts an Ollama that has the model "tiny", and returns its URL.
func realOllama(t *testing.T) string {
	t.Helper()
	return rigtest.Ollama(t).URL()
}

// hanging is a canned server whose answers have a first piece and no end. It
// reports each client who has gone.
func hanging(gone chan<- struct{}) http.Handler {
	canned := daemontest.CannedOllama()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var line string
		switch r.URL.Path {
		case "/api/generate":
			line = `{"model":"` + model + `","response":"Hel","done":false}`
		case "/api/chat":
			line = `{"model":"` + model + `","message":{"role":"assistant","content":"Hel"},"done":false}`
		default:
			canned.ServeHTTP(w, r)
			return
		}
		// The server sees that a client is gone only once it has the body.
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-ndjson")
		_, _ = io.WriteString(w, line+"\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		gone <- struct{}{}
	})
}

// answer is what came of a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask asks the daemon over its Unix socket.
func ask(t *testing.T, d *daemontest.Daemon, method, path, body string) answer {
	t.Helper()
	a, err := request(t, d.Client(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// request asks whoever is at a URL.
func request(t *testing.T, client *http.Client, method, url string, body io.Reader) (answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), daemontest.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return answer{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text)}, err
}

// briefly returns a client that keeps no connection.
func briefly() *http.Client { return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} }

// generate is a request for an answer in one piece.
const generate = `{"model":"` + model + `","prompt":"Why?","stream":false}`

// ran returns the backend that answers a job.
func ran(t *testing.T, d *daemontest.Daemon) string {
	t.Helper()
	a := ask(t, d, "POST", "/api/generate", generate)
	if a.status != http.StatusOK {
		t.Fatalf("%d: %s", a.status, a.body)
	}
	return a.header.Get("X-Backend-Used")
}

func status(t *testing.T, d *daemontest.Daemon) (s wire.Status) {
	t.Helper()
	if err := json.Unmarshal([]byte(ask(t, d, "GET", "/joulemux/v1/status", "").body), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

type options = map[string]godbus.Variant

func message() []options {
	return []options{{"role": godbus.MakeVariant("user"), "content": godbus.MakeVariant("Why?")}}
}

// inference and router are the daemon's two objects, as a peer sees them.
func inference(p *dbustest.Peer) godbus.BusObject {
	return p.Object(dbus.InferenceName, "/io/github/joulemux/Inference1")
}

func router(p *dbustest.Peer) godbus.BusObject {
	return p.Object(dbus.RouterName, "/io/github/joulemux/Router1")
}

// call calls a method, for an error or for nothing.
func call(t *testing.T, object godbus.BusObject, method string, args ...any) *godbus.Call {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), daemontest.Patience)
	defer cancel()
	return object.CallWithContext(ctx, object.Destination()+"."+method, 0, args...)
}

// pipe returns a pipe, of which both ends are closed with the test at the latest.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// member returns our member of a line that ends an answer.
func member(t *testing.T, line string) map[string]any {
	t.Helper()
	var last struct{ Joulemux map[string]any }
	if err := json.Unmarshal([]byte(line), &last); err != nil || last.Joulemux == nil {
		t.Fatalf("there is no report in %s", line)
	}
	return last.Joulemux
}
