package dbus

import (
	"context"
	"math"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/tracker"
)

// router is what is served on the connection for control.
type router struct {
	*FrontEnd
	conn    *godbus.Conn
	tree    *bus.Tree
	iface   *bus.Interface // Router1
	backend *bus.Interface // Backend1
	branch  bus.Branch     // with the backends
	callers bus.Callers
	holds   holds
	// endHolds ends those of a holder who is gone, perhaps with the connection.
	endHolds func(holder string)
}

// routerState is the properties of Router1.
type routerState struct {
	Tier, TierReason, Policy string
	ActiveBackend            godbus.ObjectPath
	ActiveHolds, Pulls       []map[string]godbus.Variant
	Charge                   float64
	Version                  string
	DrawWatts                func() float64
}

// newRouter returns what serves for one connection. ctx outlasts that.
func newRouter(ctx context.Context, f *FrontEnd) (*router, error) {
	r := &router{FrontEnd: f, endHolds: func(holder string) { _ = f.Tiers.Gone(ctx, holder) }}
	r.holds.held = make(map[uint32]hold)
	var err error
	r.iface, err = implement(RouterName+".xml", bus.Code{
		Methods: map[string]any{"Hold": r.hold, "Release": r.release, "Pull": r.pull, "CancelPull": r.cancelPull},
		State: bus.StateOf(func(ctx context.Context, _ godbus.ObjectPath) (routerState, bool) {
			return f.view(f.Tiers.Look(ctx), f.Backends.Current()).router, true
		}),
		Setters: map[string]any{"Policy": r.setPolicy},
	})
	if err != nil {
		return nil, err
	}
	if err := r.serveBackends(); err != nil {
		return nil, err
	}
	manager, err := bus.Manager(func(ctx context.Context) { f.Backends.Look(ctx) }, r.branch)
	if err != nil {
		return nil, err
	}
	logging, err := f.logControl()
	if err != nil {
		return nil, err
	}
	r.tree, err = bus.NewTree(f.Log, errorOf, map[godbus.ObjectPath][]*bus.Interface{
		routerPath:     {r.iface, manager},
		logControlPath: {logging},
	}, r.branch)
	return r, err
}

// routerState returns the properties of Router1 for a tier, and the backend
// where ordinary jobs go, if there is one.
func (f *FrontEnd) routerState(s tracker.Snapshot, active string) routerState {
	state := routerState{
		Tier: s.Tier.String(), TierReason: string(s.Reason), Policy: string(s.Preference),
		ActiveBackend: "/", Pulls: describePulls(f.Puller.Current()), Charge: charge(s.Supply), Version: f.Version, DrawWatts: f.drawWatts,
	}
	if active != "" {
		state.ActiveBackend = backendPath(active)
	}
	for _, h := range s.Holds {
		state.ActiveHolds = append(state.ActiveHolds, map[string]godbus.Variant{
			"cookie": godbus.MakeVariant(h.Cookie),
			"tier":   godbus.MakeVariant(h.Tier.String()),
			"reason": godbus.MakeVariant(bus.Text(h.Reason)),
			"holder": godbus.MakeVariant(bus.Text(h.Holder)),
			"since":  godbus.MakeVariant(uint64(h.Since.Unix())),
		})
	}
	return state
}

// charge returns whole percent, so that the property changes no more often
// than people would notice.
func charge(s power.Supply) float64 {
	if !s.Known() || !s.Battery || math.IsNaN(float64(s.Charge)) {
		return -1
	}
	return math.Round(float64(s.Charge))
}

func (f *FrontEnd) drawWatts() float64 {
	draw, ok := f.Draw()
	if !ok {
		return math.NaN()
	}
	return draw.Watts()
}

// setPolicy sets Router1.Policy.
func (r *router) setPolicy(ctx context.Context, _ bus.Call, value string) error {
	p, err := power.ParsePreference(value)
	if err != nil {
		return job.InvalidField("Policy", "%v", err)
	}
	return r.Tiers.Prefer(ctx, p)
}

// hold is Router1.Hold.
func (r *router) hold(ctx context.Context, c bus.Call, tier, reason string) (uint32, error) {
	t, err := power.ParseHeldTier(tier)
	switch {
	case err != nil:
		return 0, job.InvalidField("tier", "%v", err)
	case len(reason) > power.LongestReason:
		return 0, job.InvalidField("reason", "is %d bytes long, the limit is %d", len(reason), power.LongestReason)
	}
	cookie, err := r.Tiers.Hold(ctx, power.Hold{Tier: t, Reason: reason, Holder: c.Sender})
	if err != nil {
		return 0, err
	}
	r.holds.add(cookie, hold{holder: c.Sender, unwatch: r.callers.Watch(c.Conn, c.Sender, func() { r.gone(c.Sender) })})
	r.tellReleased() // It may have ended before it was on our list.
	return cookie, nil
}

// release is Router1.Release.
func (r *router) release(ctx context.Context, c bus.Call, cookie uint32) error {
	h, ours := r.holds.take(cookie, c.Sender)
	err := r.Tiers.Release(ctx, cookie, c.Sender)
	if ours {
		h.unwatch()
	}
	if ctx.Err() != nil {
		r.endHolds(c.Sender) // With the bus, nobody watches for its end any more.
	}
	return err
}
