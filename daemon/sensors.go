package daemon

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/energyd"
	"github.com/joulemux/joulemux/power/helper"
	"github.com/joulemux/joulemux/power/meter"
	"github.com/joulemux/joulemux/power/nvml"
	"github.com/joulemux/joulemux/power/sysfs"
)

// metering is a meter of the sensors that this machine has when a job begins.
// Some come after the daemon: a driver is loaded later, a rule opens a counter,
// the helper is set up.
type metering struct {
	*meter.Meter
	finder *finder
}

// Begin implements dispatch.Meter.
func (m metering) Begin(ctx context.Context, w meter.Work) *meter.Span {
	if w.Class != power.Cloud { // it takes nothing here
		m.finder.renew(ctx, m.Adopt)
	}
	return m.Meter.Begin(ctx, w)
}

// Close ends the ticks, and closes what sensors have open.
func (m metering) Close() {
	m.Meter.Close()
	m.finder.close()
}

// seldom is how much time passes at least between two looks for sensors. A look
// costs as much as some readings, and looks are only had when a job begins.
const seldom = time.Minute

// finder finds the sensors of this machine. It looks closely, as at the start,
// only if there are signs of others: a close look at a GPU that is awake would
// keep it so.
type finder struct {
	sys          fs.FS
	energy, nvml string // sockets
	log          *slog.Logger

	mu     sync.Mutex // guards the following; one job at a time looks
	looked time.Time
	signs  string
	// unsure says that there may be more than was found: what comes takes a
	// while to be all there.
	unsure  bool
	current found // in use
	next    found // to be used once no job is under way
	more    bool  // there is a next
	finding chan found
}

// found is what a close look finds: sensors that we may read, those that the
// helper reads for us, and those of GPUs that are read only while they are awake
// for us.
type found struct {
	ours   []*sysfs.Sensor
	helped []*energyd.Sensor
	gpus   []*nvml.Sensor
	unsure bool
}

// start finds what there is. What has not come yet may be about to: the daemon
// starts with the session.
func (f *finder) start(ctx context.Context) []meter.Sensor {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looked, f.signs, f.unsure = time.Now(), f.see(), true
	f.current = f.find(ctx)
	return f.current.sensors()
}

// renew has other sensors adopted if there are any. A job waits for that no
// longer than for a sensor, and if it takes longer the next one has them.
func (f *finder) renew(ctx context.Context, adopt func(context.Context, []meter.Sensor) bool) {
	if !f.mu.TryLock() {
		return // Another job sees to it.
	}
	defer f.mu.Unlock()
	patience := time.Duration(0)
	if f.finding == nil && time.Since(f.looked) >= seldom {
		f.looked, patience = time.Now(), helper.Patience
		f.look(ctx)
	}
	f.collect(patience)
	if !f.more || !adopt(ctx, f.next.sensors()) {
		return
	}
	f.current.replacedBy(f.next)
	f.current, f.next, f.more = f.next, found{}, false
	f.log.DebugContext(ctx, "sensors have changed", "found", f.current.names())
}

// close closes all sensors, those that are being looked for included.
func (f *finder) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.finding != nil {
		(<-f.finding).replacedBy(found{})
		f.finding = nil
	}
	f.next.replacedBy(found{})
	f.current.replacedBy(found{})
}

// look begins a close look if there are signs.
func (f *finder) look(ctx context.Context) {
	signs := f.see()
	if signs == f.signs && !f.unsure {
		return
	}
	f.unsure, f.signs = signs != f.signs, signs
	finding := make(chan found, 1) // Nobody may wait for it any more.
	f.finding = finding
	ctx = context.WithoutCancel(ctx) // It is not for this job alone.
	go func() { finding <- f.find(ctx) }()
}

// collect takes what a close look has found, if it found others in time.
func (f *finder) collect(patience time.Duration) {
	if f.finding == nil {
		return
	}
	select {
	case n := <-f.finding:
		f.finding = nil
		f.unsure = f.unsure || n.unsure
		n = n.keeping(f.current)
		f.next.replacedBy(n)
		f.next, f.more = n, !n.same(f.current)
	case <-time.After(patience):
	}
}

// see returns what shows, without a close look, that there may be others.
func (f *finder) see() string {
	socket := "no helper"
	if info, err := os.Stat(f.energy); err == nil {
		socket = info.ModTime().String() // Another that is there may let us in.
	}
	return sysfs.Signs(f.sys) + socket
}

// find looks closely.
func (f *finder) find(ctx context.Context) (n found) {
	n.ours = sysfs.Sensors(f.sys)
	var err error
	if n.helped, err = energyd.Sensors(ctx, f.energy); err != nil {
		n.unsure = helper.Late(err)
		f.log.DebugContext(ctx, "there is no helper to read what root alone may", "err", err)
	}
	if n.gpus, err = nvml.Find(f.sys, f.nvml); err != nil {
		f.log.DebugContext(ctx, "NVIDIA GPUs cannot be looked for", "err", err)
	}
	return n
}

// names are for the log.
func (n found) names() (names []string) {
	for _, s := range n.sensors() {
		names = append(names, s.Domain().Source+" "+s.Domain().Name)
	}
	return names
}

// sensors returns them all.
func (n found) sensors() (all []meter.Sensor) {
	var helped []meter.Sensor
	for _, s := range n.helped {
		helped = append(helped, s)
	}
	for _, s := range n.ours {
		all = append(all, s)
	}
	all = join(all, helped)
	for _, s := range n.gpus {
		all = append(all, s)
	}
	return all
}

// keeping returns what was found with the sensors in use where they are of the
// same domains: they have what they read open.
func (n found) keeping(used found) found {
	if alike(n.ours, used.ours) {
		for _, s := range n.ours {
			s.Close()
		}
		n.ours = used.ours
	}
	if alike(n.helped, used.helped) {
		n.helped = used.helped
	}
	if alike(n.gpus, used.gpus) {
		n.gpus = used.gpus
	}
	return n
}

// same reports whether the sensors are.
func (n found) same(m found) bool {
	return slices.Equal(n.ours, m.ours) && slices.Equal(n.helped, m.helped) && slices.Equal(n.gpus, m.gpus)
}

// replacedBy closes those that are not in use any more.
func (n found) replacedBy(m found) {
	for _, s := range n.ours {
		if !slices.Contains(m.ours, s) {
			s.Close()
		}
	}
}

// alike reports whether two lists are of the same domains. How a domain counts
// may show only when it is read.
func alike[S meter.Sensor](a, b []S) bool {
	return slices.EqualFunc(a, b, func(x, y S) bool { return key(x) == key(y) })
}

func key(s meter.Sensor) string {
	d := s.Domain()
	return fmt.Sprintln(d.Source, d.Name, d.Scope, d.Within, d.Range)
}
