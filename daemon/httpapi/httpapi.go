// Package httpapi is the HTTP front-end, on a Unix socket and on loopback TCP:
// Ollama's API at the root, OpenAI's and Anthropic's under /v1/, joulemux's own
// JSON under /joulemux/v1/ (described in package wire), and /health, /backends,
// /metrics and /version.
//
// It turns requests into jobs and answers into responses; it never chooses a
// backend, nor talks to one about a job. Who may ask is daemon/door's to say, but
// for what it takes to change what models there are. What a client wrote in a
// dialect that its backend speaks reaches that byte for byte, and so does the
// answer the client.
package httpapi

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/cache"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/pipeline"
	"github.com/joulemux/joulemux/daemon/pull"
	"github.com/joulemux/joulemux/daemon/registry"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/tracker"
)

// Runner runs jobs, and tells where one would run. *dispatch.Dispatcher does.
type Runner interface {
	Run(ctx context.Context, j job.Job, sink dispatch.Sink) error
	Prospect(tier power.Tier, backends backend.Snapshot) (route.Decision, error)
	Home(ctx context.Context, model, target string) (id string, err error)
	Running() int
}

// Explainer tells what would become of a job now, or on a tier unless it is nil.
// *dispatch.Dispatcher does.
type Explainer interface {
	Explain(ctx context.Context, j job.Job, tier *power.Tier) (route.Decision, error)
}

// Tiers tells the tier in force, and takes wishes about it. *tracker.Tracker does.
type Tiers interface {
	Look(ctx context.Context) tracker.Snapshot
	Watch(ctx context.Context) iter.Seq[tracker.Snapshot]
	Hold(ctx context.Context, h power.Hold) (cookie uint32, err error)
	Release(ctx context.Context, cookie uint32, holder string) error
	Prefer(ctx context.Context, p power.Preference) error
}

// Backends tells which backends there are. *backend.Set does.
type Backends interface {
	Look(ctx context.Context) backend.Snapshot
	LookHere(ctx context.Context) backend.Snapshot
	Watch(ctx context.Context) iter.Seq[backend.Snapshot]
	Metrics(id string) backend.Metrics
}

// Ledger tells what jobs took. *ledger.Ledger does.
type Ledger interface {
	Totals(ctx context.Context, from, to time.Time, by ledger.Grouping) ([]ledger.Total, error)
	Job(ctx context.Context, id string) (ledger.Entry, error)
	Trouble() error
}

// Cache has the answers that are kept. *cache.Cache does.
type Cache interface {
	Stats() cache.Stats
	Clear() int
}

// Puller fetches models. *pull.Puller does.
type Puller interface {
	Pull(ctx context.Context, o pull.Order, each func(pull.Progress) error) error
}

// Models lists the models that there are. *registry.Registry does.
type Models interface {
	List(ctx context.Context) []registry.Model
}

// Parts is what the front-end stands on.
type Parts struct {
	Runner    Runner
	Explainer Explainer
	Tiers     Tiers
	Backends  Backends
	Ledger    Ledger
	Cache     Cache
	Puller    Puller
	Models    Models
	Door      *door.Door
	// Shelf is where pipelines are kept, and Engine runs them.
	Shelf  pipeline.Shelf
	Engine *pipeline.Engine
	// Metrics answers Prometheus.
	Metrics http.Handler
	// Machine looks at the machine.
	Machine func(ctx context.Context) wire.Machine
	// Faults tells what is wrong with the configuration's file, "" if nothing is.
	Faults func() string
	// FullCharge tells what its batteries hold when they are full.
	FullCharge func() (power.Energy, bool)
	Version    string
	Log        *slog.Logger
}

// Settings are the user's choices about this front-end.
type Settings struct {
	// MaxBody bounds a request's body, in bytes.
	MaxBody int
	// AllowAdmin permits clients to pull, create, copy, push and delete models.
	AllowAdmin bool
	// AutoPull tells that the user has models fetched which jobs want. Then
	// clients may ask for them, too.
	AutoPull bool
	// Tariff is what energy costs, or nil if nobody said.
	Tariff *wire.Tariff
	// Refusal is what whoever needs a backend is answered with, unless nil.
	Refusal *job.Error
}

// Server answers requests.
type Server struct {
	Parts
	settings atomic.Pointer[Settings]
	// instance marks our answers, so that no joulemux takes us for a backend.
	instance []string
	mux      *http.ServeMux
	stalled  time.Duration // unreadFor, but in tests
	slow     time.Duration // slowFor, but in tests
	arriving time.Duration // bodyTimeout, but in tests
}

// New returns a server with those settings.
func New(p Parts, settings Settings) *Server {
	s := &Server{Parts: p, instance: []string{rand.Text()}, mux: http.NewServeMux(), stalled: unreadFor, slow: slowFor, arriving: bodyTimeout}
	s.Configure(settings)
	for pattern, handle := range s.endpoints() {
		s.mux.HandleFunc(pattern, handle)
	}
	return s
}

