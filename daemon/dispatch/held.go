package dispatch

import (
	"cmp"
	"context"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
)

// What a discrete GPU draws for holding a model decides for how long it does, and
// differs by a factor of three between laptops. So it is measured, some seconds
// after a job, while the model is there anyway and keeps the GPU awake.
const (
	// heldTakes is how long a measurement may take, with a sensor that is not ready,
	// and freed how long it takes until nobody has the device open for it.
	heldTakes = 3 * time.Second
	freed     = time.Second
	// heldAgain is how old what is known may be before it is measured again. Until
	// enough is known, every occasion will do.
	heldAgain = 7 * 24 * time.Hour
	// idlePart is the part of what a device draws at work that one at most draws
	// which only holds a model: with more, somebody else works there.
	idlePart = 0.5
)

// holder is a backend that holds models.
type holder struct {
	backend string
	class   power.DeviceClass
	most    power.Power // that holding can take
}

// watchHeld has measured what the backend's device draws for holding a model, if
// that is to be known.
func (r *run) watchHeld(b *backend.Backend) {
	if !b.Class.Discrete() || !r.settings.Learn || r.holdDraw(b.ID, r.now.Supply.Discharging, heldAgain) > 0 || !r.Meter.SeesHeld(b.Class) {
		return
	}
	k := r.desk
	_ = k.do(func(now time.Time) { // fails if nobody is there to measure
		if _, ok := k.calm(now, b.ID); ok && k.spoil == nil {
			k.held = &holder{b.ID, b.Class, power.Power(idlePart * float64(b.Profile.Draw))}
			k.call()
		}
	})
}

// holdDraw returns what was learned of that, if it was seen often enough and within
// so long, or zero.
func (d *Dispatcher) holdDraw(backend string, onBattery bool, within time.Duration) power.Power {
	l, _ := d.Ledger.Learned(backend, ledger.AnyModel, onBattery)
	if l.HoldDraw.Count() < plan.LeastSamples || time.Since(l.HoldDraw.Seen()) >= within {
		return 0
	}
	return l.HoldDraw.Value()
}

// learnHeld puts it in the place of what is assumed of a candidate: what was learned
// on battery or on line power or, if there is nothing, on the other. What takes nothing
// to hold keeps that, though another device may have had its id.
func (d *Dispatcher) learnHeld(c *job.Candidate, onBattery bool) {
	if !c.Class.Discrete() {
		return
	}
	p := &c.Profile
	p.HoldDraw = cmp.Or(d.holdDraw(c.ID, onBattery, ledger.HeldBelieved), d.holdDraw(c.ID, !onBattery, ledger.HeldBelieved), p.HoldDraw)
}

// calm returns when the device of a backend that holds a model may be measured, if
// the model will stay for long enough.
func (k *desk) calm(now time.Time, backend string) (at time.Time, ok bool) {
	since, until, ok := k.plan.Held(now, backend)
	at = since.Add(meter.Calm)
	return at, ok && !at.Add(heldTakes+freed).After(until)
}

// measureHeld measures that once the device is calm, unless another is being
// waited for. A job in between puts it off; where the model goes it is left to
// the next job.
func (d *Dispatcher) measureHeld(ctx context.Context, h *holder) {
	if h == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	first := false
	_ = d.desk.do(func(time.Time) { // fails when the desk is closed
		if first = d.desk.spoil == nil; first {
			d.desk.spoil = cancel
		}
	})
	if !first {
		cancel()
		return
	}
	d.errands.Go(func() {
		defer cancel()
		at, ok := d.awaitCalm(ctx, h)
		if !ok {
			return
		}
		onBattery := d.Tiers.Look(ctx).Supply.Discharging
		draw, ok := d.heldDraw(ctx, h)
		ok = ok && draw <= h.most && d.Tiers.Look(ctx).Supply.Discharging == onBattery &&
			d.settings.Current().Learn && d.holds(ctx, h)
		if same := d.calmUntil(h, at); ok && same {
			d.Ledger.Held(h.backend, onBattery, draw)
		}
	})
}

// holds reports whether a backend still is what it was, and says that it holds a
// model: somebody else may have let it go.
func (d *Dispatcher) holds(ctx context.Context, h *holder) bool {
	b := d.Backends.Wanted(ctx).Find(h.backend)
	return b != nil && b.Class == h.class && b.Holds()
}

// heldDraw has the device measured, which is over in time for it to fall asleep.
func (d *Dispatcher) heldDraw(ctx context.Context, h *holder) (power.Power, bool) {
	ctx, cancel := context.WithTimeout(ctx, heldTakes)
	defer cancel()
	return d.Meter.HeldDraw(ctx, h.class)
}

// awaitCalm returns when the device may be measured, when that is. It is false if
// the model will not be there, and the measurement over.
func (d *Dispatcher) awaitCalm(ctx context.Context, h *holder) (at time.Time, ok bool) {
	for {
		closed := d.desk.do(func(now time.Time) {
			at, ok = d.desk.calm(now, h.backend)
			if ok = ok && ctx.Err() == nil; !ok {
				d.desk.spoil = nil // the next job may be waited for
			}
		})
		if closed != nil || !ok || time.Until(at) <= 0 {
			return at, ok && closed == nil
		}
		select {
		case <-time.After(time.Until(at)):
		case <-ctx.Done():
		}
	}
}

// calmUntil ends a measurement that was to begin at some time, and reports whether
// no job has come since, nor any model gone.
func (d *Dispatcher) calmUntil(h *holder, begun time.Time) (same bool) {
	_ = d.desk.do(func(now time.Time) {
		d.desk.spoil = nil
		at, ok := d.desk.calm(now, h.backend)
		same = ok && at.Equal(begun)
	})
	return same
}
