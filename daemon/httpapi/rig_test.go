package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/backend/ollama"
	"github.com/joulemux/joulemux/daemon/cache"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/latest"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/peer"
	"github.com/joulemux/joulemux/daemon/pipeline"
	"github.com/joulemux/joulemux/daemon/pull"
	"github.com/joulemux/joulemux/daemon/registry"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
	"github.com/joulemux/joulemux/power/tracker"
)

// patience is what a loaded machine may take for what should take no time.
const patience = 20 * time.Second

// stalled is how long a client may leave its answer unread where a test waits
// for longer: a loaded machine writes within that.
const stalled = time.Second

// scriptedOllama lists the models that it is given, and answers all else by a
// script.
type scriptedOllama struct {
	version  string
	models   []string
	resident []string
	script   http.HandlerFunc
	digest   string // of all models

	mu    sync.Mutex
	asked []question
}

// question is a request that a scripted Ollama was asked.
type question struct{ method, path, body string }

func (o *scriptedOllama) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/api/version":
		_, _ = fmt.Fprintf(w, `{"version":%q}`, o.version)
		return
	case "/api/tags":
		_, _ = io.WriteString(w, strings.ReplaceAll(listing(o.models), `"size"`, o.named()))
		return
	case "/api/ps":
		_, _ = io.WriteString(w, listing(o.resident))
		return
	}
	body, _ := io.ReadAll(r.Body)
	o.mu.Lock()
	o.asked = append(o.asked, question{r.Method, r.URL.Path, string(body)})
	o.mu.Unlock()
	if o.script == nil {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	o.script(w, r)
}

func listing(models []string) string {
	list := make([]string, len(models))
	for i, m := range models {
		list[i] = fmt.Sprintf(`{"name":%q,"model":%q,"digest":%q,"size":7,"context_length":4096,"mark":[1, 2]}`, m, m, "d-"+job.CanonicalModel(m))
	}
	return `{"models":[` + strings.Join(list, ",") + `]}`
}

// named returns what is told of each model before its size.
func (o *scriptedOllama) named() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.digest == "" {
		return `"size"`
	}
	return fmt.Sprintf(`"digest":%q,"size"`, o.digest)
}

// questions returns what was asked beside the listings.
func (o *scriptedOllama) questions() []question {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]question(nil), o.asked...)
}

// says answers with these pieces, each sent by itself.
func says(contentType string, pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		for _, p := range pieces {
			_, _ = io.WriteString(w, p)
			if len(pieces) > 1 {
				_ = http.NewResponseController(w).Flush()
			}
		}
	}
}

// with returns a scripted Ollama that has the resident model m.
func with(script http.HandlerFunc) *scriptedOllama {
	return &scriptedOllama{version: "0.17.4", models: []string{"m:latest"}, resident: []string{"m:latest"}, script: script}
}

// rig is the front-end with real parts below it, on both listeners.
type rig struct {
	*httpapi.Server
	door     *door.Door
	t        testing.TB
	tiers    *tracker.Tracker
	backends *backend.Set
	dispatch *dispatch.Dispatcher
	ledger   *ledger.Ledger
	cache    *cache.Cache
	state    string // the ledger's folder
	shelf    string // the folder of pipelines
	socket   string
	addr     string
	overUnix *http.Client
	overTCP  *http.Client
	puller   *pull.Puller
	// conditions are those under which models are fetched.
	conditions latest.Value[pull.Conditions]
}

