package nvml

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/power"
)

// A Report is how a GPU's figures behave on this machine, which differs by
// model and driver.
type Report struct {
	Device string
	Took   time.Duration
	// Renewals are the times between one change of the counter and the next.
	// None are known where there is no counter, or it does not move.
	Renewals []time.Duration
	// EnergyCalls and DrawCalls are how long NVML took to tell either.
	EnergyCalls, DrawCalls []time.Duration
	// Between its first change and its last the counter went up by Counted, and
	// the draw makes Integrated of that time.
	Counted, Integrated power.Energy
}

// Measure watches one GPU closely for a while, if all that there are are awake.
// That keeps them awake, and is for people who want to know.
func Measure(ctx context.Context, sys fs.FS, open func() (Library, error), device string, duration time.Duration) (Report, error) {
	gpus, err := GPUs(sys)
	if err != nil {
		return Report{}, err
	}
	if err := awake(sys, gpus); err != nil {
		return Report{}, err
	}
	library, err := open()
	if err != nil {
		return Report{}, err
	}
	w := watch{Report: Report{Device: device}, library: library}
	err = errors.Join(w.run(ctx, duration), library.Close())
	return w.Report, err
}

// watch is a report in the making.
type watch struct {
	Report
	library Library

	energy  power.Energy // as it was last
	changed time.Time    // when the counter last changed; zero before that
	drawn   power.Power  // at the last look
	looked  time.Time
	pending power.Energy // integrated since the last change
}

// run looks a thousand times a second: renewals are told to within that.
func (w *watch) run(ctx context.Context, duration time.Duration) error {
	began := time.Now()
	end := time.NewTimer(duration)
	defer end.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if err := w.look(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-end.C:
			w.Took = time.Since(began)
			return nil
		case <-ctx.Done():
			w.Took = time.Since(began)
			return nil
		}
	}
}

// look reads both figures, and notes what has changed.
func (w *watch) look() error {
	start := time.Now()
	energy, err := w.library.Energy(w.Device)
	counted := err == nil
	if counted {
		w.EnergyCalls = append(w.EnergyCalls, time.Since(start))
	} else if !errors.Is(err, ErrNotSupported) {
		return err
	}
	now := time.Now()
	draw, err := w.library.Draw(w.Device)
	if err == nil {
		w.DrawCalls = append(w.DrawCalls, time.Since(now))
	} else if !errors.Is(err, ErrNotSupported) || !counted {
		return err
	}
	if !w.looked.IsZero() {
		w.pending += ((draw + w.drawn) / 2).For(now.Sub(w.looked))
		if energy != w.energy {
			w.renew(energy, now)
		}
	}
	w.energy, w.drawn, w.looked = energy, draw, now
	return nil
}

// renew notes a change of the counter. Only between changes is it known what
// it stands for.
func (w *watch) renew(energy power.Energy, now time.Time) {
	if !w.changed.IsZero() {
		w.Renewals = append(w.Renewals, now.Sub(w.changed))
		w.Counted += energy - w.energy
		w.Integrated += w.pending
	}
	w.changed, w.pending = now, 0
}

// String is the report for people.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "GPU %s, watched for %v\n", r.Device, r.Took.Round(time.Millisecond))
	switch {
	case len(r.EnergyCalls) == 0:
		fmt.Fprintf(&b, "  counter: not supported\n")
	case len(r.Renewals) == 0:
		fmt.Fprintf(&b, "  counter: not renewed\n")
	default:
		fmt.Fprintf(&b, "  counter: renewed every %s\n", spread(r.Renewals))
	}
	if r.Integrated > 0 {
		fmt.Fprintf(&b, "  energy: %v counted, %v drawn, ratio %.3f\n", r.Counted, r.Integrated, r.Counted.Joules()/r.Integrated.Joules())
	}
	fmt.Fprintf(&b, "  call for energy: %s\n", spread(r.EnergyCalls))
	fmt.Fprintf(&b, "  call for draw: %s\n", spread(r.DrawCalls))
	return b.String()
}

// spread describes durations by their median, least and most.
func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "not supported"
	}
	d = slices.Sorted(slices.Values(d))
	return fmt.Sprintf("%v (%v to %v, %d times)", short(d[len(d)/2]), short(d[0]), short(d[len(d)-1]), len(d))
}

// short has three digits or so.
func short(d time.Duration) time.Duration {
	for unit := time.Duration(1); ; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
}
