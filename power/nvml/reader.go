package nvml

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/helper"
)

// How often a GPU's hardware is read: twice a second, as a mean, so that
// watching costs nothing to speak of. What would come sooner is saved up, so
// that the beginning, the first token and the end of a short job are all fresh.
// No two looks are closer than the counter is renewed, about every 100 ms
// (measured by ML.ENERGY's Zeus): the second would tell nothing.
const (
	interval = 500 * time.Millisecond
	saved    = 3
	renewal  = 100 * time.Millisecond
)

// reader owns the library: it says when it is opened, asked and closed.
type reader struct {
	sys  fs.FS
	gpus []string
	open func() (Library, error)
	log  *slog.Logger

	library Library // nil while it is closed
	// failed is why the library, or a GPU, is not tried again: what ails it
	// (another version of the driver, a GPU that fell off its bus) does not
	// pass, and the next reader is a new process.
	failed map[string]error
	known  map[string]*known
}

// known is what is known of one GPU.
type known struct {
	latest    Sample
	budget    time.Duration // looks that are saved up, times interval
	uncounted bool          // it has no counter
}

// all stands for the library, among the devices that have failed.
const all = ""

func newReader(sys fs.FS, gpus []string, open func() (Library, error), log *slog.Logger) *reader {
	return &reader{sys: sys, gpus: gpus, open: open, log: log, failed: make(map[string]error), known: make(map[string]*known)}
}

// read returns a sample of a GPU, which may be a little old, and says so.
func (r *reader) read(ctx context.Context, device string) (Sample, error) {
	if !slices.Contains(r.gpus, device) {
		return Sample{}, fmt.Errorf("%w: no NVIDIA GPU at %q", power.ErrUnavailable, device)
	}
	if err := awake(r.sys, r.gpus); err != nil {
		r.close(ctx) // An open library alone keeps it from its sleep.
		return Sample{}, err
	}
	if err := cmp.Or(r.failed[all], r.failed[device]); err != nil {
		return Sample{}, err
	}
	k := r.known[device]
	if k == nil {
		k = &known{budget: saved * interval}
		r.known[device] = k
	}
	now := time.Now()
	if !k.due(now) {
		return k.latest, nil
	}
	if err := r.ensureOpen(ctx); err != nil {
		return Sample{}, err
	}
	// Opening takes long enough to fall asleep in, and the GPUs are not ours.
	if err := awake(r.sys, r.gpus); err != nil {
		r.close(ctx)
		return Sample{}, err
	}
	s, err := k.look(r.library, device)
	if err != nil {
		r.log.WarnContext(ctx, "GPU cannot be read", "device", device, "err", err)
		r.failed[device] = fmt.Errorf("%w: GPU %s: %w", power.ErrUnavailable, device, err)
		r.close(ctx)
		return Sample{}, r.failed[device]
	}
	k.spend(now)
	k.latest = s
	return s, nil
}

// due reports whether the hardware may be read now.
func (k *known) due(now time.Time) bool {
	if k.latest.At.IsZero() {
		return true
	}
	since := now.Sub(k.latest.At)
	return since >= renewal && min(k.budget+since, saved*interval) >= interval
}

// spend takes one look from the budget.
func (k *known) spend(now time.Time) {
	if !k.latest.At.IsZero() {
		k.budget = min(k.budget+now.Sub(k.latest.At), saved*interval)
	}
	k.budget -= interval
}

// look asks the library. A GPU that tells neither its energy nor its draw
// cannot be read.
func (k *known) look(l Library, device string) (s Sample, err error) {
	s.At = time.Now()
	s.at = helper.ToWire(s.At) // Once, however often it is told: it is a little off.
	if !k.uncounted {
		s.Energy, err = l.Energy(device)
		k.uncounted = errors.Is(err, ErrNotSupported)
		if s.Counted = err == nil; !s.Counted && !k.uncounted {
			return s, err
		}
	}
	s.Draw, err = l.Draw(device)
	s.Drawn = err == nil
	if err != nil && (k.uncounted || !errors.Is(err, ErrNotSupported)) {
		return s, err
	}
	return s, nil
}

func (r *reader) ensureOpen(ctx context.Context) error {
	if r.library != nil {
		return nil
	}
	library, err := r.open()
	if err != nil {
		r.log.WarnContext(ctx, "NVML cannot be opened", "err", err)
		r.failed[all] = fmt.Errorf("%w: %w", power.ErrUnavailable, err)
		return r.failed[all]
	}
	r.log.DebugContext(ctx, "NVML is open")
	r.library = library
	return nil
}

// close lets go of the GPUs.
func (r *reader) close(ctx context.Context) {
	if r.library == nil {
		return
	}
	if err := r.library.Close(); err != nil {
		r.log.WarnContext(ctx, "NVML does not close", "err", err)
		// It may still hold a GPU, and so will this process until it ends.
		r.failed[all] = fmt.Errorf("%w: %w", power.ErrUnavailable, err)
	}
	r.log.DebugContext(ctx, "NVML is closed")
	r.library = nil
}
