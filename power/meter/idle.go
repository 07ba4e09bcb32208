package meter

import (
	"slices"
	"time"

	"github.com/joulemux/joulemux/power"
)

const (
	// remembered is how many pauses between jobs the idle draw is learned from.
	remembered = 20
	// leastPause is the shortest that tells: readings are a few milliseconds
	// off, and a pause of a second is not all wake-up.
	leastPause = time.Second
)

// idle is what a domain draws without jobs, learned from the pauses between
// them: no sensor is read for it while nothing happens.
//
// In most pauses somebody works at the machine, so the low decile counts. It
// depends on how the machine is powered, so each condition has its own.
type idle struct {
	condition string
	pauses    map[string][]power.Power // the last of each condition
}

func (i *idle) conditions(name string) { i.condition = name }

// learnOver learns from a pause in which e was taken.
func (i *idle) learnOver(e power.Energy, pause time.Duration) {
	if pause >= leastPause {
		i.learn(e.Over(pause))
	}
}

func (i *idle) learn(draw power.Power) {
	if i.pauses == nil {
		i.pauses = make(map[string][]power.Power)
	}
	list := append(i.pauses[i.condition], draw)
	if len(list) > remembered {
		list = slices.Delete(list, 0, len(list)-remembered)
	}
	i.pauses[i.condition] = list
}

// draw returns the idle draw under the condition in force, if it is known.
func (i *idle) draw() (power.Power, bool) {
	list := slices.Sorted(slices.Values(i.pauses[i.condition]))
	if len(list) == 0 {
		return 0, false
	}
	return list[len(list)/10], true
}
