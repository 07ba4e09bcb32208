package simulate

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// Study is a comparison of policies on the same traces.
type Study struct {
	Machine Machine
	Traces  []Trace
	// Policies are each compared with Reference as well.
	Policies  []Policy
	Reference Policy
	Options   Options
}

// Run runs every policy on every trace, on as many processors as there are. The
// outcome does not depend on how many that is.
func (s *Study) Run(ctx context.Context) ([]Summary, error) {
	policies := append([]Policy{s.Reference}, s.Policies...)
	results, err := s.runAll(ctx, policies)
	if err != nil {
		return nil, err
	}
	summaries := make([]Summary, len(s.Policies))
	for i, p := range s.Policies {
		summaries[i] = summarize(p, results[i+1], results[0])
	}
	return summaries, nil
}

// runAll returns the results by policy and trace.
func (s *Study) runAll(ctx context.Context, policies []Policy) ([][]Result, error) {
	results := make([][]Result, len(policies))
	for i := range results {
		results[i] = make([]Result, len(s.Traces))
	}
	errs := make([]error, len(policies)*len(s.Traces))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= len(errs) {
					return
				}
				policy, trace := n/len(s.Traces), n%len(s.Traces)
				results[policy][trace], errs[n] = s.one(policies[policy], trace)
			}
		})
	}
	workers.Wait()
	return results, errors.Join(append(errs, ctx.Err())...)
}

// one runs a policy on a trace.
func (s *Study) one(p Policy, trace int) (Result, error) {
	o := s.Options
	o.Seed = uint64(trace)
	r, err := Run(&s.Machine, &s.Traces[trace], p, &o)
	if err != nil {
		return r, fmt.Errorf("trace %d: %w", trace, err)
	}
	return r, nil
}

// Seeds returns the traces that the first n seeds make of a workload.
func Seeds(n int, w Workload) []Trace {
	traces := make([]Trace, n)
	for i := range traces {
		traces[i] = Generate(uint64(i), w)
	}
	return traces
}

// Variation is a study with something of it changed.
type Variation struct {
	Name   string
	change func(*Study)
}

// Variations are the changes that tell on which assumptions an outcome hangs.
// What discrete GPUs are held at is changed only on a machine with one.
func Variations(m *Machine) []Variation {
	list := []Variation{{"as it is", func(*Study) {}}}
	for _, w := range []float64{4, 8, 14} {
		if m.discrete() {
			list = append(list, Variation{fmt.Sprintf("hold %v W", w), func(s *Study) {
				s.devices(func(d *Device) { d.Hold = power.Watts(w) })
			}})
		}
	}
	if m.discrete() {
		list = append(list, Variation{"GPU awake 10s more", func(s *Study) {
			s.devices(func(d *Device) { d.SleepAfter = 10 * time.Second })
		}})
	}
	for _, load := range []time.Duration{2 * time.Second, 5 * time.Second, 15 * time.Second} {
		list = append(list, Variation{fmt.Sprintf("load %v", load), func(s *Study) {
			s.devices(func(d *Device) { d.Load = load })
		}})
	}
	return append(list,
		Variation{"lengths assumed", func(s *Study) { s.Options.Lengths = LengthsAssumed }},
		Variation{"lengths known", func(s *Study) { s.Options.Lengths = LengthsKnown }},
		Variation{"figures learned", func(s *Study) { s.Options.Figures, s.Options.Noise = FiguresLearned, 0.05 }},
		Variation{"deadlines halved", func(s *Study) { s.deadlines(0.5) }},
		Variation{"deadlines doubled", func(s *Study) { s.deadlines(2) }},
		Variation{"watts for joules", func(s *Study) { s.Options.Watts = true }},
	)
}

// Of returns s changed, and leaves s as it is.
func (v Variation) Of(s Study) Study {
	s.Machine.Devices = slices.Clone(s.Machine.Devices)
	v.change(&s)
	return s
}

// discrete reports whether m has a discrete GPU.
func (m *Machine) discrete() bool {
	return slices.ContainsFunc(m.Devices, func(d Device) bool { return d.Class.Discrete() })
}

// devices changes the discrete GPUs, or all devices of a machine without one.
func (s *Study) devices(change func(*Device)) {
	all := !s.Machine.discrete()
	for i := range s.Machine.Devices {
		if d := &s.Machine.Devices[i]; all || d.Class.Discrete() {
			change(d)
		}
	}
}

// deadlines scales when answers are due.
func (s *Study) deadlines(by float64) {
	for _, due := range []*route.Due{&s.Options.Rules.Chat, &s.Options.Rules.Completion, &s.Options.Rules.Background} {
		due.After = time.Duration(float64(due.After) * by)
		due.PerToken = time.Duration(float64(due.PerToken) * by)
	}
}
