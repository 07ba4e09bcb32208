// Package profiles tells which power profile the user has chosen in
// power-profiles-daemon, or in what else owns its names.
//
// It opens no bus: the bus.Monitor that is given its Services does, and calls
// it. It sets no profile, and starts no daemon.
package profiles

import (
	"context"

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
		Objects: []bus.Object{{Path: path, Interface: name, Wanted: []string{activeProfile}}},
		Changed: func(ctx context.Context, objects []bus.Mirror) {
			var profile string
			if objects != nil {
				profile, _ = bus.Value[string](objects[0], activeProfile)
			}
			w.active[n] = power.Profile(profile)
			w.tell(ctx)
		},
	}
}

const activeProfile = "ActiveProfile"

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
