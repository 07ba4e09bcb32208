package simulate

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/joulemux/joulemux/power"
)

// between are bounds within which a figure is drawn, alike in its logarithm:
// machines differ by factors.
type between struct{ least, most float64 }

func (b between) draw(r *rand.Rand) float64 {
	return b.least * math.Exp(r.Float64()*math.Log(b.most/b.least))
}

// kind is what devices of a class may be like.
type kind struct {
	id                   string
	class                power.DeviceClass
	share                float64 // of machines that have one
	prefill, decode      between // tokens/s
	draw, hold, loadDraw between // W
	load, sleep          between // s
}

// kinds are what devices have been published to be like with models of 7 to 9
// billion weights in 4 bits. What is without a source is assumed.
func kinds() []kind {
	nothing := between{0, 0}
	return []kind{
		{
			// Intel's at 6.1 to AMD's and Intel's best at 18.6; its own rail at
			// 1.24 W to the whole machine at 20 W; prefill of FastFlowLM's 9B
			// to gpt-oss-20b.
			id: "npu", class: power.NPU, share: 2.0 / 3,
			decode: between{6.1, 18.6}, draw: between{1.24, 20}, prefill: between{284, 413},
			hold: nothing, load: between{2, 15}, loadDraw: between{4, 10}, sleep: nothing,
		},
		{
			// Arc 140V with Vulkan at 5.5 to IPEX at 24.4 and 708; AMD's at 13
			// W to Intel's limit of 28 W.
			id: "igpu", class: power.IntegratedGPU, share: 1,
			decode: between{5.5, 24.4}, draw: between{13, 28}, prefill: between{100, 708},
			hold: nothing, load: between{2, 15}, loadDraw: between{6, 12}, sleep: nothing,
		},
		{
			// Core Ultra 7 258V at its limit of 28 W to Ryzen AI 5 340 at 52 W.
			id: "cpu", class: power.CPU, share: 1,
			decode: between{5.8, 11.6}, draw: between{28, 52}, prefill: between{25, 60},
			hold: nothing, load: between{2, 8}, loadDraw: between{6, 12}, sleep: nothing,
		},
		{
			// RTX 4060 laptop at 38 and up; RTX 4050 on battery at 34 W to 80
			// W; held at 4 W to 14 W, asleep after 6 s to 15 s.
			id: "dgpu", class: power.NVIDIA, share: 2.0 / 3,
			decode: between{38, 75}, draw: between{34, 80}, prefill: between{1000, 3000},
			hold: between{4, 14}, load: between{2, 15}, loadDraw: between{20, 40}, sleep: between{6, 15},
		},
	}
}

// Random returns the machine that a seed makes within published ranges. All
// have an iGPU and a CPU, two in three an NPU and two in three an NVIDIA GPU.
func Random(seed uint64) Machine {
	r := rand.New(rand.NewPCG(seed, 0x6d616368696e65))
	m := Machine{
		Name: fmt.Sprintf("random-%d", seed), Source: "drawn within published ranges",
		Battery: power.Joules(between{50, 99}.draw(r) * 3600), Base: power.Watts(between{4, 10}.draw(r)),
	}
	for _, k := range kinds() {
		if d := k.device(r); r.Float64() < k.share {
			m.Devices = append(m.Devices, d)
		}
	}
	return m
}

// device draws one.
func (k *kind) device(r *rand.Rand) Device {
	draw := power.Watts(k.draw.draw(r))
	d := Device{
		ID: k.id, Class: k.class, Source: "drawn within published ranges",
		Prefill: k.prefill.draw(r), PrefillDraw: draw, Decode: k.decode.draw(r), DecodeDraw: draw,
		Load: seconds(k.load.draw(r)), LoadDraw: power.Watts(k.loadDraw.draw(r)),
	}
	if k.hold.most > 0 {
		d.Hold, d.SleepAfter = power.Watts(k.hold.draw(r)), seconds(k.sleep.draw(r))
	}
	return d
}
