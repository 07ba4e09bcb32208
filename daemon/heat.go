package daemon

import (
	"context"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/sysfs"
)

// heat is the verdict on the processor, which depends on the last one.
//
// That the power profile is degraded by a "high-operating-temperature" is shown
// and vetoes nothing: power-profiles-daemon says so whenever intel_pstate's
// no_turbo is set, which a user may have done for good, to save power.
type heat struct {
	sys  fs.FS
	mu   sync.Mutex
	last power.Heat
}

// heatFresh is how old a verdict may be. A look opens some dozens of files, in a
// third of a millisecond; a processor takes seconds to heat up.
const heatFresh = time.Second

// verdict looks at the processor, unless somebody has just done so. Nobody looks
// while nothing is asked, and the machine is powered as it was.
func (h *heat) verdict() power.Heat {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := h.last.Last.At; at.IsZero() || time.Since(at) >= heatFresh {
		h.last = power.DefaultHeatPolicy().Next(h.last, sysfs.Thermal(h.sys))
	}
	return h.last
}

// cooled is the backends as jobs see them: whoever wants to know which there are has
// the set know first whether the processor is too hot, and with it all who are told
// of changes. Whoever looks also sees whose device sleeps.
type cooled struct {
	*backend.Set
	verdict func() power.Heat
	sys     fs.FS
}

// Wanted, Search, Current and Look are those of the set.
func (c cooled) Wanted(ctx context.Context) backend.Snapshot { return c.veto(c.Set.Wanted(ctx)) }

func (c cooled) Search(ctx context.Context) backend.Snapshot { return c.veto(c.Set.Search(ctx)) }

func (c cooled) Current() backend.Snapshot { return c.veto(c.Set.Current()) }

func (c cooled) Look(ctx context.Context) backend.Snapshot {
	return dozing(c.sys, c.veto(c.Set.Look(ctx)))
}

// LookHere is that of the set, likewise.
func (c cooled) LookHere(ctx context.Context) backend.Snapshot {
	return dozing(c.sys, c.veto(c.Set.LookHere(ctx)))
}

// veto returns the backends with those on the processor's package vetoed while
// it is too hot. Where none is on it, nobody looks at it.
func (c cooled) veto(all backend.Snapshot) backend.Snapshot {
	if !slices.ContainsFunc(all, func(b backend.Backend) bool { return b.Class.OnPackage() }) {
		return all
	}
	c.Set.Veto(c.verdict().Veto())
	return c.Set.Current()
}

// follow looks again at a processor that was found too hot, until it is not: else
// those who are only told of changes would take it for too hot until the next job. At
// rest, and while it is cool, nothing runs here. Looks that tell of a processor being
// slowed down are no further apart than Quiet.
func (c cooled) follow(ctx context.Context) {
	vetoed := func(b backend.Backend) bool { return b.Vetoed != "" }
	for all := range c.Watch(ctx) {
		for slices.ContainsFunc(all, vetoed) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(power.DefaultHeatPolicy().Quiet / 2):
			}
			all = c.Current()
		}
	}
}