// endpoints are what is here, by method and path. What each takes is rightFor's.
func (s *Server) endpoints() map[string]http.HandlerFunc {
	all := map[string]http.HandlerFunc{
		"GET /{$}": s.greet,

		"POST /api/generate":   s.job(job.Generate),
		"POST /api/chat":       s.job(job.Chat),
		"POST /api/embed":      s.job(job.Embed),
		"POST /api/embeddings": s.job(job.Embed),
		"GET /api/tags":        s.tags,
		"GET /api/ps":          s.ps,
		"POST /api/show":       s.show,
		"GET /api/version":     s.ollamaVersion,

		"POST /v1/chat/completions":  s.openAI(job.Chat),
		"POST /v1/completions":       s.openAI(job.Generate),
		"POST /v1/embeddings":        s.openAI(job.Embed),
		"POST /v1/responses":         s.speaking(inResponses, responsesJob),
		"POST /v1/messages":          s.speaking(inAnthropic, messagesJob),
		"GET /v1/models":             s.listModels,
		"GET " + modelOf + "{id...}": s.describeModel,

		"GET /health":   s.health,
		"GET /healthz":  s.alive,
		"GET /readyz":   s.ready,
		"GET /version":  s.version,
		"GET /backends": s.backends,
		"GET /metrics":  func(w http.ResponseWriter, r *http.Request) { s.Metrics.ServeHTTP(w, r) },

		"GET /joulemux/v1/status":      s.status,
		"GET /joulemux/v1/backends":    s.backends,
		"GET /joulemux/v1/models":      s.models,
		"POST /joulemux/v1/generate":   s.nativeGenerate,
		"POST /joulemux/v1/chat":       s.nativeChat,
		"POST /joulemux/v1/explain":    s.explain,
		"GET /joulemux/v1/pipelines":   s.pipelines,
		"GET " + pipelineOf + "{name}": s.pipeline,
		"POST " + pipelineOf + "check": s.checkPipeline,
		"POST " + pipelineOf + "run":   s.runPipeline,
		"POST /joulemux/v1/hold":       s.hold,
		"GET /joulemux/v1/policy":      s.policy,
		"PUT /joulemux/v1/policy":      s.setPolicy,
		"GET /joulemux/v1/cache":       s.cache,
		"DELETE /joulemux/v1/cache":    s.clearCache,
		"GET /joulemux/v1/energy":      s.energy,
		"GET " + energyOf + "{id}":     s.energyOfJob,
		"POST /joulemux/v1/pull":       s.pull,
		"POST /api/pull":               s.ollamaPull,
	}
	for _, pattern := range administration {
		all[pattern] = s.administer
	}
	return all
}

// Configure replaces the settings for requests to come.
func (s *Server) Configure(settings Settings) { s.settings.Store(&settings) }

// ServeHTTP answers a request that came by whatever listener.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header()["X-Joulemux-Instance"] = s.instance // ollama.InstanceHeader, without copying it for each answer
	control := http.NewResponseController(w)
	// For answers that are given at once; the others have a deadline for each
	// piece.
	_ = control.SetWriteDeadline(time.Now().Add(s.stalled))
	if r.Body != http.NoBody {
		// Also a body that nobody here reads is waited for, by net/http.
		_ = control.SetReadDeadline(time.Now().Add(s.arriving))
	}
	tongue := tongueOf(r)
	r, err := s.Door.Admit(w, r, rightFor(r.URL.Path), exposed)
	if err != nil {
		tongue.fail(w, err)
		return
	}
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent) // a browser asks before it asks
		return
	}
	handler, pattern := s.mux.Handler(r)
	if pattern == "" {
		s.nowhere(w, r, tongue)
		return
	}
	if refusal := s.settings.Load().Refusal; refusal != nil && needsBackend(r.URL.Path) {
		tongue.fail(w, refusal)
		return
	}
	// Of what is written some may yet be under way when the handler returns.
	defer func() { _ = control.SetWriteDeadline(time.Now().Add(s.stalled)) }()
	handler.ServeHTTP(w, r)
}

// needsBackend reports whether what is at a path is said or done by backends:
// without them a list of models is not empty, but not known.
func needsBackend(path string) bool {
	return strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/v1/") || path == "/joulemux/v1/models" || path == "/joulemux/v1/pull"
}

// nowhere answers a request that nothing here is for, in JSON as all else.
func (s *Server) nowhere(w http.ResponseWriter, r *http.Request, in tongue) {
	if methods := s.methods(r); len(methods) > 0 {
		allow := strings.Join(methods, ", ")
		w.Header().Set("Allow", allow)
		in.refuse(w, http.StatusMethodNotAllowed, &wire.Error{
			Text: fmt.Sprintf("%s is for %s, not %s", r.URL.Path, allow, r.Method), Code: wire.CodeInvalid, Field: "method",
		})
		return
	}
	text := fmt.Sprintf("there is no %s here", r.URL.Path)
	if r.URL.Path == countTokens {
		text = "tokens are counted only as a job is run; its usage tells how many there were"
	}
	in.refuse(w, http.StatusNotFound, &wire.Error{Text: text, Code: wire.CodeInvalid})
}

// methods lists those that a path is for.
func (s *Server) methods(r *http.Request) (list []string) {
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete} {
		other := *r
		other.Method = method
		if _, pattern := s.mux.Handler(&other); pattern != "" {
			list = append(list, method)
		}
	}
	return list
}

func (s *Server) greet(w http.ResponseWriter, _ *http.Request) {
	// What Ollama says; there are clients that look for it.
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("Ollama is running"))
}
