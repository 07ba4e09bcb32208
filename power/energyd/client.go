package energyd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/helper"
)

const (
	// start is how long the service manager may take to start the helper while
	// nothing waits for it.
	start = 2 * time.Second
	// moment is for how long what was found stands at least: sensors are read
	// one after the other, and if one had to wait, the others need not.
	moment = 10 * time.Millisecond
	// longestAnswer is more than all domains take.
	longestAnswer = 64 << 10
)

// A Sensor is the client's end for one domain. It shares with the others one
// connection, which keeps the helper running and is there until all of them
// rest, and what a look told of them all.
type Sensor struct {
	client *client
	domain power.Domain
}

// Sensors asks the helper which domains there are, and stays connected no
// longer. Where there is no helper, or none for us, the error wraps
// power.ErrUnavailable.
func Sensors(ctx context.Context, socket string) ([]*Sensor, error) {
	c := &client{line: helper.Line{Socket: socket, Longest: longestAnswer}, readers: make(map[string]bool)}
	defer c.line.HangUp()
	a, err := c.exchange(ctx, start)
	if err != nil {
		return nil, unavailable(err)
	}
	var sensors []*Sensor
	for _, d := range a.Domains {
		sensors = append(sensors, &Sensor{c, d.domain()})
	}
	return sensors, nil
}

// Domain returns what the sensor tells of.
func (s *Sensor) Domain() power.Domain { return s.domain }

// Read returns what the helper saw last, which is a tenth of a second old at
// most. It returns within a moment. An answer that comes later than that is what
// the next Read returns if it is the first of a connection, since the helper
// then had to be started and what passes is counted from there; when one is late
// later on, the last reading stands for it. Errors wrap power.ErrUnavailable, and
// the next Read connects anew.
func (s *Sensor) Read(ctx context.Context) (power.Reading, error) {
	return s.client.read(ctx, s.domain.Name)
}

// Rest lets go of the helper, which ends when all have.
func (s *Sensor) Rest() { s.client.rest(s.domain.Name) }

// client is a connection to the helper, and what came over it.
type client struct {
	mu       sync.Mutex // guards the following; one look at a time
	line     helper.Line
	readers  map[string]bool
	answered time.Time
	// What was found, and until when nothing else can be.
	found map[string]found
	err   error
	until time.Time
}

// found is one domain's reading, or why there is none.
type found struct {
	at      int64 // as on the wire
	reading power.Reading
	err     error
}

func (c *client) read(ctx context.Context, name string) (power.Reading, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readers[name] = true
	if !time.Now().Before(c.until) {
		c.renew(ctx)
	}
	if c.err != nil {
		return power.Reading{}, c.err
	}
	f, ok := c.found[name]
	if !ok {
		f.err = errors.New("no longer told of")
	}
	if f.err != nil {
		return power.Reading{}, fmt.Errorf("%s: %w", name, unavailable(f.err))
	}
	return f.reading, nil
}

func (c *client) rest(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if delete(c.readers, name); len(c.readers) == 0 {
		c.line.HangUp()
	}
}

// renew looks again. Until an interval has passed since the helper did, it
// would say the same.
func (c *client) renew(ctx context.Context) {
	a, err := c.exchange(ctx, helper.Patience)
	c.until = time.Now().Add(moment)
	if helper.Late(err) && c.line.Heard() && time.Since(c.answered) <= helper.Stale {
		return // What was found stands, with its own time.
	}
	if err != nil {
		c.err = unavailable(err)
		return
	}
	c.err = nil
	now := make(map[string]found, len(a.Domains))
	for _, d := range a.Domains {
		now[d.Name] = c.find(d)
		if next := now[d.Name].reading.At.Add(interval); next.After(c.until) {
			c.until = next
		}
	}
	c.found = now
}

// find takes what was said of a domain. What was seen at the same time as the
// last was the same look, and no time has passed.
func (c *client) find(d domain) found {
	last := c.found[d.Name]
	switch {
	case d.Energy == nil || d.At == 0:
		return found{err: errors.New(d.Error)}
	case d.At == last.at:
		return last
	}
	return found{at: d.At, reading: power.Reading{At: helper.FromWire(d.At), Energy: *d.Energy}}
}

// exchange asks, and returns the answer. If it fails there is no connection
// afterwards, unless it is only late.
func (c *client) exchange(ctx context.Context, within time.Duration) (answer, error) {
	line, err := json.Marshal(question{Read: true})
	if err != nil {
		return answer{}, err
	}
	if line, err = c.line.Ask(ctx, line, within); err != nil {
		return answer{}, err
	}
	a, err := parseAnswer(line)
	if err != nil {
		c.line.HangUp()
		return answer{}, err
	}
	c.answered = time.Now()
	return a, nil
}

func unavailable(err error) error {
	return fmt.Errorf("%w: joulemux-energyd: %w", power.ErrUnavailable, err)
}
