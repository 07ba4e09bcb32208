package meter

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
)

// trial is a number of jobs on a machine whose draw is known: what the machine
// draws without jobs, what each job adds, and what somebody else's processes do.
type trial struct {
	*machine
	r     *rand.Rand
	meter *Meter
	idle  power.Power
	// drawing is what every job under way draws, and gpu whether that is from
	// the discrete GPU.
	jobs []*trialJob
	// foreign is how many processors others keep busy, at perCore each.
	foreign float64
}

// trialJob is a job with its truth.
type trialJob struct {
	span  *Span
	class power.DeviceClass
	draw  power.Power
	truth power.Energy
	cost  power.Cost
}

const perCore = 4 * power.Watt

func newTrial(seed uint64, foreign float64) *trial {
	t := &trial{machine: newMachine(pkg, dgpu), r: rand.New(rand.NewPCG(seed, 7)), idle: 4 * power.Watt, foreign: foreign}
	for _, r := range t.rails {
		r.noise = rand.New(rand.NewPCG(seed, 8))
	}
	t.rails["gpu"].noise = nil // an energy counter in hardware only grows
	t.meter = New(t.options())
	t.apply()
	t.meter.Start(context.Background())
	for range 12 { // pauses, in some of which others work
		t.foreign = 0
		if t.r.IntN(3) == 0 {
			t.foreign = foreign
		}
		t.apply()
		pass(time.Duration(10+t.r.IntN(50)) * time.Second)
		t.meter.Begin(context.Background(), work(power.CPU)).End(context.Background(), 0, 0)
		pass(5 * time.Second)
	}
	t.foreign = foreign
	t.apply()
	return t
}

// apply sets the draws that go with what is under way.
func (t *trial) apply() {
	sum, gpu := t.idle+power.Power(t.foreign*float64(perCore)), power.Power(0)
	ours := map[power.DeviceClass]float64{}
	for _, j := range t.jobs {
		if j.class == power.NVIDIA {
			gpu += j.draw
		} else {
			sum += j.draw
		}
		if j.class == power.CPU {
			ours[j.class] += j.draw.Watts() / perCore.Watts()
		}
	}
	t.draws("package-0", sum)
	t.draws("gpu", gpu)
	t.cpu.works("others", t.foreign)
	for _, c := range []power.DeviceClass{power.CPU, power.IntegratedGPU, power.NVIDIA} {
		t.cpu.works(string(c), ours[c])
	}
}

// run has jobs of those classes overlap, each about as long as d, and returns
// them.
func (t *trial) run(d time.Duration, classes ...power.DeviceClass) []*trialJob {
	var list []*trialJob
	for _, c := range classes {
		// What a backend is assumed to draw is off by a fifth, either way.
		draw := power.Power(float64(draws[c]) * (0.8 + 0.4*t.r.Float64()))
		j := &trialJob{class: c, draw: draw, span: t.meter.Begin(context.Background(), work(c))}
		t.jobs = append(t.jobs, j)
		list = append(list, j)
		t.apply()
		t.pass(time.Duration(t.r.Int64N(int64(d)/10 + 1)))
	}
	t.pass(d)
	for _, j := range list {
		j.cost = j.span.End(context.Background(), 0, 0)
		for i, other := range t.jobs {
			if other == j {
				t.jobs = append(t.jobs[:i], t.jobs[i+1:]...)
				break
			}
		}
		t.apply()
		t.pass(time.Duration(t.r.Int64N(int64(d)/10 + 1)))
	}
	pass(time.Duration(5+t.r.IntN(20)) * time.Second)
	return list
}

// pass lets time pass, in which jobs draw and write.
func (t *trial) pass(d time.Duration) {
	const step = 37 * time.Millisecond // not in time with any period
	for left := d; left > 0; left -= step {
		now := min(left, step)
		pass(now)
		for _, j := range t.jobs {
			j.truth += j.draw.For(now)
			j.span.Tokens(context.Background(), 1)
		}
	}
}

func TestAccuracyAgainstAKnownMachine(t *testing.T) {
	mixes := []struct {
		what    string
		classes []power.DeviceClass
		foreign float64
		single  float64 // the error allowed for jobs of 2 s and more
	}{
		{"1 on the GPU inside", []power.DeviceClass{power.IntegratedGPU}, 0, 0.05},
		{"1 on the CPU", []power.DeviceClass{power.CPU}, 0, 0.05},
		{"1 on the CPU, others use 2 cores", []power.DeviceClass{power.CPU}, 2, 0.05},
		{"1 on the discrete GPU", []power.DeviceClass{power.NVIDIA}, 0, 0.05},
		{"2: CPU, GPU inside", []power.DeviceClass{power.CPU, power.IntegratedGPU}, 0, 0},
		{"3: CPU, GPU inside, NPU", []power.DeviceClass{power.CPU, power.IntegratedGPU, power.NPU}, 0, 0},
		{"4: and the discrete GPU", []power.DeviceClass{power.CPU, power.IntegratedGPU, power.NPU, power.NVIDIA}, 0, 0},
	}
	durations := []time.Duration{300 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 30 * time.Second}
	var table strings.Builder
	fmt.Fprintf(&table, "\n%-34s", "error of a job's joules: mean, worst")
	for _, d := range durations {
		fmt.Fprintf(&table, "%18v", d)
	}
	for _, mix := range mixes {
		fmt.Fprintf(&table, "\n%-36s", mix.what)
		for _, d := range durations {
			var e deviation
			synctest.Test(t, func(*testing.T) { e = trials(mix.classes, mix.foreign, d) })
			fmt.Fprintf(&table, "   %5.1f %% %5.1f %%", 100*e.mean, 100*e.worst)
			if mix.single > 0 && d >= 2*time.Second && e.worst > mix.single {
				t.Errorf("%s for %v: a job is off by %.1f %%", mix.what, d, 100*e.worst)
			}
			if d >= 2*time.Second && e.sum > 0.01+lag(mix.classes, d) {
				t.Errorf("%s for %v: their sum is off by %.2f %%", mix.what, d, 100*e.sum)
			}
		}
	}
	t.Log(table.String())
}

// lag is the part of a job that a counter which is renewed ten times a second
// has not shown yet when the job ends.
func lag(classes []power.DeviceClass, d time.Duration) float64 {
	if !slices.Contains(classes, power.NVIDIA) {
		return 0
	}
	return dgpu.Period.Seconds() / 2 / d.Seconds()
}

// deviation is by how much figures are off.
type deviation struct{ mean, worst, sum float64 }

func trials(classes []power.DeviceClass, foreign float64, d time.Duration) (e deviation) {
	const count = 20
	trial := newTrial(uint64(d)+uint64(len(classes)), foreign)
	defer trial.meter.Close()
	var truth, told float64
	for range count {
		for _, j := range trial.run(d, classes...) {
			off := math.Abs(j.cost.Energy.Joules()/j.truth.Joules() - 1)
			e.mean += off / float64(count*len(classes))
			e.worst = max(e.worst, off)
			truth, told = truth+j.truth.Joules(), told+j.cost.Energy.Joules()
		}
	}
	e.sum = math.Abs(told/truth - 1)
	return e
}
