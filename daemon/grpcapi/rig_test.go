package grpcapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/backend/ollama"
	"github.com/joulemux/joulemux/daemon/cache"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/grpcapi"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/peer"
	"github.com/joulemux/joulemux/daemon/pipeline"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
	"github.com/joulemux/joulemux/power/tracker"
)

// patience is what a loaded machine may take for what should take no time.
const patience = 20 * time.Second

// stalled is how long a client may leave a message unread where a test waits for
// longer: a loaded machine writes within that.
const stalled = time.Second

// maxBody is the longest request of a rig's.
const maxBody = 1 << 20

// scriptedOllama has the resident model m, and answers jobs by a script.
type scriptedOllama struct {
	script http.HandlerFunc

	mu    sync.Mutex
	asked []string // the bodies
}

func (o *scriptedOllama) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/api/version":
		_, _ = io.WriteString(w, `{"version":"0.17.4"}`)
		return
	case "/api/tags", "/api/ps":
		_, _ = io.WriteString(w, `{"models":[{"name":"m:latest","model":"m:latest","size":7,"digest":"d","context_length":4096}]}`)
		return
	}
	body, _ := io.ReadAll(r.Body)
	o.mu.Lock()
	o.asked = append(o.asked, string(body))
	o.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	o.script(w, r)
}

// bodies returns what it was asked.
func (o *scriptedOllama) bodies() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.asked)
}

func scripted(script http.HandlerFunc) *scriptedOllama { return &scriptedOllama{script: script} }

// piece is a line of a stream.
func piece(text string) string { return fmt.Sprintf(`{"response":%q,"done":false}`+"\n", text) }

// last is the line that ends one: 11 tokens read, and 3 written in 60 ms.
const last = `{"response":"","done":true,"prompt_eval_count":11,"prompt_eval_duration":4000000,"eval_count":3,"eval_duration":60000000,"load_duration":2000000}` + "\n"

// says answers with these pieces, each of which arrives by itself.
func says(pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		for _, p := range pieces {
			_, _ = io.WriteString(w, p)
			_ = http.NewResponseController(w).Flush()
			select { // else several would be read as one
			case <-time.After(20 * time.Millisecond):
			case <-r.Context().Done():
			}
		}
	}
}

func refuses(code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, code) }
}

// hanging begins an answer that has no end, and tells when its client has gone.
func hanging(gone chan<- time.Time) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		says(piece("Hel"))(w, r)
		<-r.Context().Done()
		gone <- time.Now()
	}
}

// let waits until a hanging server's jobs are let go of, however many of them
// had come to it in time.
func let(t *testing.T, server *scriptedOllama, gone <-chan time.Time) {
	t.Helper()
	for range server.bodies() {
		select {
		case <-gone:
		case <-time.After(patience):
			t.Fatal("the backend goes on")
		}
	}
}

// place is a backend of a rig: its id is the class's word.
type place struct {
	class  power.DeviceClass
	server http.Handler
}

// rig is the front-end with real parts below it.
type rig struct {
	*grpcapi.Server
	t        *testing.T
	tiers    *tracker.Tracker
	door     *door.Door
	dispatch *dispatch.Dispatcher
	shelf    string // the folder of pipelines
	addr     string
	conn     *grpc.ClientConn
	calls    calls
}

// calls are the service's methods, typed, by a client that is not connect's.
type calls struct{ conn *grpc.ClientConn }

const prefix = "/" + computev1.ComputeServiceName + "/"

// call calls a method that has one answer.
func call[A any](ctx context.Context, c calls, method string, q any, options ...grpc.CallOption) (*A, error) {
	a := new(A)
	return a, c.conn.Invoke(ctx, prefix+method, q, a, options...)
}

func (c calls) generate(ctx context.Context, q *computev1.GenerateRequest, options ...grpc.CallOption) (*computev1.GenerateResponse, error) {
	return call[computev1.GenerateResponse](ctx, c, "Generate", q, options...)
}

