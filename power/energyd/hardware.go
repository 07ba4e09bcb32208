package energyd

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/helper"
)

// A Reader reads one domain of the hardware.
type Reader interface {
	Domain() power.Domain
	Read(ctx context.Context) (power.Reading, error)
}

// hardware is what the helper reads, and what it last saw.
type hardware struct {
	readers []Reader

	mu   sync.Mutex // guards the following; one look at a time
	at   time.Time
	line []byte // the answer
}

// newHardware leaves out what is none of a client's business.
func newHardware(readers []Reader) *hardware {
	return &hardware{readers: slices.DeleteFunc(slices.Clone(readers), func(r Reader) bool { return !public(r.Domain()) })}
}

// public says whether a domain goes out: what others than root can read they
// shall read themselves.
func public(d power.Domain) bool {
	switch d.Scope {
	case power.ScopePlatform, power.ScopePackage, power.ScopeCore, power.ScopeUncore, power.ScopeDRAM, power.ScopeNPU:
		return d.Cumulative
	default:
		return false
	}
}

// reply returns the answer to what was said.
func (h *hardware) reply(ctx context.Context, line []byte) ([]byte, error) {
	if err := parseQuestion(line); err != nil {
		return nil, err
	}
	return h.look(ctx)
}

// look returns the answer to the question, which is that to the last one unless
// an interval has passed since.
func (h *hardware) look(ctx context.Context) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.line != nil && now.Sub(h.at) < interval {
		return h.line, nil
	}
	h.at, h.line = now, nil // A failed look is one as well.
	a := answer{Domains: make([]domain, 0, len(h.readers))}
	for _, r := range h.readers {
		a.Domains = append(a.Domains, read(ctx, r))
	}
	line, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	h.line = append(line, '\n')
	return h.line, nil
}

func read(ctx context.Context, r Reader) domain {
	d := describe(r.Domain())
	reading, err := r.Read(ctx)
	if err != nil {
		d.Error = err.Error()
		return d
	}
	d.Energy, d.At = &reading.Energy, helper.ToWire(reading.At)
	return d
}
