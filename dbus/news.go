package dbus

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/power/tracker"
)

// view is the properties of all objects at one moment.
type view struct {
	inference inferenceState
	router    routerState
	backends  map[godbus.ObjectPath]backendState
}

// view returns how a tier and backends look on the bus.
func (f *FrontEnd) view(tiers tracker.Snapshot, backends backend.Snapshot) view {
	active := ""
	prospect, err := f.Runner.Prospect(tiers.Tier, backends)
	if err == nil {
		active = prospect.Backend
	}
	v := view{
		inference: inferenceState{Version: f.Version, Available: err == nil},
		router:    f.routerState(tiers, active),
		backends:  make(map[godbus.ObjectPath]backendState, len(backends)),
	}
	for _, b := range backends {
		v.backends[backendPath(b.ID)] = newBackendState(b)
	}
	return v
}

// news tells the bus what has changed, and nothing if nothing has that can be
// seen there.
type news struct {
	*FrontEnd
	inference *inference
	router    *router

	mu   sync.Mutex // held while telling: one thing after the other
	told view
}

// tell tells what has changed since the last time. Whoever sees a change calls
// it, so that a change of the tier costs no more than the one goroutine that
// waits for it.
func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	before, now := n.told, n.view(n.Tiers.Current(), n.Backends.Current())
	n.told = now
	i, r := n.inference, n.router
	n.router.tellReleased()
	r.tellBackends(before.backends, now.backends)
	r.said(r.iface.Changed(r.conn, routerPath, before.router, now.router))
	n.said(i.iface.Changed(i.conn, inferencePath, before.inference, now.inference))
}

// tellBackends tells of backends that came, changed or went.
func (r *router) tellBackends(before, now map[godbus.ObjectPath]backendState) {
	for _, path := range slices.Sorted(maps.Keys(before)) {
		if s, ok := now[path]; !ok || s.another(before[path]) {
			r.said(bus.Removed(r.conn, routerPath, path, r.backend))
			continue
		}
		r.said(r.backend.Changed(r.conn, path, before[path], now[path]))
	}
	for _, path := range slices.Sorted(maps.Keys(now)) {
		if s, ok := before[path]; !ok || s.another(now[path]) {
			r.said(bus.Added(r.conn, routerPath, path, map[*bus.Interface]any{r.backend: now[path]}))
		}
	}
}

// said takes note of what a signal met with. That the connection has ended is
// known soon enough.
func (f *FrontEnd) said(err error) {
	if err != nil && !errors.Is(err, godbus.ErrClosed) {
		f.Log.Warn("a signal could not be sent", slog.Any("err", err))
	}
}
