package httpapi

import (
	"context"
	"crypto/rand"
	"net/http"
	"strconv"
	"time"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
)

// job returns the handler of an endpoint that runs jobs.
func (s *Server) job(kind job.Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := s.readBody(w, r)
		if err != nil {
			fail(w, err)
			return
		}
		j, q, err := ollamaJob(kind, r.URL.Path, body)
		if err == nil {
			err = door.Annotate(&j, r.Header)
		}
		if err != nil {
			fail(w, err)
			return
		}
		if q.unloads(&j) {
			s.unload(w, r, j)
			return
		}
		s.run(w, r, inOllama, j, q.report)
	}
}

// run runs a job, and answers with its answer.
func (s *Server) run(w http.ResponseWriter, r *http.Request, in tongue, j job.Job, wants report) {
	if j.ID == "" {
		j.ID = rand.Text()
	}
	j.Arrived = time.Now()
	j.Client, j.Vouched = door.Client(r.Context(), r.Header)
	out := &answer{client: s.client(w), tongue: in, job: &j, wants: wants}
	out.end(r.Context(), s.Runner.Run(r.Context(), j, out))
}

// answer writes a backend's answer to a client, as it came.
type answer struct {
	client
	tongue
	job   *job.Job
	wants report
	// report tells to add our own member to the end of the answer.
	report bool

	decision route.Decision
	head     job.Head
	// lines tells that it comes in pieces that the client should see at once.
	lines bool
	// begun says that the head is written, and that nothing else can be said.
	begun bool
	// held is what is there of an undivided answer before its head is written.
	held []byte
}

// mostHeld is how much of an undivided answer is held back. If it breaks within
// that, its client is told why, with a status that says so.
const mostHeld = 64 << 10

// Routed keeps the decision for the headers.
func (a *answer) Routed(d route.Decision) { a.decision = d }

// Begin keeps the head until there is something to write behind it.
func (a *answer) Begin(head job.Head) error {
	a.head = head
	a.lines = a.job.Stream && head.Status < http.StatusBadRequest
	a.report = head.Status < http.StatusBadRequest && (a.wants == everywhere || a.wants == inStreams && a.lines)
	return nil
}

// begin writes the head.
func (a *answer) begin() {
	a.begun = true
	h := a.w.Header()
	setRoute(h, a.job.ID, a.decision)
	if a.head.ContentType != "" {
		h["Content-Type"] = []string{a.head.ContentType}
	}
	if a.head.Warning != "" {
		h["X-Joulemux-Warning"] = []string{header(a.head.Warning)}
	}
	// A stream may have to end in an error that the backend did not count.
	if a.head.Length >= 0 && !a.lines && !a.report {
		h["Content-Length"] = []string{strconv.FormatInt(a.head.Length, 10)}
	}
	a.w.WriteHeader(a.head.Status)
}

// Chunk writes a piece.
func (a *answer) Chunk(ctx context.Context, c job.Chunk, r *dispatch.Report) error {
	raw := c.Raw
	if !a.lines && !a.begun {
		// A report can be added only to all of it.
		if !c.Last && (a.report || len(a.held)+len(raw) <= mostHeld) {
			a.held = append(a.held, raw...)
			return nil
		}
		if len(a.held) > 0 {
			raw, a.held = append(a.held, raw...), nil
		}
	}
	if a.report && c.Last {
		raw = withReport(raw, r)
	}
	if !a.begun {
		if c.Last && a.head.Status < http.StatusBadRequest {
			setEnergy(a.w.Header(), r)
		}
		a.begin()
	}
	if a.lines {
		return a.send(ctx, raw)
	}
	return a.write(ctx, raw)
}

// withReport adds the report to the end of an answer. What is no JSON object
// is the backend's mistake, and for the client to see.
func withReport(raw []byte, r *dispatch.Report) []byte {
	spliced, err := job.Splice(raw, r.Fields())
	if err != nil {
		return raw
	}
	return spliced
}

// end ends the answer; one that broke ends as broken.
func (a *answer) end(ctx context.Context, err error) {
	switch {
	case err == nil:
	case !a.begun:
		a.w.Header().Set("X-Request-ID", a.job.ID)
		a.fail(a.w, err)
	default:
		if e := asJobError(err); a.lines && !e.Told {
			ctx, cancel := lastly(ctx)
			defer cancel()
			_ = a.send(ctx, a.broken(describe(err))) // a client that is gone needs no words
		}
		panic(http.ErrAbortHandler)
	}
}

// unloads reports whether a request only tells a server to let go of a model.
func (q *request) unloads(j *job.Job) bool {
	empty := q.Prompt == "" && len(q.Messages) == 0 && len(q.Images) == 0
	return j.Kind != job.Embed && empty && j.KeepAsked != nil && *j.KeepAsked == 0
}

// unload has every server that holds the model let go of it, and answers with
// the answer of one of them.
func (s *Server) unload(w http.ResponseWriter, r *http.Request, j job.Job) {
	if j.Model == "" {
		fail(w, job.InvalidField("model", "name the model to unload"))
		return
	}
	var with, holding []serverOf
	for _, b := range s.Backends.LookHere(r.Context()) {
		if m := b.Model(j.Model); m != nil && b.Healthy && !b.Remote() {
			with = append(with, serverOf{b.ID, b.Server()})
			if m.Resident {
				holding = append(holding, serverOf{b.ID, b.Server()})
			}
		}
	}
	if len(with) == 0 {
		fail(w, job.Errorf(job.ModelNotFound, "%s", j.Model))
		return
	}
	if len(holding) == 0 {
		holding = with[:1]
	}
	for _, b := range holding[1:] {
		if err := b.tell(r, j.Original.Body); err != nil {
			s.Log.Warn("model not unloaded", "backend", b.id, "err", err)
		}
	}
	s.forward(w, r, holding[0], j.Original.Body)
}
