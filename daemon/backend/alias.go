package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"

	"github.com/joulemux/joulemux/daemon/job"
)

// aliased is a server some of whose models go by other names with clients. A
// model that has such names has no other: what the server calls it may be what
// another one calls a model with other weights.
type aliased struct {
	Server
	names map[string]string // the server's, by the client's
}

// alias returns a server whose models have those names, by the client's. It can do
// what the one behind it can.
func alias(server Server, names map[string]string) Server {
	if len(names) == 0 {
		return server
	}
	a := aliased{server, names}
	if u, able := server.(Unloader); able {
		return struct {
			aliased
			Unloader
		}{a, renamed{u, a}}
	}
	return a
}

// theirs returns the server's name for a model, and whether it has another one.
func (a aliased) theirs(name string) (string, bool) {
	for ours, theirs := range a.names {
		if job.SameModel(ours, name) {
			return theirs, true
		}
	}
	return name, false
}

// ours returns the clients' names for a model, in order: its own, if it has no
// other.
func (a aliased) ours(name string) (list []string) {
	for ours, theirs := range a.names {
		if job.SameModel(theirs, name) {
			list = append(list, ours)
		}
	}
	if len(list) == 0 {
		return []string{name}
	}
	slices.Sort(list)
	return list
}

// Probe tells what the server says of its models by the clients' names.
func (a aliased) Probe(ctx context.Context) (job.Facts, error) {
	facts, err := a.Server.Probe(ctx)
	var models []job.Model
	for _, m := range facts.Models {
		for _, name := range a.ours(m.Name) {
			m.Name = name
			models = append(models, m)
		}
	}
	facts.Models = models
	return facts, err
}

// Stream runs a job with the model by the server's name.
func (a aliased) Stream(ctx context.Context, j job.Job, begin func(job.Head) error, emit func(job.Chunk) error) error {
	if name, other := a.theirs(j.Model); other {
		j.Model, j.Chosen = name, true
	}
	return a.Server.Stream(ctx, j, begin, emit)
}

// mostNamed is the longest request or listing in which a model is renamed.
const mostNamed = 16 << 20

// Do sends a request with the model by the server's name, and has listings in the
// answer say the clients'.
func (a aliased) Do(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodPost && req.Body != nil {
		if err := a.rename(req); err != nil {
			return nil, err
		}
	}
	resp, err := a.Server.Do(req)
	if err != nil || req.Method != http.MethodGet || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostNamed))
	if err != nil {
		return nil, err
	}
	body = a.list(body)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return resp, nil
}

// rename replaces the model in a request that names one. What is not JSON is left
// to the server.
func (a aliased) rename(req *http.Request) error {
	body, err := io.ReadAll(io.LimitReader(req.Body, mostNamed))
	if err != nil {
		return err
	}
	var q struct{ Model, Name string }
	if json.Unmarshal(body, &q) == nil {
		for _, name := range []string{q.Name, q.Model} {
			if theirs, other := a.theirs(name); other {
				if body, err = job.SetModel(body, theirs); err != nil {
					return err
				}
			}
		}
	}
	rest := req.Body // of what is longer
	req.Body, req.ContentLength = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), rest), rest}, -1
	return nil
}

// list returns a listing with the models renamed, or what is none as it was.
func (a aliased) list(body []byte) []byte {
	var list struct{ Models []json.RawMessage }
	if json.Unmarshal(body, &list) != nil || list.Models == nil {
		return body
	}
	named := []json.RawMessage{}
	for _, entry := range list.Models {
		var m struct{ Model, Name string }
		_ = json.Unmarshal(entry, &m) // one without a name keeps none
		if m.Model == "" {
			m.Model = m.Name
		}
		for _, name := range a.ours(m.Model) {
			if other, err := job.SetListed(entry, name); err == nil && name != m.Model {
				named = append(named, other)
			} else {
				named = append(named, entry)
			}
		}
	}
	return job.Line(map[string]any{"models": named})
}

// renamed unloads models by the server's names.
type renamed struct {
	Unloader
	names aliased
}

func (r renamed) Unload(ctx context.Context, model string) error {
	name, _ := r.names.theirs(model)
	return r.Unloader.Unload(ctx, name)
}
