package nvml

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/helper"
)

const (
	// pause is how long a sensor that is not there is left alone. A driver that
	// is another version's, say, stays so until somebody starts the machine
	// anew, and every look would start a process.
	pause = time.Minute
	// longestAnswer is more than a sample takes.
	longestAnswer = 4 << 10
)

// A Sensor is the client's end for one GPU. It connects when it is read, and
// then keeps the connection, and with it NVML and the GPU, until Rest.
type Sensor struct {
	sys    fs.FS
	gpus   []string // all of the machine, of which this is one
	device string
	// patience is how long a look may take: jobs wait for it.
	patience time.Duration

	mu    sync.Mutex // guards the following; one look at a time
	line  helper.Line
	last  Sample // At is zero if there is none
	down  error  // why it is left alone
	until time.Time
}

// Find returns a sensor for each of NVIDIA's display controllers. It connects
// to nothing, and so knows not whether they can be read. Socket is the path of
// the program's, or "" where there is no runtime folder.
func Find(sys fs.FS, socket string) ([]*Sensor, error) {
	gpus, err := GPUs(sys)
	if err != nil {
		return nil, err
	}
	var sensors []*Sensor
	for _, gpu := range gpus {
		sensors = append(sensors, &Sensor{
			sys: sys, gpus: gpus, device: gpu, patience: helper.Patience, line: helper.Line{Socket: socket, Longest: longestAnswer},
		})
	}
	return sensors, nil
}

// Domain describes the GPU. Whether it counts its energy shows when it is read
// for the first time: until then it is taken to, and what a reading holds is by
// what Domain says after it.
func (s *Sensor) Domain() power.Domain {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := power.Domain{
		Name: "gpu " + s.device, Scope: power.ScopeDiscreteGPU, Source: power.SourceNVML, Device: s.device,
		Cumulative: s.last.Counted || s.last.At.IsZero(),
		// The counter's, as measured by ML.ENERGY's Zeus. "joulemux-nvml
		// --measure" says what it is here.
		Period: renewal,
	}
	if !d.Cumulative {
		d.Period = time.Second // What is drawn is a mean over that.
	}
	return d
}

// Read returns what the GPU counts, or draws if it does not count. It never
// wakes one, and returns within a moment: while NVML is being opened there is
// no reading (power.ErrUnavailable), and that which comes of it is what the next
// Read returns. When an answer is late later on, the last reading stands for it.
func (s *Sensor) Read(ctx context.Context) (power.Reading, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := awake(s.sys, s.gpus); err != nil {
		s.line.HangUp() // Only for the sake of the other side, which sees the same.
		return power.Reading{}, err
	}
	if time.Now().Before(s.until) {
		return power.Reading{}, s.down
	}
	sample, err := s.sample(ctx)
	switch {
	case err == nil:
		if sample.at == s.last.at {
			sample.At = s.last.At // The same look: no time has passed.
		}
		s.last = sample
	case helper.Late(err):
		if !s.line.Heard() || time.Since(s.last.At) > helper.Stale {
			return power.Reading{}, fmt.Errorf("%w: GPU %s has not been read yet", power.ErrUnavailable, s.device)
		}
		sample = s.last
	default:
		return power.Reading{}, s.fail(err)
	}
	return power.Reading{At: sample.At, Energy: sample.Energy, Draw: sample.Draw}, nil
}

// fail ends a connection that is of no use.
func (s *Sensor) fail(err error) error {
	s.line.HangUp()
	if errors.Is(err, power.ErrAsleep) {
		return err
	}
	if !errors.Is(err, power.ErrUnavailable) {
		err = fmt.Errorf("%w: joulemux-nvml: %w", power.ErrUnavailable, err)
	}
	// To find no socket costs nothing, and there may be one at any time.
	if op := new(net.OpError); !errors.As(err, &op) || op.Op != "dial" {
		s.down, s.until = err, time.Now().Add(pause)
	}
	return err
}

// sample asks for a sample.
func (s *Sensor) sample(ctx context.Context) (Sample, error) {
	line, err := json.Marshal(question{Read: s.device})
	if err != nil {
		return Sample{}, err
	}
	if line, err = s.line.Ask(ctx, line, s.patience); err != nil {
		return Sample{}, err
	}
	return sample(line)
}

// Rest lets go of the GPU: the program ends with its last connection.
func (s *Sensor) Rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line.HangUp()
}
