package httpapi

import (
	"encoding/json"
	"net/url"

	"github.com/ollama/ollama/api"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
)

// listRemote returns what is to be listed of a remote backend, as Ollama lists
// models that are elsewhere: those that the user named, and of what is in memory
// there nothing.
func listRemote(b backend.Backend, path string) (list []json.RawMessage) {
	if path != "/api/tags" {
		return nil
	}
	for i := range b.Facts.Models {
		m := &b.Facts.Models[i]
		list = append(list, job.Line(api.ListModelResponse{
			Name: m.Name, Model: m.Name, RemoteModel: theirs(b, m.Name), RemoteHost: host(b), ModifiedAt: b.Checked, Digest: m.Digest,
		}))
	}
	return list
}

// showRemote describes a model that is elsewhere.
func showRemote(b backend.Backend, m *job.Model) api.ShowResponse {
	return api.ShowResponse{RemoteModel: theirs(b, m.Name), RemoteHost: host(b), ModelInfo: map[string]any{}, ModifiedAt: b.Checked}
}

// theirs is what the remote server calls a model.
func theirs(b backend.Backend, name string) string {
	for ours, theirs := range b.Spec.Models {
		if job.SameModel(ours, name) {
			return theirs
		}
	}
	return name
}

func host(b backend.Backend) string {
	return (&url.URL{Scheme: b.Endpoint.Scheme, Host: b.Endpoint.Host}).String()
}

// describeRemote says who may leave for a backend.
func describeRemote(b backend.Backend) *wire.Remote {
	r := &wire.Remote{
		When: string(b.Leave.When), Clients: append([]string{}, b.Leave.Clients...), Classes: []string{},
		InputPrice: b.Price.Input, OutputPrice: b.Price.Output, Currency: b.Price.Currency,
	}
	for _, c := range b.Leave.Classes {
		r.Classes = append(r.Classes, string(c))
	}
	return r
}
