package plan_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// crowd drives a plan with random events and holds it to its laws.
type crowd struct {
	*rig
	rand    *rand.Rand
	now     time.Time
	arrived map[string]time.Time
	waits   map[string]func(*job.Job)
	runs    map[string]plan.Placement
	ends    map[string]int
	slots   int      // of each backend; they may become more
	log     []string // every decision, to compare two runs
}

func newCrowd(t *testing.T, seed uint64) *crowd {
	t.Helper()
	c := &crowd{
		rig: newRig(t, power.Mains), slots: 1, rand: rand.New(rand.NewPCG(seed, 5)), now: at(0), arrived: make(map[string]time.Time),
		waits: make(map[string]func(*job.Job)), runs: make(map[string]plan.Placement), ends: make(map[string]int),
	}
	c.change = func(all []job.Candidate) {
		for i := range all {
			all[i].Slots = c.slots
		}
	}
	return c
}

// wish is something that a client may want.
func (c *crowd) wish() func(*job.Job) {
	class := []job.Class{job.Interactive, job.Interactive, job.Background}[c.rand.IntN(3)]
	target := []string{"", "", "", "nvidia", "npu"}[c.rand.IntN(5)]
	client := []string{"a", "b", "c"}[c.rand.IntN(3)]
	deadline := time.Duration(c.rand.IntN(3)*c.rand.IntN(200)) * time.Second
	length := int32(1 + c.rand.IntN(400))
	critical := c.rand.IntN(6) == 0
	return func(j *job.Job) {
		j.Class, j.Target, j.Client, j.Deadline, j.LatencyCritical = class, target, client, deadline, critical
		j.Lengths = job.LengthsOf([]int32{length, 2 * length})
	}
}

// try places a job, for the first time or again.
func (c *crowd) try(id string, wish func(*job.Job)) {
	ask := c.ask(id, c.arrived[id], wish)
	p, err := c.Place(c.now, ask)
	c.log = append(c.log, fmt.Sprint(c.now.Unix(), id, p.Decision.Backend, p.Started, err))
	switch {
	case err != nil:
		var typed *job.Error
		if !errors.As(err, &typed) {
			c.Fatalf("job %s: the error %v has no type", id, err)
		}
		delete(c.waits, id)
		c.ends[id]++
	case p.Started:
		delete(c.waits, id)
		c.begin(id, p)
	default:
		c.waits[id] = wish
	}
	if p.Decision.Backend != "" {
		rules := route.DefaultRules()
		if rule := rules.For(c.tier); p.Decision.Class == power.NVIDIA && rule.DiscreteGPU == route.Never {
			c.Fatalf("job %s goes to a GPU on %v", id, c.tier)
		}
	}
	c.carryOut(p.Effects)
}

func (c *crowd) begin(id string, p plan.Placement) {
	if _, twice := c.runs[id]; twice {
		c.Fatalf("job %s is started twice", id)
	}
	c.runs[id] = p
	used := map[string]int{}
	for _, p := range c.runs {
		used[p.Decision.Backend]++
	}
	for backend, n := range used {
		if n > c.slots {
			c.Fatalf("%s has %d slots and %d jobs", backend, c.slots, n)
		}
	}
}

// carryOut does what the plan asks for, as drivers do.
func (c *crowd) carryOut(effects []plan.Effect) {
	for _, e := range effects {
		switch e.Kind {
		case plan.Start:
			if c.waits[e.ID] == nil {
				c.Fatalf("job %s is started, and did not wait", e.ID)
			}
			delete(c.waits, e.ID)
			c.begin(e.ID, plan.Placement{Decision: route.Decision{Backend: e.Backend}})
		case plan.Reconsider:
			if wish := c.waits[e.ID]; wish != nil {
				c.try(e.ID, wish)
			}
		case plan.Unload:
			for id, p := range c.runs {
				if p.Decision.Backend == e.Backend {
					c.Fatalf("%s lets go of what job %s runs with", e.Backend, id)
				}
			}
		}
	}
}

// some returns one of the jobs that wait or run, if any do.
func some[V any](c *crowd, jobs map[string]V) (string, bool) {
	var ids []string
	for id := range jobs {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return "", false
	}
	slices.Sort(ids)
	return ids[c.rand.IntN(len(ids))], true
}

func (c *crowd) step(n int) {
	c.now = c.now.Add(time.Duration(c.rand.ExpFloat64() * 3 * float64(time.Second)))
	for next := c.Next(); !next.IsZero() && !next.After(c.now); next = c.Next() {
		c.carryOut(c.Tick(c.now))
	}
	switch c.rand.IntN(8) {
	case 0, 1, 2:
		id := fmt.Sprint(n)
		c.arrived[id] = c.now
		c.try(id, c.wish())
	case 3, 4, 5:
		if id, ok := some(c, c.runs); ok {
			c.end(id)
		}
	case 6:
		if id, ok := some(c, c.waits); ok && c.rand.IntN(4) == 0 {
			c.end(id)
		}
	case 7:
		c.tier = power.Tiers()[c.rand.IntN(6)]
		c.onBattery = c.tier.MoreCarefulThan(power.Mains)
		if c.rand.IntN(2) == 0 { // else whoever is placed next tells
			c.carryOut(c.Tier(c.now, c.tier, c.onBattery))
		}
	}
	if c.rand.IntN(700) == 0 {
		c.slots = min(c.slots+1, 3)
	}
}

func (c *crowd) end(id string) {
	delete(c.runs, id)
	delete(c.waits, id)
	c.ends[id]++
	c.carryOut(c.Ended(c.now, id, plan.Outcome{Usage: job.Usage{Tokens: 1 + c.rand.IntN(300)}, Failed: c.rand.IntN(5) == 0}))
}

// TestLaws: every job ends exactly once, a slot is one job's at a time, no GPU
// works where none may, nothing is let go that is at work, and the same events
// have the same outcome.
func TestLaws(t *testing.T) {
	for seed := range uint64(60) {
		var logs [2][]string
		for i := range logs {
			c := newCrowd(t, seed)
			for n := range 2000 {
				c.step(n)
			}
			// Once the plug is in, everything comes to its end.
			c.tier, c.onBattery = power.Mains, false
			c.carryOut(c.Tier(c.now, power.Mains, false))
			for range 5000 {
				id, ok := some(c, c.runs)
				if !ok {
					break
				}
				c.now = c.now.Add(time.Second)
				c.end(id)
			}
			if len(c.waits) > 0 || len(c.runs) > 0 {
				t.Fatalf("seed %d: %d jobs wait and %d run for ever", seed, len(c.waits), len(c.runs))
			}
			for id := range c.arrived {
				if c.ends[id] != 1 {
					t.Fatalf("seed %d: job %s ended %d times", seed, id, c.ends[id])
				}
			}
			logs[i] = c.log
		}
		if !slices.Equal(logs[0], logs[1]) {
			t.Fatalf("seed %d: the same events had another outcome", seed)
		}
	}
}
