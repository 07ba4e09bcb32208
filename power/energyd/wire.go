package energyd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/joulemux/joulemux/power"
)

// The two sides exchange lines of JSON: a question, and its answer. Answers
// come in the order of the questions, and after an error the helper hangs up.

// question is all that can be asked: {"read":true}.
type question struct {
	Read bool `json:"read"`
}

// answer has all domains as they were read, or says why it has none.
type answer struct {
	Domains []domain `json:"domains,omitzero"`
	Error   string   `json:"error,omitempty"`
}

// domain is a power.Domain that counts, and its count at some time by the
// kernel's CLOCK_MONOTONIC. One that could not be read has an error instead.
type domain struct {
	Name   string       `json:"name"`
	Scope  power.Scope  `json:"scope"`
	Source string       `json:"source"`
	Device string       `json:"device,omitempty"`
	Within string       `json:"within,omitempty"`
	Range  power.Energy `json:"range_uj"`
	Most   power.Power  `json:"most_uw"`
	Period int64        `json:"period_ns"`

	Energy *power.Energy `json:"energy_uj,omitempty"`
	At     int64         `json:"at_ns,omitempty"`
	Error  string        `json:"error,omitempty"`
}

var errQuestion = errors.New(`the only question is {"read":true}`)

// parseQuestion reads a question, of which there is one.
func parseQuestion(line []byte) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	var q question
	if err := d.Decode(&q); err != nil {
		return fmt.Errorf("%w: %w", errQuestion, err)
	}
	if _, err := d.Token(); !q.Read || !errors.Is(err, io.EOF) {
		return errQuestion
	}
	return nil
}

// parseAnswer reads an answer whose domains have names and sensible figures.
func parseAnswer(line []byte) (answer, error) {
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return answer{}, fmt.Errorf("an answer cannot be read: %w", err)
	}
	if a.Error != "" {
		return answer{}, errors.New(a.Error)
	}
	for _, d := range a.Domains {
		if d.Name == "" || min(int64(d.Range), int64(d.Most), d.Period, d.At) < 0 || d.Energy != nil && *d.Energy < 0 {
			return answer{}, fmt.Errorf("an answer makes no sense: %+v", d)
		}
	}
	return a, nil
}

// domain returns what the figures are of.
func (d domain) domain() power.Domain {
	return power.Domain{
		Name: d.Name, Scope: d.Scope, Source: d.Source, Device: d.Device, Within: d.Within,
		Cumulative: true, Range: d.Range, Most: d.Most, Period: time.Duration(d.Period),
	}
}

// describe is the other way around. What is read through the helper is renewed
// no sooner than the helper looks.
func describe(d power.Domain) domain {
	return domain{
		Name: d.Name, Scope: d.Scope, Source: d.Source, Device: d.Device, Within: d.Within,
		Range: d.Range, Most: d.Most, Period: int64(max(d.Period, interval)),
	}
}
