package simulate

import (
	"cmp"
	"slices"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// Policies are all that can be simulated.
func Policies() []Policy { return append([]Policy{Joulemux()}, Baselines()...) }

// Reference is the policy that people have who do nothing.
const Reference = "ollama"

// Baselines are the policies that the daemon's is compared with.
func Baselines() []Policy {
	return []Policy{
		{Name: Reference, Says: "all on the discrete GPU, kept for five minutes: Ollama's default", New: onDiscrete(nil)},
		{Name: "break-even", Says: "all on the discrete GPU, kept until that has cost as much as to load it", New: onDiscrete(breakEven)},
		{Name: "fixed", Says: "by line power and charge: discrete GPU, iGPU, NPU; background on the NPU", New: byRule},
		{Name: "watts", Says: "all on the device that draws least, kept for five minutes", New: leastWatts},
		{Name: "fastest", Says: "each where it is predicted to end first, kept for five minutes", New: fastest},
	}
}

// onDiscrete has everything done on the discrete GPU, or on what comes next in
// speed where there is none.
func onDiscrete(keep func(*Device) *time.Duration) func(*Machine, *Options) Scheduler {
	return func(m *Machine, _ *Options) Scheduler {
		first := m.first(power.NVIDIA, power.DiscreteGPU, power.IntegratedGPU, power.CPU, power.NPU)
		return newFIFO(m, keep, func(*plan.Ask, time.Time) string { return first.ID })
	}
}

// breakEven is for how long holding the model takes as much as loading it
// again would. Where holding is free it is for ever.
func breakEven(d *Device) *time.Duration {
	keep := time.Duration(-1)
	if d.Hold > 0 {
		keep = time.Duration(ratio(d.LoadEnergy().Joules(), d.Hold.Watts()) * float64(time.Second))
	}
	return &keep
}

// byRule is what a person would write into a configuration.
func byRule(m *Machine, _ *Options) Scheduler {
	line := m.first(power.NVIDIA, power.DiscreteGPU, power.IntegratedGPU, power.CPU, power.NPU)
	middle := m.first(power.IntegratedGPU, power.CPU, power.NPU, power.NVIDIA, power.DiscreteGPU)
	low := m.first(power.NPU, power.IntegratedGPU, power.CPU, power.NVIDIA, power.DiscreteGPU)
	return newFIFO(m, nil, func(ask *plan.Ask, _ time.Time) string {
		switch {
		case ask.Job.Class == job.Background, ask.Tier.MoreCarefulThan(power.Saver):
			return low.ID
		case ask.Tier.MoreCarefulThan(power.Mains):
			return middle.ID
		default:
			return line.ID
		}
	})
}

// leastWatts has everything done on the device that draws least.
func leastWatts(m *Machine, _ *Options) Scheduler {
	least := slices.MinFunc(m.Devices, func(a, b Device) int { return cmp.Compare(a.DecodeDraw, b.DecodeDraw) })
	return newFIFO(m, nil, func(*plan.Ask, time.Time) string { return least.ID })
}

// fastest has each job done where it is predicted to end first.
func fastest(m *Machine, _ *Options) Scheduler {
	f := newFIFO(m, nil, nil)
	f.choose = func(ask *plan.Ask, now time.Time) string {
		tokens := ask.Job.Expected().Mean()
		best := slices.MinFunc(ask.Candidates, func(a, b job.Candidate) int {
			return f.ends(&a, &ask.Job, tokens, now).Compare(f.ends(&b, &ask.Job, tokens, now))
		})
		return best.ID
	}
	return f
}

// first returns the first device of those classes, or else any.
func (m *Machine) first(classes ...power.DeviceClass) *Device {
	for _, c := range classes {
		for i := range m.Devices {
			if m.Devices[i].Class == c {
				return &m.Devices[i]
			}
		}
	}
	return &m.Devices[0]
}

// fifo has jobs stand in line, one line for each device, where choose says.
type fifo struct {
	machine *Machine
	choose  func(ask *plan.Ask, now time.Time) string
	// keep is for how long a device is told to keep the model; without it that
	// is left to the server.
	keep  func(*Device) *time.Duration
	lines map[string]*line
	where map[string]*line // jobs that have not ended
}

// line is the jobs of a device: the first one runs, the others wait.
type line struct {
	device *Device
	jobs   []string
	// free is when they are predicted to be done.
	free time.Time
}

func newFIFO(m *Machine, keep func(*Device) *time.Duration, choose func(*plan.Ask, time.Time) string) *fifo {
	f := &fifo{machine: m, choose: choose, keep: keep, lines: make(map[string]*line), where: make(map[string]*line)}
	for i := range m.Devices {
		f.lines[m.Devices[i].ID] = &line{device: &m.Devices[i]}
	}
	return f
}

// ends predicts when a job would end there.
func (f *fifo) ends(c *job.Candidate, j *job.Job, tokens float64, now time.Time) time.Time {
	begins := now
	if l := f.lines[c.ID]; len(l.jobs) > 0 && l.free.After(now) {
		begins = l.free
	}
	return begins.Add(c.Estimate(j, tokens).Total)
}

// Place implements Scheduler.
func (f *fifo) Place(now time.Time, ask *plan.Ask) (plan.Placement, error) {
	l := f.lines[f.choose(ask, now)]
	for i := range ask.Candidates {
		if c := &ask.Candidates[i]; c.ID == l.device.ID {
			l.free = f.ends(c, &ask.Job, ask.Job.Expected().Mean(), now)
		}
	}
	l.jobs = append(l.jobs, ask.Job.ID)
	f.where[ask.Job.ID] = l
	return plan.Placement{
		Decision: route.Decision{Backend: l.device.ID, Class: l.device.Class, Tier: ask.Tier},
		Started:  len(l.jobs) == 1, KeepAlive: f.keepAlive(l.device),
	}, nil
}

func (f *fifo) keepAlive(d *Device) *time.Duration {
	if f.keep == nil {
		return nil
	}
	return f.keep(d)
}

// Ended implements Scheduler.
func (f *fifo) Ended(_ time.Time, id string, _ plan.Outcome) []plan.Effect {
	l := f.where[id]
	delete(f.where, id)
	l.jobs = l.jobs[1:]
	if len(l.jobs) == 0 {
		return nil
	}
	return []plan.Effect{{
		Kind: plan.Start, ID: l.jobs[0], Backend: l.device.ID, Model: model, KeepAlive: f.keepAlive(l.device),
	}}
}

// Tier implements Scheduler.
func (f *fifo) Tier(time.Time, power.Tier, bool) []plan.Effect { return nil }

// Next implements Scheduler.
func (f *fifo) Next() time.Time { return time.Time{} }

// Tick implements Scheduler.
func (f *fifo) Tick(time.Time) []plan.Effect { return nil }