// stream has an answer streamed.
func (c calls) stream(ctx context.Context, q *computev1.GenerateRequest) (*grpc.GenericClientStream[computev1.GenerateRequest, computev1.GenerateStreamResponse], error) {
	s, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, prefix+"GenerateStream")
	if err != nil {
		return nil, err
	}
	x := &grpc.GenericClientStream[computev1.GenerateRequest, computev1.GenerateStreamResponse]{ClientStream: s}
	return x, errors.Join(s.SendMsg(q), s.CloseSend())
}

// newRig starts a front-end over backends.
func newRig(t *testing.T, places ...place) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	r := &rig{t: t, shelf: t.TempDir(), tiers: tracker.New(power.DefaultPolicy(), power.PreferAuto, func() power.Supply { return power.Supply{Source: "sysfs"} })}
	set := backend.New(
		func(s backend.Spec) backend.Server { return ollama.New(&s.Endpoint) },
		func(s backend.Spec, _ job.Facts) power.DeviceClass { return s.Class }, log)
	var specs []backend.Spec
	for _, p := range places {
		server := httptest.NewServer(p.server)
		t.Cleanup(server.Close)
		u, _ := url.Parse(server.URL)
		specs = append(specs, backend.Spec{ID: "ollama-" + string(p.class), Type: "ollama", Class: p.class, Slots: 64, Endpoint: *u})
	}
	set.Configure(specs)
	set.LookHere(t.Context()) // since the first job would wait for 150 ms, which a loaded machine exceeds
	books := ledger.New("", ledger.DefaultKeep(), log)
	r.dispatch = dispatch.New(dispatch.Parts{
		Tiers: r.tiers, Backends: set, Meter: meter.New(meter.Options{}), Ledger: books, Cache: cache.New(cache.DefaultSettings()), Log: log,
	}, dispatch.DefaultSettings())
	table, err := peer.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	r.door = door.New(table.UID, table.Program, log)
	r.Server = grpcapi.New(grpcapi.Parts{
		Shelf:  pipeline.Shelf{r.shelf},
		Engine: &pipeline.Engine{Runner: r.dispatch, Tier: func(ctx context.Context) power.Tier { return r.tiers.Look(ctx).Tier }},
		Heat:   func() power.Heat { return power.Heat{Last: power.Thermal{Temperature: 61}} },
		Runner: r.dispatch, Backends: set, Door: r.door, Version: "1-test", Log: log,
	}, maxBody)
	r.serve(set, books)
	return r
}

// serve runs what runs, until the test ends.
func (r *rig) serve(set *backend.Set, books *ledger.Ledger) {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr = l.Addr().String()
	r.conn, err = grpc.NewClient(r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.t.Fatal(err)
	}
	r.calls = calls{r.conn}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.tiers.Run(ctx) })
	running.Go(func() { _ = books.Run(ctx) })
	running.Go(func() { _ = r.dispatch.Drive(ctx) })
	running.Go(func() {
		if err := r.door.Serve(ctx, l, r.Server); err != nil {
			r.t.Errorf("Serve returned %v", err)
		}
	})
	r.t.Cleanup(func() {
		_ = r.conn.Close()
		cancel()
		running.Wait()
		set.Close()
	})
}

// within returns a context for what should take no time.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// all returns the messages of a stream, and why there are no more; io.EOF is
// no error.
func all[A any](s *grpc.GenericClientStream[computev1.GenerateRequest, A]) (list []*A, err error) {
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, m)
	}
}

// fails checks that a call failed with a code, and in words that say why.
func fails(t *testing.T, what string, err error, code codes.Code, says string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(fmt.Sprint(err), says) {
		t.Errorf("%s: got %v, want %v and %q", what, err, code, says)
	}
}

// ask is a request for an answer of the model m.
func ask() *computev1.GenerateRequest {
	return &computev1.GenerateRequest{Prompt: "Why?", Model: "m"}
}
