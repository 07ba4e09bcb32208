package dbus

import (
	"cmp"
	"context"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/dbus/bus"
)

const backendsPath = routerPath + "/backend"

// backendPath returns the path of the backend with that id.
func backendPath(id string) godbus.ObjectPath {
	return backendsPath + "/" + godbus.ObjectPath(element(id))
}

// backendState is the properties of Backend1.
type backendState struct {
	Id, Name, Type, Hardware string //nolint:staticcheck // As on the bus.
	State, Problem           string
	Models, Resident         []string
}

func newBackendState(b backend.Backend) backendState {
	s := backendState{
		Id: bus.Text(b.ID), Name: bus.Text(cmp.Or(b.Name, b.ID)), Type: bus.Text(b.Program()), Hardware: string(b.Class),
		State: b.State(), Problem: bus.Text(b.Trouble()),
	}
	for _, m := range b.Facts.Models {
		s.Models = append(s.Models, bus.Text(m.Name))
		if m.Resident {
			s.Resident = append(s.Resident, bus.Text(m.Name))
		}
	}
	return s
}

// another reports whether something differs that cannot change: then it is
// another backend under the same id.
func (s backendState) another(t backendState) bool {
	return s.Id != t.Id || s.Name != t.Name || s.Type != t.Type || s.Hardware != t.Hardware
}

// serveBackends makes the backends objects.
func (r *router) serveBackends() (err error) {
	r.backend, err = implement("io.github.joulemux.Backend1.xml", bus.Code{
		State: bus.StateOf(func(_ context.Context, path godbus.ObjectPath) (backendState, bool) {
			for _, b := range r.Backends.Current() {
				if backendPath(b.ID) == path {
					return newBackendState(b), true
				}
			}
			return backendState{}, false
		}),
	})
	r.branch = bus.Branch{Path: backendsPath, Interfaces: []*bus.Interface{r.backend}, Names: func() []string {
		var names []string
		for _, b := range r.Backends.Current() {
			names = append(names, element(b.ID))
		}
		return names
	}}
	return err
}
