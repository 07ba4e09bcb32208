package backend

import (
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// Prior returns what is assumed of a device class until something is known.
//
// The draws, times to the first token and decode rates are assumed, not
// measured. Prompts are taken to be read ten times as fast as answers are
// written (published figures lie between 8 and 30 times), and models to be
// loaded at a gigabyte per second.
func Prior(class power.DeviceClass) job.Profile {
	p := job.Profile{Quality: power.Estimated, LoadRate: 1e9}
	switch class {
	case power.NPU:
		p.Draw, p.FirstToken, p.Decode = 3*power.Watt, 800*time.Millisecond, 10
	case power.IntegratedGPU:
		p.Draw, p.FirstToken, p.Decode = 12*power.Watt, 350*time.Millisecond, 22
	case power.CPU:
		p.Draw, p.FirstToken, p.Decode = 28*power.Watt, 1200*time.Millisecond, 6
	case power.Cloud:
		// Somebody else's joules; ours are the radio's, which is awake as long as
		// the answer comes. One draws up to 2.1 W at its highest rate (Halperin
		// et al., Demystifying 802.11n Power Consumption, HotPower 2010); waiting
		// for the next token is assumed to take half of that.
		p.Draw, p.FirstToken, p.Decode = 1*power.Watt, 500*time.Millisecond, 50
	case power.NVIDIA, power.DiscreteGPU, power.Unclassified:
		p.Draw, p.FirstToken, p.Decode = 55*power.Watt, 150*time.Millisecond, 65
	}
	p.Prefill = 10 * p.Decode
	return p
}

// profile returns what is known of a backend over what is assumed. Where jobs
// have shown what it needs, nothing has to be.
func profile(known job.Profile, class power.DeviceClass) job.Profile {
	if known.Samples > 0 {
		return known
	}
	p := Prior(class)
	if known.Draw > 0 {
		p.Draw = known.Draw
	}
	if known.FirstToken > 0 {
		p.FirstToken = known.FirstToken
	}
	if known.Decode > 0 {
		p.Decode, p.Prefill = known.Decode, 10*known.Decode
	}
	p.HoldDraw = known.HoldDraw
	return p
}
