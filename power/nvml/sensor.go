package nvml

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"
	"time"

	"github.com/joulemux/joulemux/power"
)

const (
	patience = 50 * time.Millisecond
	// stale is how old a sample may be to stand for one that is on its way.
	stale = 5 * time.Second
	// pause is how long a sensor that is not there is left alone. A driver that
	// is another version's, say, stays so until somebody starts the machine
	// anew, and every look would start a process.
	pause = time.Minute
)

// A Sensor is the client's end for one GPU. It connects when it is read, and
// then keeps the connection, and with it NVML and the GPU, until Rest.
type Sensor struct {
	sys    fs.FS
	gpus   []string // all of the machine, of which this is one
	device string
	socket string
	// patience is how long a look may take: jobs wait for it.
	patience time.Duration

	mu     sync.Mutex // guards the following; one look at a time
	conn   net.Conn   // nil while there is none
	lines  *bufio.Reader
	part   []byte // of an answer of which the rest has not come
	owed   bool   // an answer is on its way
	latest Sample // of this connection; At is zero if there is none
	last   Sample // of any
	down   error  // why it is left alone
	until  time.Time
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
		sensors = append(sensors, &Sensor{sys: sys, gpus: gpus, device: gpu, socket: socket, patience: patience})
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
		s.hangUp() // Only for the sake of the other side, which sees the same.
		return power.Reading{}, err
	}
	now := time.Now()
	if now.Before(s.until) {
		return power.Reading{}, s.down
	}
	deadline := now.Add(s.patience)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	sample, err := s.sample(deadline)
	switch {
	case err == nil:
		if sample.At.Round(0).Equal(s.last.At.Round(0)) {
			sample.At = s.last.At // The same look, to the nanosecond: no time has passed.
		}
		s.latest, s.last = sample, sample
	case isLate(err):
		if s.latest.At.IsZero() || time.Since(s.latest.At) > stale {
			return power.Reading{}, fmt.Errorf("%w: GPU %s has not been read yet", power.ErrUnavailable, s.device)
		}
		sample = s.latest
	default:
		return power.Reading{}, s.fail(err)
	}
	return power.Reading{At: sample.At, Energy: sample.Energy, Draw: sample.Draw}, nil
}

// isLate reports whether the time for a look was over. Dialing has an error of
// its own for that, which is not os.ErrDeadlineExceeded.
func isLate(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// fail ends a connection that is of no use.
func (s *Sensor) fail(err error) error {
	s.hangUp()
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

// sample asks for a sample, and returns the newest that comes until deadline.
func (s *Sensor) sample(deadline time.Time) (Sample, error) {
	late, first := Sample{}, s.latest.At.IsZero()
	if s.owed {
		var err error
		// The answer to the first question is the better one, however late: what
		// passes is counted from there.
		if late, err = s.receive(deadline); err != nil || first {
			return late, err
		}
	}
	if err := s.ask(deadline); err != nil {
		return Sample{}, err
	}
	sample, err := s.receive(deadline)
	if isLate(err) && !late.At.IsZero() {
		return late, nil
	}
	return sample, err
}

// ask sends the question, if need be on a new connection: the other side closes
// one that has asked nothing for a while.
func (s *Sensor) ask(deadline time.Time) error {
	line, err := json.Marshal(question{Read: s.device})
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if s.conn != nil && s.send(line, deadline) == nil {
		return nil
	}
	s.hangUp()
	dialer := net.Dialer{Deadline: deadline}
	if s.conn, err = dialer.Dial("unix", s.socket); err != nil {
		s.conn = nil // Not a nil *net.UnixConn.
		return err
	}
	s.lines = bufio.NewReader(s.conn)
	return s.send(line, deadline)
}

func (s *Sensor) send(line []byte, deadline time.Time) error {
	if err := s.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	if _, err := s.conn.Write(line); err != nil {
		return err
	}
	s.owed = true
	return nil
}

// receive returns the answer that is owed, if it comes in time. What has come
// of it stays for the next time.
func (s *Sensor) receive(deadline time.Time) (Sample, error) {
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return Sample{}, err
	}
	line, err := s.lines.ReadBytes('\n')
	s.part = append(s.part, line...)
	if err != nil {
		return Sample{}, err
	}
	line, s.part, s.owed = s.part, nil, false
	return sample(line, time.Now())
}

// Rest lets go of the GPU: the program ends with its last connection.
func (s *Sensor) Rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hangUp()
}

func (s *Sensor) hangUp() {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	s.conn, s.lines, s.part, s.owed, s.latest = nil, nil, nil, false, Sample{}
}

// Latest returns the last sample that was read, with what a Reading has no room
// for, if there is one.
func (s *Sensor) Latest() (Sample, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, !s.last.At.IsZero()
}
