package simulate

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/power"
)

// model is what all devices run: 8 billion weights in 4 bits and a bit.
const (
	model     = "model:8b"
	modelSize = 4_700_000_000
)

// bytesPerToken is what the daemon takes a token of a prompt for.
const bytesPerToken = 4

// knownSamples is from how many jobs a machine is known that has been used.
const knownSamples = 100

// figures are what a policy may know of the devices of a machine.
type figures struct {
	options *Options
	noise   *rand.Rand
	learned map[figure]ledger.Learned
	used    map[string]bool
}

// figure is what is learned apart.
type figure struct {
	device    string
	onBattery bool
}

func newFigures(o *Options) *figures {
	return &figures{
		options: o, noise: rand.New(rand.NewPCG(o.Seed, 0x6e6f697365)),
		learned: make(map[figure]ledger.Learned), used: make(map[string]bool),
	}
}

// candidate returns a place as a policy sees it.
func (f *figures) candidate(p *place, onBattery bool) job.Candidate {
	return job.Candidate{
		ID: p.ID, Class: p.Class, Healthy: true, Slots: 1,
		Model:   &job.Model{Name: model, Size: modelSize, Resident: p.resident && p.phase != loading},
		Profile: f.profile(p.Device, onBattery),
	}
}

// profile returns what is known of a device.
func (f *figures) profile(d *Device, onBattery bool) job.Profile {
	p := known(d)
	if f.options.Figures == FiguresLearned {
		p = plan.Known(backend.Prior(d.Class), onBattery, func(onBattery bool) (ledger.Learned, bool) {
			l, known := f.learned[figure{d.ID, onBattery}]
			return l, known
		})
		if f.used[d.ID] {
			p.HoldDraw = d.Hold // as if it were measured with the first model that is held
		}
	}
	if f.options.Watts {
		p = inWatts(p)
	}
	return p
}

func known(d *Device) job.Profile {
	return job.Profile{
		Draw: max(d.PrefillDraw, d.DecodeDraw), Prefill: d.Prefill, Decode: d.Decode, LoadTime: d.Load,
		TokenEnergy:  power.Joules(d.DecodeDraw.Watts() / d.Decode),
		PromptEnergy: power.Joules(d.PrefillDraw.Watts() / d.Prefill),
		LoadEnergy:   d.LoadEnergy(), HoldDraw: d.Hold,
		Quality: power.Derived, Samples: knownSamples,
	}
}

// inWatts returns p as if every device took as long for a token as any other:
// what draws less is then taken to spend less.
func inWatts(p job.Profile) job.Profile {
	p.TokenEnergy, p.PromptEnergy = p.Draw.For(time.Second/10), p.Draw.For(time.Second/300)
	return p
}

// learn takes in a job that was answered, as the daemon's meter and ledger
// would.
func (f *figures) learn(j *Job, d *Device, now time.Time) {
	f.used[d.ID] = true
	j.Predicted = f.predicted(j, d)
	off := math.Exp(f.options.Noise*f.noise.NormFloat64() - f.options.Noise*f.options.Noise/2)
	j.Measured = power.Joules(j.Energy.Joules() * off)
	e := ledger.Entry{
		Ended: now, Backend: d.ID, Model: model, Hardware: d.Class, OnBattery: j.onBattery,
		PromptTokens: j.Prompt, Tokens: j.Output,
		Prefill: d.Prefilling(j.Prompt), Decode: d.Decoding(j.Output),
		FirstToken: j.FirstToken - j.Started, Total: j.Ended - j.Started,
		Cost: power.Cost{Energy: j.Measured, Quality: power.Measured, Coverage: 1},
	}
	if j.Loaded {
		e.Load, e.Cost.Load = d.Load, power.Joules(d.LoadEnergy().Joules()*off)
	}
	at := figure{d.ID, j.onBattery}
	f.learned[at] = f.learned[at].With(e)
}

// predicted is what the figures say that a job takes whose length is known.
func (f *figures) predicted(j *Job, d *Device) power.Energy {
	c := job.Candidate{Profile: f.profile(d, j.onBattery), Model: &job.Model{Size: modelSize, Resident: !j.Loaded}}
	return c.Estimate(&job.Job{Kind: job.Generate, PromptBytes: j.Prompt * bytesPerToken}, float64(j.Output)).Energy
}
