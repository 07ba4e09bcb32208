package httpapi

import (
	"cmp"
	"net/http"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
)

// listedModel is a model in OpenAI's listing.
type listedModel struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	Owner   string `json:"owned_by"`
}

func (t tongue) listed(id string, m job.Model, b backend.Backend) any {
	if t.dialect == job.Anthropic {
		return modelInfo{ID: id, Type: "model", Name: id, Created: time.Unix(max(0, m.Created.Unix()), 0).UTC()}
	}
	l := listedModel{ID: id, Object: "model", Owner: cmp.Or(m.Owner, b.Program())}
	if !m.Created.IsZero() {
		l.Created = m.Created.Unix()
	}
	return l
}

// modelInfo is a model in Anthropic's listing. One of which nobody knows when it
// was made is of 1970 there.
type modelInfo struct {
	ID      string    `json:"id"`
	Type    string    `json:"type"`
	Name    string    `json:"display_name"`
	Created time.Time `json:"created_at"`
}

// listModels lists the models of all healthy backends, each once, as the first
// backend that has it describes it.
func (s *Server) listModels(w http.ResponseWriter, r *http.Request) {
	in := tongueOf(r)
	seen := make(map[string]bool)
	list, ids := []any{}, []string{}
	for _, b := range s.Backends.Look(r.Context()) {
		for _, m := range b.Facts.Models {
			if key := job.CanonicalModel(m.Name); b.Healthy && !seen[key] {
				seen[key] = true
				list, ids = append(list, in.listed(m.Name, m, b)), append(ids, m.Name)
			}
		}
	}
	answer := map[string]any{"object": "list", "data": list}
	if in.dialect == job.Anthropic {
		answer = map[string]any{"data": list, "has_more": false, "first_id": nil, "last_id": nil}
		if len(ids) > 0 {
			answer["first_id"], answer["last_id"] = ids[0], ids[len(ids)-1]
		}
	}
	reply(w, http.StatusOK, answer)
}

// modelOf is what stands before a model's name in the path of its description.
const modelOf = "/v1/models/"

// describeModel describes a model, by whichever spelling of its name it is asked
// for. Who names none wants them all.
func (s *Server) describeModel(w http.ResponseWriter, r *http.Request) {
	in, id := tongueOf(r), strings.TrimPrefix(r.URL.Path, modelOf)
	if id == "" {
		s.listModels(w, r)
		return
	}
	away := make(map[string]string)
	for _, b := range s.Backends.Look(r.Context()) {
		m := b.Model(id)
		switch {
		case m == nil:
		case b.Healthy:
			reply(w, http.StatusOK, in.listed(id, *m, b))
			return
		default:
			away[b.ID] = "not healthy: " + b.Problem
		}
	}
	if len(away) > 0 {
		in.fail(w, &job.Error{Code: job.NoBackend, Refused: away})
		return
	}
	in.fail(w, job.Errorf(job.ModelNotFound, "%s", id))
}
