package meter

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
)

// opening is a rail whose sensor takes a moment to be ready whenever it was let
// go of, as NVIDIA's library does.
type opening struct {
	*rail
	ready time.Time
	open  bool
	rests atomic.Int64
}

func (o *opening) Read(ctx context.Context) (power.Reading, error) {
	if !o.open {
		o.open, o.ready = true, time.Now().Add(300*time.Millisecond)
	}
	if time.Now().Before(o.ready) {
		return power.Reading{}, power.ErrUnavailable
	}
	return o.rail.Read(ctx)
}

func (o *opening) Rest() {
	o.open = false
	o.rests.Add(1)
}

func TestWhatHoldingAModelTakesIsMeasured(t *testing.T) {
	second := dgpu
	second.Name, second.Device = "second", "0000:02:00.0"
	for _, c := range []struct {
		rule      string
		domains   []power.Domain
		awake     bool        // before a model came
		draw      power.Power // after them
		sees      bool
		meanwhile func(*machine, *Meter)
		want      power.Power
	}{
		{"a GPU that holds a model draws that", []power.Domain{pkg, dgpu}, false, 8 * power.Watt, true, nil, 8 * power.Watt},
		{"of one that never sleeps it is not told", []power.Domain{dgpu}, true, 8 * power.Watt, false, nil, 0},
		{"of two it is not told whose it is", []power.Domain{dgpu, second}, false, 8 * power.Watt, false, nil, 0},
		{"one that falls asleep holds nothing", []power.Domain{dgpu}, false, 8 * power.Watt, true, func(m *machine, _ *Meter) { m.rails["gpu"].sleeps(true) }, 0},
		{"one that draws next to nothing holds nothing", []power.Domain{dgpu}, false, power.Watt / 2, true, nil, 0},
		{"what a job takes is not for holding", []power.Domain{dgpu}, false, 8 * power.Watt, true, func(_ *machine, meter *Meter) {
			meter.Begin(context.Background(), work(power.NVIDIA))
		}, 0},
		{"nor if the job is over again", []power.Domain{dgpu}, false, 8 * power.Watt, true, func(_ *machine, meter *Meter) {
			meter.Begin(context.Background(), work(power.NVIDIA)).End(context.Background(), 0, 0)
		}, 0},
		{"a machine that has slept meanwhile tells nothing", []power.Domain{dgpu}, false, 8 * power.Watt, true, func(m *machine, _ *Meter) {
			m.Lock()
			defer m.Unlock()
			m.suspended += time.Hour
		}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(c.domains...)
			o := m.options()
			gpu := &opening{rail: m.rails["gpu"]}
			for i, s := range o.Sensors {
				if s == m.rails["gpu"] {
					o.Sensors[i] = gpu
				}
			}
			meter := New(o)
			defer meter.Close()
			for _, r := range m.rails {
				r.sleeps(sleeps(r.domain) && !c.awake)
			}
			s := meter.Begin(context.Background(), work(power.NVIDIA))
			time.Sleep(time.Second)
			meter.Begin(context.Background(), work(power.NVIDIA)).End(context.Background(), 0, 0) // reads it when it is ready
			for _, r := range m.rails {
				r.sleeps(false)
			}
			s.End(context.Background(), 0, 0)
			m.draws("gpu", c.draw)
			if draw, ok := meter.HeldDraw(context.Background(), power.NVIDIA); ok {
				t.Errorf("%s: right after a job told is %v", c.rule, draw)
			}
			pass(Calm)
			if got := meter.SeesHeld(power.NVIDIA); got != c.sees {
				t.Errorf("%s: it is said to be seen: %v", c.rule, got)
			}
			held := work(power.NVIDIA)
			held.Held = true
			running := meter.Begin(context.Background(), held)
			pass(Calm)
			if draw, ok := meter.HeldDraw(context.Background(), power.NVIDIA); ok {
				t.Errorf("%s: during a job told is %v", c.rule, draw)
			}
			running.End(context.Background(), 0, 0)
			pass(Calm)
			gpu.rests.Store(0)
			if c.meanwhile != nil {
				time.AfterFunc(time.Second, func() { c.meanwhile(m, meter) })
			}
			draw, ok := meter.HeldDraw(context.Background(), power.NVIDIA)
			if ok != (c.want > 0) || ok && !near(draw.For(time.Second), c.want.For(time.Second)) {
				t.Errorf("%s: told is %v, %v", c.rule, draw, ok)
			}
			if ok && gpu.rests.Load() != 1 {
				t.Errorf("%s: the sensor was let go of %d times", c.rule, gpu.rests.Load())
			}
			pass(time.Hour)
		})
	}
}

func TestHoldingIsMeasuredOfADiscreteGPUAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg, npu, dgpu)
		meter := New(m.options())
		defer meter.Close()
		for _, r := range m.rails {
			r.sleeps(true)
		}
		for _, c := range []power.DeviceClass{power.CPU, power.NPU, power.IntegratedGPU, power.NVIDIA, power.Cloud} {
			meter.Begin(context.Background(), work(c)).End(context.Background(), 0, 0)
			if meter.SeesHeld(c) != (c == power.NVIDIA) {
				t.Errorf("of %s it is seen: %v", c, meter.SeesHeld(c))
			}
		}
	})
}

func TestHoldingIsNotWhatADeviceDrawsWithoutAModel(t *testing.T) {
	for _, c := range []struct {
		rule   string
		asleep bool // when the next job comes
		held   bool // to a model
		beside bool // another
		want   bool
	}{
		{"a model came to a device that slept", true, false, false, true},
		{"and is there yet", false, true, false, true},
		{"and another joins a job with it", false, false, true, true},
		{"a model came to a device that something else keeps awake", false, false, false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(dgpu)
			meter := New(m.options())
			defer meter.Close()
			m.rails["gpu"].sleeps(true)
			first := meter.Begin(context.Background(), work(power.NVIDIA))
			m.rails["gpu"].sleeps(false)
			if !c.beside {
				first.End(context.Background(), 0, 0)
			}
			pass(time.Minute)
			m.rails["gpu"].sleeps(c.asleep)
			w := work(power.NVIDIA)
			w.Held = c.held
			meter.Begin(context.Background(), w).End(context.Background(), 0, 0)
			if got := meter.SeesHeld(power.NVIDIA); got != c.want {
				t.Errorf("%s: it is seen: %v", c.rule, got)
			}
			first.End(context.Background(), 0, 0)
		})
	}
}
