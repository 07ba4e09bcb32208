package simulate

import (
	"time"

	"github.com/joulemux/joulemux/daemon/route"
)

// Class is what a request of a trace is: two of them are interactive.
type Class string

// The classes of requests.
const (
	Interactive Class = "interactive"
	Completion  Class = "completion"
	Background  Class = "background"
)

// Request is one job of a trace.
type Request struct {
	At             time.Duration // from the begin of the trace
	Prompt, Output int           // in tokens
	Class          Class
	// Client names the program that asks.
	Client string
}

// Trace is what happens to a machine.
type Trace struct {
	Requests []Request // in order of time
	// Line says when line power comes and goes, in order of time; before the
	// first it is away unless StartsOnLine.
	StartsOnLine bool
	Line         []Switch
	// Suspend is when the lid is closed, and for how long; a zero length is
	// never. No request comes meanwhile.
	Suspend, SuspendedFor time.Duration
	// Charge is how full the battery is at first, from 0 to 1.
	Charge float64
	Length time.Duration
}

// Switch is line power coming or going.
type Switch struct {
	At time.Duration
	On bool
}

// Due returns when the last token of a request is due, after its arrival, by
// the deadlines of rules.
func (r *Request) Due(rules *route.Rules) time.Duration {
	due := r.Class.due(rules)
	return due.After + time.Duration(r.Output)*due.PerToken
}

func (c Class) due(rules *route.Rules) route.Due {
	switch c {
	case Completion:
		return rules.Completion
	case Background:
		return rules.Background
	default:
		return rules.Chat
	}
}
