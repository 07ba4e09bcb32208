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
	// leastUnread is that for a device that is not read during the pause: until
	// it has calmed down is a part of it.
	leastUnread = Calm
)

// idle is what a domain draws without jobs, learned from the pauses between
// them: no sensor is read for it while nothing happens.
//
// In most pauses somebody works at the machine. Those in which the processors
// had little to do count alone, once there is one, and of them the low decile.
// What a domain draws depends on how the machine is powered, so each condition
// has pauses of its own.
type idle struct {
	condition    string
	calm, lively map[string][]power.Power // the last of each condition
}

// calmBusy is the part of the processors that may work in a calm pause.
const calmBusy = 0.03

func (i *idle) conditions(name string) { i.condition = name }

// learn learns from a pause with that mean draw.
func (i *idle) learn(draw power.Power, calm bool) {
	pauses := &i.lively
	if calm {
		pauses = &i.calm
	}
	if *pauses == nil {
		*pauses = make(map[string][]power.Power)
	}
	list := append((*pauses)[i.condition], draw)
	if len(list) > remembered {
		list = slices.Delete(list, 0, len(list)-remembered)
	}
	(*pauses)[i.condition] = list
}

// draw returns the idle draw under the condition in force, if it is known, and
// whether it is that of a calm machine.
func (i *idle) draw() (draw power.Power, calm, known bool) {
	list, calm := i.calm[i.condition], true
	if len(list) == 0 {
		list, calm = i.lively[i.condition], false
	}
	if len(list) == 0 {
		return 0, false, false
	}
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/10], calm, true
}
