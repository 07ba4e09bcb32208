package dbus

import (
	"slices"
	"sync"

	"github.com/joulemux/joulemux/power"
)

// holds are the holds that were asked for over one connection and have not
// been ended by their holders, so that those can be told who lose one.
type holds struct {
	mu   sync.Mutex
	held map[uint32]hold // by cookie
}

type hold struct {
	holder  string // a unique name
	unwatch func()
}

// add takes note of a hold that is in force.
func (all *holds) add(cookie uint32, h hold) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.held[cookie] = h
}

// take removes a hold, if it is holder's.
func (all *holds) take(cookie uint32, holder string) (h hold, ok bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	h, ok = all.held[cookie]
	if !ok || h.holder != holder {
		return h, false
	}
	delete(all.held, cookie)
	return h, true
}

// takeIf removes the holds for which it is so, and returns them.
func (all *holds) takeIf(so func(cookie uint32, h hold) bool) map[uint32]hold {
	all.mu.Lock()
	defer all.mu.Unlock()
	var taken map[uint32]hold
	for cookie, h := range all.held {
		if !so(cookie, h) {
			continue
		}
		if taken == nil {
			taken = make(map[uint32]hold)
		}
		taken[cookie] = h
		delete(all.held, cookie)
	}
	return taken
}

// tellReleased tells each holder whose hold has ended by somebody else's doing,
// and nobody else.
func (r *router) tellReleased() {
	// A hold is on the list only once it is in force, so if it is not among
	// those that are in force now, then it has ended.
	lost := r.holds.takeIf(func(cookie uint32, _ hold) bool {
		return !slices.ContainsFunc(r.Tiers.Current().Holds, func(h power.Hold) bool { return h.Cookie == cookie })
	})
	for cookie, h := range lost {
		h.unwatch()
		r.said(r.iface.Signal(r.conn, h.holder, routerPath, "HoldReleased", cookie))
	}
}

// gone ends the holds of a holder that has left the bus.
func (r *router) gone(holder string) {
	taken := r.holds.takeIf(func(_ uint32, h hold) bool { return h.holder == holder })
	for _, h := range taken {
		h.unwatch()
	}
	r.endHolds(holder)
}
