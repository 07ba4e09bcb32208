package httpapi

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/token"
	"github.com/joulemux/joulemux/power"
)

// tags lists the models of all backends, each once, as the first backend that
// has it describes it.
func (s *Server) tags(w http.ResponseWriter, r *http.Request) {
	seen := make(map[string]bool)
	merged := []json.RawMessage{}
	for _, list := range s.collect(r, "/api/tags") {
		for _, entry := range list {
			name := named(entry)
			if key := job.CanonicalModel(name); name == "" || !seen[key] {
				seen[key] = true
				merged = append(merged, entry)
			}
		}
	}
	reply(w, http.StatusOK, map[string]any{"models": merged})
}

// ps lists what is resident, on whichever backends it is.
func (s *Server) ps(w http.ResponseWriter, r *http.Request) {
	all := []json.RawMessage{}
	for _, list := range s.collect(r, "/api/ps") {
		all = append(all, list...)
	}
	reply(w, http.StatusOK, map[string]any{"models": all})
}

// named returns the name of the model that an entry describes.
func named(entry json.RawMessage) string {
	var m struct{ Model, Name string }
	_ = json.Unmarshal(entry, &m) // an entry without a name is nobody's double
	return cmp.Or(m.Model, m.Name)
}

// show forwards a question about a model to a backend that has it.
func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	body, err := s.readBody(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	var q struct{ Model, Name string }
	if err := decode(body, &q); err != nil {
		fail(w, err)
		return
	}
	name := cmp.Or(q.Model, q.Name)
	if name == "" {
		fail(w, job.InvalidField("model", "name the model to show"))
		return
	}
	away := make(map[string]string)
	for _, b := range s.Backends.LookHere(r.Context()) {
		switch {
		case b.Model(name) == nil:
		case b.Remote():
			reply(w, http.StatusOK, showRemote(b, b.Model(name)))
			return
		case b.Healthy:
			s.forward(w, r, serverOf{b.ID, b.Server()}, body)
			return
		default:
			away[b.ID] = "not healthy: " + b.Problem
		}
	}
	if len(away) > 0 { // where "not found" would have "ollama run" fetch the model
		fail(w, &job.Error{Code: job.NoBackend, Refused: away})
		return
	}
	fail(w, job.Errorf(job.ModelNotFound, "model '%s' not found", name))
}

// ollamaVersion answers with the lowest version of all healthy backends, since
// any of them may serve what the client asks next.
func (s *Server) ollamaVersion(w http.ResponseWriter, r *http.Request) {
	lowest := ""
	for _, b := range s.Backends.LookHere(r.Context()) {
		if v := b.Facts.Version; b.Healthy && v != "" && (lowest == "" || olderVersion(v, lowest)) {
			lowest = v
		}
	}
	if lowest == "" {
		fail(w, job.Errorf(job.NoBackend, "none is healthy"))
		return
	}
	reply(w, http.StatusOK, map[string]string{"version": lowest})
}

// olderVersion compares versions such as 0.9.6 and 0.17.4-rc1 by their numbers.
func olderVersion(a, b string) bool {
	for {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		if c := cmp.Compare(leadingNumber(x), leadingNumber(y)); c != 0 || a == "" && b == "" {
			return c < 0
		}
	}
}

func leadingNumber(s string) int {
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, _ := strconv.Atoi(s[:end])
	return n
}

// administration are the endpoints that change what models there are, but for
// that which fetches them.
var administration = []string{
	"POST /api/push", "POST /api/create", "POST /api/copy", "DELETE /api/delete",
	"POST /api/blobs/{digest}", "HEAD /api/blobs/{digest}",
}

// mayAdminister reports whether whoever asks may change what models there are.
func (s *Server) mayAdminister(r *http.Request) bool {
	return s.settings.Load().AllowAdmin || door.Permits(r.Context(), token.Admin)
}

// administer forwards a change of models to one backend, if that is allowed.
func (s *Server) administer(w http.ResponseWriter, r *http.Request) {
	if !s.mayAdminister(r) {
		fail(w, job.Errorf(job.Forbidden, "joulemux does not change models: ask the backend itself, set server.allow_admin in the configuration, or show a token with the right \"admin\""))
		return
	}
	b, err := s.administered(r)
	if err != nil {
		fail(w, err)
		return
	}
	// A model that is uploaded may take as long as its backend lets it, which may
	// also answer before it has all of it.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	_ = control.EnableFullDuplex() // HTTP/2 has it anyway
	body := &upload{ReadCloser: r.Body}
	if r.Body == http.NoBody {
		body.whole.Store(true)
	} else {
		r.Body = body
	}
	resp, err := b.server.Do(r)
	if err != nil {
		fail(w, &job.Error{Code: job.BackendFailed, Detail: b.id, Err: err})
		return
	}
	if resp.StatusCode >= http.StatusBadRequest && r.ProtoMajor == 1 && !body.whole.Load() {
		w.Header().Set("Connection", "close") // for the rest of the request may be on its way
	}
	defer s.Cache.Clear() // what was answered may be of a model that is another now
	s.pass(w, r, b.id, resp)
}

// upload is the body of a request that a backend may not want to the end.
type upload struct {
	io.ReadCloser
	whole atomic.Bool // that all of it was read
}

// Read takes note of the end.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		u.whole.Store(true)
	}
	return n, err
}

// administered returns the backend that a header names, or where ordinary jobs
// go.
func (s *Server) administered(r *http.Request) (serverOf, error) {
	backends := s.Backends.LookHere(r.Context())
	id := r.Header.Get("X-Target-Backend")
	if id == "" {
		if d, err := s.Runner.Prospect(s.Tiers.Look(r.Context()).Tier, backends); err == nil && d.Class != power.Cloud {
			id = d.Backend
		}
	}
	if b := backends.Find(id); b != nil {
		if b.Remote() {
			return serverOf{}, job.Errorf(job.Forbidden, "which models %s has is not this machine's affair", b.ID)
		}
		return serverOf{b.ID, b.Server()}, nil
	}
	here := slices.DeleteFunc(slices.Clone(backends), func(b backend.Backend) bool { return b.Remote() })
	if b := firstHealthy(here); b != nil && id == "" {
		return serverOf{b.ID, b.Server()}, nil
	}
	if id == "" {
		return serverOf{}, job.Errorf(job.NoBackend, "none is healthy")
	}
	return serverOf{}, &job.Error{Code: job.BackendNotFound, Field: "X-Target-Backend", Detail: id}
}

func firstHealthy(backends backend.Snapshot) *backend.Backend {
	for i := range backends {
		if backends[i].Healthy {
			return &backends[i]
		}
	}
	return nil
}
