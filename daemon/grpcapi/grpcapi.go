// Package grpcapi is the gRPC front-end: compute.v1.ComputeService, whose
// contract is computev1/compute.proto, with reflection and gRPC's health
// service. One handler speaks gRPC, gRPC-Web, and JSON that curl can write, over
// HTTP/1.1 and HTTP/2.
//
// It turns requests into jobs and answers into messages; it never chooses a
// backend, nor talks to one. Who may ask is daemon/door's to say.
package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/pipeline"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/daemon/token"
	"github.com/joulemux/joulemux/power"
)

// Runner runs jobs, and tells where one would run. *dispatch.Dispatcher does.
type Runner interface {
	Run(ctx context.Context, j job.Job, sink dispatch.Sink) error
	Explain(ctx context.Context, j job.Job, tier *power.Tier) (route.Decision, error)
}

// Backends tells which backends there are. *backend.Set does.
type Backends interface {
	Look(ctx context.Context) backend.Snapshot
	Current() backend.Snapshot
	Watch(ctx context.Context) iter.Seq[backend.Snapshot]
	Metrics(id string) backend.Metrics
}

// Parts is what the front-end stands on.
type Parts struct {
	Runner   Runner
	Backends Backends
	// Shelf is where pipelines are kept, and Engine runs them.
	Shelf  pipeline.Shelf
	Engine *pipeline.Engine
	// Heat tells how hot the processor is.
	Heat    func() power.Heat
	Door    *door.Door
	Version string
	Log     *slog.Logger
}

// Server answers requests.
type Server struct {
	Parts
	mux      atomic.Pointer[http.ServeMux]
	errors   *connect.ErrorWriter
	stalled  time.Duration // unreadFor, but in tests
	arriving time.Duration // bodyTimeout, but in tests
	longest  int           // longestAnswer, but in tests
}

const (
	// unreadFor is how long a client may leave a message unread. Until then it
	// holds up the backend, which is what it should do.
	unreadFor = 30 * time.Second
	// bodyTimeout is how long a client may take to send its request.
	bodyTimeout = time.Minute
	// longestAnswer is how much text is kept for an answer in one piece, in
	// bytes; more than the longest context of any model holds.
	longestAnswer = 16 << 20
)

// New returns a server for requests of up to so many bytes each.
func New(p Parts, maxBody int) *Server {
	s := &Server{Parts: p, errors: connect.NewErrorWriter(), stalled: unreadFor, arriving: bodyTimeout, longest: longestAnswer}
	s.Limit(maxBody)
	return s
}

// Limit bounds requests to come, in bytes, unpacked.
func (s *Server) Limit(maxBody int) {
	options := connect.WithHandlerOptions(
		connect.WithReadMaxBytes(maxBody),
		// Nothing leaves this machine: packing costs more than it saves.
		connect.WithCompressMinBytes(math.MaxInt32),
		connect.WithRecover(s.recovered),
	)
	mux := http.NewServeMux()
	mux.Handle(computev1.NewComputeServiceHandler(service{s}, options))
	mux.Handle(grpchealth.NewHandler(checker{s}, options))
	reflector := grpcreflect.NewStaticReflector(
		computev1.ComputeServiceName, grpchealth.HealthV1ServiceName,
		grpcreflect.ReflectV1ServiceName, grpcreflect.ReflectV1AlphaServiceName,
	)
	mux.Handle(grpcreflect.NewHandlerV1(reflector, options))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector, options))
	s.mux.Store(mux)
}

// recovered answers a request whose handler has panicked.
func (s *Server) recovered(ctx context.Context, spec connect.Spec, _ http.Header, p any) error {
	s.Log.LogAttrs(ctx, slog.LevelError, "request panicked",
		slog.String("procedure", spec.Procedure), slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
	return connect.NewError(connect.CodeInternal, errors.New("internal error"))
}

// Serves reports whether a request is for this front-end, where another shares
// its listener.
func (s *Server) Serves(r *http.Request) bool {
	if isGRPC(r) {
		return true
	}
	_, pattern := s.mux.Load().Handler(r)
	return pattern != ""
}

// isGRPC reports whether a client speaks gRPC or gRPC-Web.
func isGRPC(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
}

// exposed is what pages of this machine may read beside the body.
const exposed = "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin, X-Request-Id, Retry-After"

// ServeHTTP answers a request that came by whatever listener.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(s.stalled))
	_ = control.SetReadDeadline(time.Now().Add(s.arriving))
	r, err := s.Door.Admit(w, r, rightFor(r.URL.Path), exposed)
	if err != nil {
		s.fail(w, r, errorOf(r.Context(), "", err))
		return
	}
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent) // a browser asks before it asks
		return
	}
	handler, pattern := s.mux.Load().Handler(r)
	if pattern == "" {
		s.fail(w, r, s.nowhere(r))
		return
	}
	stretch(len(pattern))
	handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), controlKey{}, control)))
}

// stretch has the stack grow at once to what a call needs that was let in. HTTP/2
// has a goroutine for each, whose stack would otherwise grow four times on the way to
// the backend, and be copied each time with all that is on it: one part in fifteen of
// what a call takes of the processor.
//
//go:noinline
func stretch(n int) byte {
	var room [16 << 10]byte
	return room[n%len(room)]
}

// rightFor returns what it takes to call what is at a path: of the service, a
// right; to see that it is there, and what it offers, none in particular.
func rightFor(path string) token.Right {
	if strings.HasPrefix(path, "/"+computev1.ComputeServiceName+"/") {
		return token.Generate
	}
	return token.Anyone
}

// nowhere is the answer to a request that nothing here is for.
func (s *Server) nowhere(r *http.Request) error {
	code := connect.CodeNotFound
	if isGRPC(r) {
		code = connect.CodeUnimplemented
	}
	return connect.NewError(code, fmt.Errorf("there is no %s here; %s is, as reflection tells", clip(r.URL.Path), computev1.ComputeServiceName))
}

// fail answers in the protocol of the request, or else in Connect's JSON.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	_ = s.errors.Write(w, r, err) // a client that is gone needs no answer
}

type controlKey struct{}

// client is the receiver of an answer that takes its time.
type client struct {
	control *http.ResponseController
	stalled time.Duration
}

// client returns the receiver of the answer to a request that is all there. The
// connection may now be silent.
func (s *Server) client(ctx context.Context) *client {
	c := &client{ctx.Value(controlKey{}).(*http.ResponseController), s.stalled}
	_ = c.control.SetReadDeadline(time.Time{})
	_ = c.control.SetWriteDeadline(time.Time{})
	return c
}

// send sends a message, which has to be taken in time: not much later than ctx ends.
func (c *client) send(ctx context.Context, f func() error) error {
	return door.Within(ctx, c.control, c.stalled, f)
}

// finally sets until when the rest of an answer has to be taken, which is sent
// once its handler has returned.
func (c *client) finally() { _ = c.control.SetWriteDeadline(time.Now().Add(c.stalled)) }

// lastly sets until when the last words to a client have to be taken, whose job
// is over and who may not be reading.
func (c *client) lastly() { _ = c.control.SetWriteDeadline(time.Now().Add(door.LastWords)) }
