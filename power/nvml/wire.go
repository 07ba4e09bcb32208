package nvml

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/helper"
)

// The two sides exchange lines of JSON: a question, and its answer. Answers
// come in the order of the questions.

// question is what the client may ask.
type question struct {
	// Read is the PCI address of the GPU to read, as in "0000:01:00.0".
	Read string `json:"read"`
}

// answer is a sample, or why there is none. A figure that the GPU does not
// have is left out, since unknown is not zero.
type answer struct {
	At       int64  `json:"at_ns,omitempty"` // by the kernel's CLOCK_MONOTONIC
	EnergyMJ *int64 `json:"energy_mj,omitempty"`
	PowerMW  *int64 `json:"power_mw,omitempty"`
	Error    string `json:"error,omitempty"`
	Kind     kind   `json:"kind,omitempty"`
}

// kind is why there is no sample, for programs.
type kind string

const (
	asleep      kind = "asleep"
	unavailable kind = "unavailable"
)

// NVML counts in millijoules and milliwatts; power's units are a thousandth of
// those.
const milli = 1000

// answerOf is the only place where a failure becomes a kind.
func answerOf(s Sample, err error) answer {
	switch {
	case errors.Is(err, power.ErrAsleep):
		return answer{Error: err.Error(), Kind: asleep}
	case err != nil:
		// The kind says the rest.
		why := strings.TrimPrefix(err.Error(), power.ErrUnavailable.Error()+": ")
		return answer{Error: why, Kind: unavailable}
	}
	a := answer{At: s.at}
	if s.Counted {
		a.EnergyMJ = new(int64(s.Energy / milli))
	}
	if s.Drawn {
		a.PowerMW = new(int64(s.Draw / milli))
	}
	return a
}

// sample reads an answer.
func sample(line []byte) (Sample, error) {
	var a answer
	err := json.Unmarshal(line, &a)
	switch {
	case err != nil:
		return Sample{}, fmt.Errorf("%w: an answer cannot be read: %w", power.ErrUnavailable, err)
	case a.Kind == asleep:
		return Sample{}, fmt.Errorf("%w: joulemux-nvml: %s", power.ErrAsleep, a.Error)
	case a.Kind != "" || a.Error != "":
		return Sample{}, fmt.Errorf("%w: joulemux-nvml: %s", power.ErrUnavailable, a.Error)
	case a.At <= 0 || a.EnergyMJ == nil && a.PowerMW == nil:
		return Sample{}, fmt.Errorf("%w: an answer has no time or no figure", power.ErrUnavailable)
	}
	s := Sample{At: helper.FromWire(a.At), at: a.At}
	if a.EnergyMJ != nil {
		s.Energy, s.Counted = power.Energy(scale(*a.EnergyMJ)), true
	}
	if a.PowerMW != nil {
		s.Draw, s.Drawn = power.Power(scale(*a.PowerMW)), true
	}
	return s, nil
}

// scale multiplies by a thousand, as far as there are numbers for it.
func scale(milliunits int64) int64 {
	const most = math.MaxInt64 / milli
	return min(max(milliunits, -most), most) * milli
}
