package daemon

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/peer"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
	"github.com/joulemux/joulemux/power/nvml"
	"github.com/joulemux/joulemux/power/sysfs"
	"github.com/joulemux/joulemux/power/tracker"
)

// newMeter returns a meter of all sensors that this machine has for us.
func newMeter(ctx context.Context, o Options, backends *backend.Set, peers peer.Table, tail func(meter.Tail)) metering {
	f := &finder{sys: o.Sys, energy: o.EnergySocket, nvml: runtimePath(nvml.Socket), log: o.Log}
	m := meter.New(meter.Options{
		Sensors: f.start(ctx), CPU: &cpu{proc: o.Proc, cgroup: cgroups(o.Sys), backends: backends, peers: peers},
		Suspended: suspended, Tail: tail,
	})
	o.Log.Debug("sensors", "found", f.current.names())
	return metering{m, f}
}

// join adds sensors to those that there are, unless they tell of the same
// domain. A counter of the package takes the place of samples of it.
func join(ours, more []meter.Sensor) []meter.Sensor {
	named := func(name string) func(meter.Sensor) bool {
		return func(s meter.Sensor) bool { return s.Domain().Name == name }
	}
	for _, s := range more {
		d := s.Domain()
		if slices.ContainsFunc(ours, named(d.Name)) {
			continue
		}
		if d.Scope == power.ScopePackage && d.Cumulative {
			for i, other := range ours {
				if within := other.Domain().Within; within != "" && sampled(ours, within) {
					ours[i] = moved{other, d.Name}
				}
			}
			ours = slices.DeleteFunc(ours, func(s meter.Sensor) bool { return sampled([]meter.Sensor{s}, s.Domain().Name) })
		}
		ours = append(ours, s)
	}
	return ours
}

// sampled reports whether a package of that name is told by samples.
func sampled(list []meter.Sensor, name string) bool {
	return slices.ContainsFunc(list, func(s meter.Sensor) bool {
		d := s.Domain()
		return d.Name == name && d.Scope == power.ScopePackage && !d.Cumulative
	})
}

// moved is a sensor of a rail whose package has another sensor.
type moved struct {
	meter.Sensor
	within string
}

// Domain implements meter.Sensor.
func (m moved) Domain() power.Domain {
	d := m.Sensor.Domain()
	d.Within = m.within
	return d
}

// Rest implements meter.Rester, for a sensor that holds something.
func (m moved) Rest() {
	if r, ok := m.Sensor.(meter.Rester); ok {
		r.Rest()
	}
}

// runtimePath returns where in the user's runtime folder something is, or "".
func runtimePath(name string) string {
	folder := os.Getenv("XDG_RUNTIME_DIR")
	if folder == "" {
		return ""
	}
	return filepath.Join(folder, name)
}

// cgroups is the tree of control groups, which is a part of /sys.
func cgroups(sys fs.FS) fs.FS {
	sub, err := fs.Sub(sys, "fs/cgroup")
	if err != nil {
		return sys // not with a path that is valid
	}
	return sub
}

// suspended is how long the machine has slept since it was started: one clock
// goes on meanwhile, the other does not (clock_gettime(2)).
//
// The one is read between two looks at the other, and again unless nothing came
// between: what it says is wrong by the time that the looks are apart.
func suspended() time.Duration {
	slept, closest := time.Duration(0), time.Duration(math.MaxInt64)
	for range 10 {
		before, boot, after := clock(unix.CLOCK_MONOTONIC), clock(unix.CLOCK_BOOTTIME), clock(unix.CLOCK_MONOTONIC)
		if apart := after - before; apart < closest {
			slept, closest = boot-before-apart/2, apart
		}
		if closest < time.Millisecond {
			break
		}
	}
	return slept
}

// clock returns what one of the kernel's clocks shows. It fails for one that is
// not there, which these always are.
func clock(id int32) time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(id, &now)
	return time.Duration(now.Nano())
}

// conditions names what the idle draw of a machine depends on, as far as we know.
func conditions(now tracker.Snapshot) string {
	if now.Supply.Discharging {
		return "battery " + string(now.Profile)
	}
	return "line " + string(now.Profile)
}

// cpu tells the meter how much processor time was used. Which control group a
// backend's processes are in takes a while to find out: the first job of a
// backend has it looked for, and the next ones know.
type cpu struct {
	proc, cgroup fs.FS
	backends     *backend.Set
	peers        peer.Table

	mu     sync.Mutex
	groups map[string]group // by the endpoint's port
}

// group is what is known of a server's control group.
type group struct {
	path  string
	since time.Time
}

// groupFresh is for how long a server is taken to be where it was.
const groupFresh = 10 * time.Minute

var errNoGroup = errors.New("its control group is not known")

// Count implements meter.CPU.
func (*cpu) Count() int { return runtime.NumCPU() }

// Busy implements meter.CPU. The root of the control groups counts as the
// groups do, to the microsecond; not every kernel has it count.
func (c *cpu) Busy() (time.Duration, error) {
	if busy, err := sysfs.CgroupCPU(c.cgroup, "."); err == nil {
		return busy, nil
	}
	return sysfs.CPUBusy(c.proc)
}

// Used implements meter.CPU.
func (c *cpu) Used(id string) (time.Duration, error) {
	path := c.group(id)
	if path == "" {
		return 0, errNoGroup
	}
	return sysfs.CgroupCPU(c.cgroup, path)
}

// group returns what is known, and has what is not found out.
func (c *cpu) group(id string) string {
	b := c.backends.Current().Find(id)
	if b == nil || !local(b.Endpoint) {
		return ""
	}
	port, err := strconv.ParseUint(b.Endpoint.Port(), 10, 16)
	if err != nil {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.groups[b.Endpoint.Port()]
	if !ok || time.Since(known.since) > groupFresh {
		c.keepLocked(b.Endpoint.Port(), known.path) // while it is being looked for
		go func() {
			path := c.peers.Group(uint16(port))
			c.mu.Lock()
			defer c.mu.Unlock()
			c.keepLocked(b.Endpoint.Port(), path)
		}()
	}
	return known.path
}

func (c *cpu) keepLocked(port, path string) {
	if c.groups == nil {
		c.groups = make(map[string]group)
	}
	c.groups[port] = group{path, time.Now()}
}
