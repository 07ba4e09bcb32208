package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/pull"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/tracker"
)

// lines writes a stream of JSON objects, a line each, as they come.
type lines struct {
	client
	begun bool
}

func (s *Server) lines(w http.ResponseWriter) *lines { return &lines{client: s.client(w)} }

// put writes a line.
func (l *lines) put(ctx context.Context, v any) error {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.w.WriteHeader(http.StatusOK)
	}
	return l.send(ctx, job.Line(v))
}

// fail tells of a failure: by a status if nothing has been said yet, or else in the
// line that last makes of it.
func (l *lines) fail(ctx context.Context, err error, last func(*wire.Error) any) {
	if !l.begun {
		fail(l.w, ourWords(err))
		return
	}
	ctx, cancel := lastly(ctx)
	defer cancel()
	_ = l.put(ctx, last(describe(err))) // a client that is gone needs no words
}

// inEvent is the last line of an answer that breaks off.
func inEvent(e *wire.Error) any { return wire.Event{Error: e} }

// read decodes a request of our own API, in which unknown members are errors.
func (s *Server) read(w http.ResponseWriter, r *http.Request, into any) bool {
	body, err := s.readBody(w, r)
	if err == nil {
		err = decodeStrictly(body, into)
	}
	if err != nil {
		fail(w, err)
		return false
	}
	return true
}

func (s *Server) nativeGenerate(w http.ResponseWriter, r *http.Request) {
	var q wire.Generate
	if !s.read(w, r, &q) {
		return
	}
	if q.Prompt == "" {
		fail(w, errNoPrompt())
		return
	}
	s.native(w, r, job.Job{Kind: job.Generate, Content: job.Content{Prompt: q.Prompt}}, q.Options)
}

func errNoPrompt() error { return job.InvalidField("prompt", "it is empty") }

func (s *Server) nativeChat(w http.ResponseWriter, r *http.Request) {
	var q wire.Chat
	if !s.read(w, r, &q) {
		return
	}
	j := job.Job{Kind: job.Chat}
	for _, m := range q.Messages {
		j.Content.Messages = append(j.Content.Messages, job.Message(m))
	}
	if err := job.CheckMessages(j.Content.Messages); err != nil {
		fail(w, err)
		return
	}
	s.native(w, r, j, q.Options)
}

// native runs a job that came in no backend's dialect.
func (s *Server) native(w http.ResponseWriter, r *http.Request, j job.Job, options map[string]any) {
	if err := finish(&j, r, options); err != nil {
		fail(w, err)
		return
	}
	out := &events{lines: s.lines(w), id: j.ID}
	if err := s.Runner.Run(r.Context(), j, out); err != nil {
		if !out.begun {
			w.Header().Set("X-Request-ID", j.ID)
		}
		out.fail(r.Context(), err, inEvent)
	}
}

// finish sets what is to be said of such a job beside its text.
func finish(j *job.Job, r *http.Request, options map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(options)) {
		if err := j.Set(key, options[key]); err != nil {
			return within("options", err)
		}
	}
	if err := door.Annotate(j, r.Header); err != nil {
		return err
	}
	if j.ID == "" {
		j.ID = rand.Text()
	}
	j.Stream, j.PromptBytes, j.Prompt = true, j.Content.Bytes(), j.Content.Fingerprint()
	j.Arrived = time.Now()
	j.Client, j.Vouched = door.Client(r.Context(), r.Header)
	return nil
}

// ourWords leaves out a backend's own answer: this API has one form of error.
func ourWords(err error) error {
	e := *asJobError(err)
	e.Answer = nil
	return &e
}

// events writes an answer as our own events.
type events struct {
	*lines
	id  string
	err error
}

// Routed tells the client where its job goes, before anything is there.
func (e *events) Routed(d route.Decision) {
	if !e.begun {
		setRoute(e.w.Header(), e.id, d)
	}
	e.err = e.put(context.Background(), wire.Event{Routed: d.Fields()})
}

// Fetching tells the client how the model is getting on that its job waits for.
func (e *events) Fetching(p pull.Progress) error { return e.pull(context.Background(), p) }

// Begin reports whether the client is still there.
func (e *events) Begin(job.Head) error { return e.err }

// Chunk writes the text, and what the job took.
func (e *events) Chunk(ctx context.Context, c job.Chunk, r *dispatch.Report) error {
	if c.Text != "" {
		if err := e.put(ctx, wire.Event{Text: c.Text}); err != nil {
			return err
		}
	}
	if r == nil {
		return nil
	}
	return e.put(ctx, wire.Event{End: r.Fields()})
}

// hold keeps a hold as long as the client stays.
func (s *Server) hold(w http.ResponseWriter, r *http.Request) {
	var q wire.Hold
	if !s.read(w, r, &q) {
		return
	}
	tier, err := power.ParseHeldTier(q.Tier)
	switch {
	case err != nil:
		fail(w, job.InvalidField("tier", "%v", err))
		return
	case len(q.Reason) > power.LongestReason:
		fail(w, job.InvalidField("reason", "is %d bytes long, the limit is %d", len(q.Reason), power.LongestReason))
		return
	}
	who := door.Holder(r.Context())
	cookie, err := s.Tiers.Hold(r.Context(), power.Hold{Tier: tier, Reason: q.Reason, Holder: who})
	if errors.Is(err, tracker.ErrTooManyHolds) {
		fail(w, &job.Error{Code: job.Busy, Err: err})
		return
	}
	if err != nil {
		fail(w, err)
		return
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), time.Second)
		defer cancel()
		_ = s.Tiers.Release(ctx, cookie, who) // it may have ended already
	}()
	s.keep(s.lines(w), r, cookie)
}

// keep tells of a hold, and then waits for its end or the client's.
func (s *Server) keep(out *lines, r *http.Request, cookie uint32) {
	told := false
	var last wire.Held
	for now := range s.Tiers.Watch(r.Context()) {
		i := slices.IndexFunc(now.Holds, func(h power.Hold) bool { return h.Cookie == cookie })
		if i < 0 {
			last.Released = true
			_ = out.put(r.Context(), last)
			return
		}
		if !told {
			last, told = held(now.Holds[i]), true
			if out.put(r.Context(), last) != nil {
				return
			}
		}
	}
}

func (s *Server) policy(w http.ResponseWriter, r *http.Request) {
	reply(w, http.StatusOK, wire.Policy{Policy: string(s.Tiers.Look(r.Context()).Preference)})
}

func (s *Server) setPolicy(w http.ResponseWriter, r *http.Request) {
	var q wire.Policy
	if !s.read(w, r, &q) {
		return
	}
	p, err := power.ParsePreference(q.Policy)
	if err != nil {
		fail(w, job.InvalidField("policy", "%v", err))
		return
	}
	if err := s.Tiers.Prefer(r.Context(), p); err != nil {
		reply(w, http.StatusInternalServerError, &wire.Error{Text: "the policy cannot be kept: " + err.Error(), Code: wire.CodeInternal})
		return
	}
	reply(w, http.StatusOK, wire.Policy{Policy: string(p)})
}