// newRig starts a front-end over servers that are called one, two and so on.
func newRig(t testing.TB, servers ...http.Handler) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	r := &rig{
		t: t, tiers: tracker.New(power.DefaultPolicy(), power.PreferAuto, func() power.Supply { return power.Supply{} }),
		state: filepath.Join(t.TempDir(), "joulemux"), shelf: t.TempDir(),
	}
	r.ledger = ledger.New(r.state, ledger.DefaultKeep(), log)
	r.backends = backend.New(
		func(s backend.Spec) backend.Server { return ollama.New(&s.Endpoint) },
		func(s backend.Spec, _ job.Facts) power.DeviceClass { return s.Class }, log)
	var specs []backend.Spec
	classes := []power.DeviceClass{power.IntegratedGPU, power.CPU, power.NPU}
	for i, h := range servers {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		u, _ := url.Parse(server.URL)
		specs = append(specs, backend.Spec{ID: []string{"one", "two", "three"}[i], Type: "ollama", Class: classes[i], Slots: 64, Endpoint: *u})
	}
	r.backends.Configure(specs)
	r.backends.LookHere(t.Context()) // since the first job would wait for 150 ms, which a loaded machine exceeds
	r.cache = cache.New(cache.DefaultSettings())
	r.dispatch = dispatch.New(dispatch.Parts{
		Tiers: r.tiers, Backends: r.backends, Meter: meter.New(meter.Options{}), Ledger: r.ledger, Cache: r.cache, Log: log,
	}, dispatch.DefaultSettings())
	r.puller = pull.New(pull.Parts{Source: source{r.backends}, Conditions: func(ctx context.Context) iter.Seq[pull.Conditions] {
		return r.conditions.Watch(ctx)
	}, Log: log}, pull.Rules{})
	table, err := peer.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	r.door = door.New(table.UID, table.Program, log)
	r.Server = httpapi.New(httpapi.Parts{
		Runner: r.dispatch, Explainer: r.dispatch, Tiers: r.tiers, Backends: r.backends, Ledger: r.ledger, Cache: r.cache, Door: r.door,
		Shelf:      pipeline.Shelf{r.shelf},
		Engine:     &pipeline.Engine{Runner: r.dispatch, Tier: func(ctx context.Context) power.Tier { return r.tiers.Look(ctx).Tier }},
		Puller:     r.puller,
		Models:     registry.New(registry.Parts{Backends: r.backends}),
		FullCharge: func() (power.Energy, bool) { return 50 * 3600 * power.Joule, true },
		Machine: func(context.Context) wire.Machine {
			watts := 9.0
			return wire.Machine{
				DrawWatts: &watts,
				Draws:     []wire.Draw{{Domain: "package-0", Scope: "package", Source: "rapl", Watts: 4.3}},
				Devices:   []wire.Device{{Address: "0000:01:00.0", Vendor: "nvidia", Kind: "display", Status: "suspended", PowerState: "D3cold"}},
			}
		}, Faults: func() string { return "" }, Version: "1-test", Log: log,
	}, httpapi.Settings{MaxBody: 4 << 20})
	r.serve()
	return r
}

// source has the servers fetch models.
type source struct{ backends *backend.Set }

func (s source) Pull(ctx context.Context, o pull.Order, each func(pull.Step)) error {
	b := s.backends.Current().Find(o.Backend)
	return ollama.Pull(ctx, b.Server().Do, o.Model, o.Insecure, func(s ollama.Step) { each(pull.Step(s)) })
}

// serve runs what runs, until the test ends.
func (r *rig) serve() {
	r.t.Helper()
	dir, err := os.MkdirTemp("", "jm-")
	if err != nil {
		r.t.Fatal(err)
	}
	r.socket = filepath.Join(dir, "api.sock")
	unix, err := net.Listen("unix", r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr = tcp.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.tiers.Run(ctx) })
	running.Go(func() { _ = r.ledger.Run(ctx) })
	running.Go(func() { _ = r.dispatch.Drive(ctx) })
	running.Go(func() { _ = r.puller.Run(ctx) })
	for _, l := range []net.Listener{unix, tcp} {
		running.Go(func() {
			if err := r.door.Serve(ctx, l, r.Server); err != nil {
				r.t.Errorf("Serve returned %v", err)
			}
		})
	}
	r.overUnix = &http.Client{Transport: &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.socket)
	}}}
	r.overTCP = &http.Client{Transport: &http.Transport{DisableCompression: true}}
	r.t.Cleanup(func() {
		r.overUnix.CloseIdleConnections()
		r.overTCP.CloseIdleConnections()
		cancel()
		running.Wait()
		r.backends.Close()
		_ = os.RemoveAll(dir)
	})
}

// answered is a response that has been read.
type answered struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

// ask sends a request over the Unix socket. Headers are "Name: value".
func (r *rig) ask(method, path, body string, headers ...string) answered {
	r.t.Helper()
	return r.over(r.overUnix, method, path, body, headers...)
}

func (r *rig) over(c *http.Client, method, path, body string, headers ...string) answered {
	r.t.Helper()
	resp := r.open(r.t.Context(), c, method, path, body, headers...)
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	return answered{resp.StatusCode, resp.Header, string(all), err}
}

// open sends a request and returns the beginning of its answer.
func (r *rig) open(ctx context.Context, c *http.Client, method, path, body string, headers ...string) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+r.addr+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		} else {
			req.Header.Set(name, value)
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp
}

// dial posts a body over the Unix socket, and leaves the answer unread.
func (r *rig) dial(path, body string) net.Conn {
	r.t.Helper()
	return r.dialFor(path, len(body), body)
}

// dialFor posts the beginning of a body of that length, likewise.
func (r *rig) dialFor(path string, length int, begin string) net.Conn {
	r.t.Helper()
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, length, begin); err != nil {
		r.t.Fatal(err)
	}
	return conn
}

// read decodes a JSON text.
func read[T any](t testing.TB, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return v
}

// wait fails the test unless something happens in time.
func wait(t testing.TB, what string, happened <-chan struct{}) {
	t.Helper()
	select {
	case <-happened:
	case <-time.After(patience):
		t.Fatalf("%s: nothing in time", what)
	}
}
