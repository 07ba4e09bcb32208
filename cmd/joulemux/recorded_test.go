package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// recorded is a server on a Unix socket that gives the daemon's answers as
// they are written down here, by method and path, and keeps what it was asked.
type recorded struct {
	socket string
	mu     sync.Mutex
	asked  []string // method, path and body
}

// answers are handlers by pattern, without the path's beginning.
type answers map[string]http.HandlerFunc

// replay serves answers until the test ends.
func replay(t *testing.T, all answers) *recorded {
	t.Helper()
	dir, err := os.MkdirTemp("", "jm") // The test's own can be too long for a socket.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &recorded{socket: filepath.Join(dir, "api.sock")}
	listener, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for pattern, h := range all {
		method, path := cut(pattern)
		mux.HandleFunc(method+" /joulemux/v1/"+path, func(w http.ResponseWriter, req *http.Request) {
			r.keep(t, req)
			h(w, req)
		})
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: mux}}
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return r
}

// keep reads the whole request: only then does the server see that a client
// has gone.
func (r *recorded) keep(t *testing.T, req *http.Request) {
	t.Helper()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		t.Errorf("%s %s: %v", req.Method, req.URL, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, req.Method+" "+req.URL.RequestURI()+" "+string(body))
}

func (r *recorded) requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.asked...)
}

func cut(pattern string) (method, path string) {
	for i := range pattern {
		if pattern[i] == ' ' {
			return pattern[:i], pattern[i+1:]
		}
	}
	return "GET", pattern
}

// says answers with a text, whole.
func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, text)
	}
}

// refuses answers with an error.
func refuses(status int, e wire.Error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(e)
	}
}

// write sends a part of an answer at once.
func write(w http.ResponseWriter, text string) {
	_, _ = io.WriteString(w, text)
	w.(http.Flusher).Flush()
}

// until waits for a channel to be closed, or for the client to go.
func until(done <-chan struct{}, r *http.Request) {
	select {
	case <-done:
	case <-r.Context().Done():
	}
}

// signalled answers with a text, says so, and waits for the client to go.
func signalled(text string) (h http.HandlerFunc, begun, gone chan struct{}) {
	begun, gone = make(chan struct{}), make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request) {
		write(w, text)
		close(begun)
		<-r.Context().Done()
		close(gone)
	}, begun, gone
}

const (
	routedLine = `{"routed":{"alternatives":["ollama-cpu"],"backend_used":"ollama-igpu","estimate_quality":"estimated",` +
		`"estimated_energy_joules":28.3,"estimated_latency_ms":350,"estimated_power_watts":12,"hardware":"igpu",` +
		`"reason":"least cost, 28.3 J + 2.4 s at 15.0 W predicted (tier battery)","tier":"battery"}}` + "\n"
	fallbackLine = `{"routed":{"alternatives":[],"backend_used":"ollama-cpu","hardware":"cpu","reason":"only candidate","tier":"battery"}}` + "\n"
	textLines    = `{"text":"Light "}` + "\n" + `{"text":"scatters <b>"}` + "\n"
	endLine      = `{"end":{"alternatives":["ollama-cpu"],"backend_used":"ollama-igpu","energy_joules":26.04,"energy_quality":"estimated",` +
		`"energy_source":"12.0 W assumed x 2.17 s","energy_wh":0.00723,"failed_attempts":["ollama-npu: connection refused"],` +
		`"hardware":"igpu","joules_per_token":0.685,"model":"m","prompt_tokens":7,"reason":"least cost","request_id":"R","tier":"battery",` +
		`"tier_reason":"discharging","time_to_first_token_ms":410,"tokens_generated":38,"tokens_per_second":21.82,"total_time_ms":2170}}` + "\n"
	wholeAnswer = routedLine + textLines + endLine
)
