package dbus

import (
	"context"
	"maps"
	"math"
	"slices"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/pull"
	"github.com/joulemux/joulemux/dbus/bus"
)

// pull is Router1.Pull.
func (r *router) pull(ctx context.Context, c bus.Call, model string, options map[string]godbus.Variant) (map[string]godbus.Variant, error) {
	if model == "" {
		return nil, job.InvalidField("model", "name the model to fetch")
	}
	o, target := pull.Order{Model: model}, ""
	for _, key := range slices.Sorted(maps.Keys(options)) {
		var ok bool
		switch v := plain(options[key]); key {
		case "backend":
			target, ok = v.(string)
		case "anyway":
			o.Anyway, ok = v.(bool)
		case "insecure":
			o.Insecure, ok = v.(bool)
		default:
			return nil, job.InvalidField(key, "there is no such option; there are anyway, backend and insecure")
		}
		if !ok {
			return nil, job.InvalidField(key, "want another type than %s", options[key].Signature())
		}
	}
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	defer r.callers.Watch(c.Conn, c.Sender, func() { leave(job.Errorf(job.Cancelled, "the caller has left the bus")) })()
	var err error
	if o.Backend, err = r.Runner.Home(ctx, model, target); err != nil {
		return nil, err
	}
	fetched := int64(0)
	err = r.Puller.Pull(ctx, o, func(p pull.Progress) error {
		fetched = p.Completed
		return nil
	})
	if err != nil {
		return nil, reason(ctx, err)
	}
	return variants(map[string]any{"backend": o.Backend, "bytes": uint64(max(0, fetched))}), nil
}

// cancelPull is Router1.CancelPull.
func (r *router) cancelPull(_ context.Context, _ bus.Call, model string) error {
	if !r.Puller.Cancel(model) {
		return job.InvalidField("model", "%s is not being fetched", model)
	}
	return nil
}

// describePulls returns the property Pulls.
func describePulls(all []pull.Progress) (list []map[string]godbus.Variant) {
	for _, p := range all {
		if p.Ended() {
			continue
		}
		list = append(list, variants(map[string]any{
			"model": p.Model, "backend": p.Backend, "state": string(p.State), "note": p.Note, "network": string(p.Network),
			"completed": uint64(max(0, p.Completed)), "total": uint64(max(0, p.Total)),
			"rate": math.Round(p.Rate), "seconds_left": math.Round(p.Left.Seconds()),
		}))
	}
	return list
}

// pullsOften is how often the bus is told of pulls at most.
const pullsOften = time.Second

// tellPulls tells how pulls get on, until ctx is done.
func (n *news) tellPulls(ctx context.Context) {
	for range n.Puller.Watch(ctx) {
		n.tell()
		select {
		case <-time.After(pullsOften):
		case <-ctx.Done():
		}
	}
}
