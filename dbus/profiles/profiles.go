// Package profiles tells which power profile the user has chosen in
// power-profiles-daemon, or in what else owns its names.
//
// It opens no bus: the bus.Monitor that is given its Services does, and calls
// it. It sets no profile, and starts no daemon.
package profiles

import (
	"context"
	"sync/atomic"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/power"
)

// Watcher follows the active profile. Its state belongs to the monitor, which
// calls for one service at a time.
type Watcher struct {
	report func(context.Context, power.Profile)
	active [2]power.Profile // By name, in the order of Services.
	told   power.Profile

	// degraded is by name as well; of the daemon alone who asks.
	degraded [2]atomic.Pointer[string]
}

// New returns a watcher that calls report with each profile that differs from
// the one before. In the beginning there is none.
func New(report func(context.Context, power.Profile)) *Watcher {
	return &Watcher{report: report}
}

// Services are what the monitor has to watch: the daemon by the name that it
// has since version 0.20, then by the one from before. Newer daemons own both.
func (w *Watcher) Services() []bus.Service {
	return []bus.Service{
		w.service(0, "org.freedesktop.UPower.PowerProfiles", "/org/freedesktop/UPower/PowerProfiles"),
		w.service(1, "net.hadess.PowerProfiles", "/net/hadess/PowerProfiles"),
	}
}

// service is the daemon by one of its names, which its interface has as well.
func (w *Watcher) service(n int, name string, path godbus.ObjectPath) bus.Service {
	return bus.Service{
		Name:    name,
		Objects: []bus.Object{{Path: path, Interface: name, Wanted: []string{activeProfile, performanceDegraded}}},
		Changed: func(ctx context.Context, objects []bus.Mirror) {
			var profile, degraded string
			if objects != nil {
				profile, _ = bus.Value[string](objects[0], activeProfile)
				degraded, _ = bus.Value[string](objects[0], performanceDegraded)
			}
			w.degraded[n].Store(&degraded)
			w.active[n] = power.Profile(profile)
			w.tell(ctx)
		},
	}
}

const (
	activeProfile       = "ActiveProfile"
	performanceDegraded = "PerformanceDegraded"
)

// Degraded returns why the machine does not perform as its profile promises, as
// in "high-operating-temperature" or "lap-detected", or "". Nobody is told when
// that changes.
func (w *Watcher) Degraded() string {
	for n := range w.degraded {
		if d := w.degraded[n].Load(); d != nil && *d != "" {
			return *d
		}
	}
	return ""
}

// tell reports the profile if it has become another. The newer name is right.
func (w *Watcher) tell(ctx context.Context) {
	active := w.active[0]
	if active == "" {
		active = w.active[1]
	}
	if active == w.told {
		return
	}
	w.told = active
	w.report(ctx, active)
}
