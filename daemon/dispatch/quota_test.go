package dispatch_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/quota"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
)

// rationed are settings with that for each client, but for one called free.
func rationed(l quota.Limits) dispatch.Settings {
	s := gpuAsleep()
	s.Quota = quota.Rules{Each: l, Named: map[string]quota.Limits{"free": {Jobs: 1 << 30, PerMinute: 1 << 30, PerDay: power.Joules(1e12)}}}
	return s
}

// of returns a job of a client.
func of(client string) job.Job {
	j := chat()
	j.Client = client
	return j
}

// overLimit returns the error of a limit, or fails.
func overLimit(t *testing.T, err error) *job.Error {
	t.Helper()
	var e *job.Error
	if !errors.As(err, &e) || e.Code != job.OverLimit {
		t.Fatalf("got %v", err)
	}
	return e
}

// TestNoClientHasMoreThanItMay runs jobs of three clients on servers that fail at
// random, with clients that leave at random. None has ever more under way than it
// may, and each job ends exactly once.
func TestNoClientHasMoreThanItMay(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			limits := quota.Limits{Jobs: 1 + r.IntN(3), PerMinute: 2 + r.IntN(5)}
			h := newRig(t, func(h *rig) {
				for _, s := range []*server{h.npu, h.igpu, h.nvidia, h.cpu} {
					s.script = erratic(rand.New(rand.NewPCG(seed, r.Uint64())))
				}
			})
			h.Configure(rationed(limits))
			guests := make([]*guest, 90)
			stays := make([]stay, len(guests))
			var all sync.WaitGroup
			for i := range guests {
				g := someone(r)
				g.Client, g.Class = []string{"a", "b", "free"}[r.IntN(3)], job.Interactive
				guests[i] = g
				all.Go(func() { stays[i] = g.stay(t, h) })
			}
			all.Wait()
			refused := 0
			for i, s := range stays {
				if s.refused {
					refused++
				}
				if s.refused && (s.client == "free" || len(guests[i].routed) > 0) {
					t.Errorf("seed %d: %s is refused, and was sent to %v", seed, s.client, guests[i].routed)
				}
				if s.refused || s.client == "free" {
					continue
				}
				beside, since := 0, 0
				for _, other := range stays {
					if other.refused || other.client != s.client || other.from.After(s.from) {
						continue
					}
					if other.to.After(s.from) {
						beside++
					}
					if s.from.Sub(other.from) < time.Minute {
						since++
					}
				}
				if beside > limits.Jobs || since > limits.PerMinute {
					t.Errorf("seed %d: %s has %d under way and %d within a minute, of %+v", seed, s.client, beside, since, limits)
				}
			}
			if h.Running() != 0 || refused == 0 {
				t.Errorf("seed %d: %d never ended, %d were refused", seed, h.Running(), refused)
			}
		})
	}
}

// stay is when a client's job was under way, unless it was refused.
type stay struct {
	client   string
	from, to time.Time
	refused  bool
}

// stay runs the guest's job, and checks that it ends once.
func (g *guest) stay(t *testing.T, h *rig) stay {
	t.Helper()
	time.Sleep(g.comes)
	ctx, cancel := context.WithTimeout(t.Context(), g.leaves)
	defer cancel()
	s := stay{client: g.Client, from: time.Now()}
	err := h.Run(ctx, g.Job, &g.ends)
	s.to = time.Now()
	var e *job.Error
	s.refused = errors.As(err, &e) && e.Code == job.OverLimit
	if err == nil && g.last != 1 || err != nil && (g.last != 0 || e == nil) {
		t.Errorf("ended with %v after %d last chunks", err, g.last)
	}
	return s
}

// TestALimitDelaysNobodyElse has one client ask for far more than it may, and
// another once: that answer comes when it would if the first had kept to it.
func TestALimitDelaysNobodyElse(t *testing.T) {
	answered := func(flood int) (after time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			h := newRig(t, nil)
			h.Configure(rationed(quota.Limits{Jobs: 2}))
			var all sync.WaitGroup
			refused := 0
			var mu sync.Mutex
			for range flood {
				all.Go(func() {
					if err := h.Run(t.Context(), of("flood"), new(sink)); err != nil {
						mu.Lock()
						refused++
						mu.Unlock()
						if !errors.Is(err, job.OverLimit) {
							t.Error(err)
						}
					}
				})
			}
			synctest.Wait()
			if want := flood - 2; refused != want {
				t.Errorf("%d are refused, want %d", refused, want)
			}
			began := time.Now()
			if err := h.Run(t.Context(), of("other"), new(sink)); err != nil {
				t.Error(err)
			}
			after = time.Since(began)
			all.Wait()
			if err := h.Run(t.Context(), of("flood"), new(sink)); err != nil {
				t.Errorf("after they have ended: %v", err)
			}
		})
		return after
	}
	if modest, flood := answered(2), answered(500); modest != flood {
		t.Errorf("the other client is answered after %v, and %v beside a flood", modest, flood)
	}
}

func TestJoulesOfADayAreThoseOfTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t, nil)
		run := func(client string) error { return h.Run(t.Context(), of(client), new(sink)) }
		if err := run("a"); err != nil {
			t.Fatal(err)
		}
		one := h.entries[0].Cost.Energy
		if one <= 0 {
			t.Fatalf("a job takes %v", one)
		}
		h.earlier = []ledger.Entry{
			{Client: "a", Ended: time.Now(), Cost: power.Cost{Energy: one}},
			{Client: "a", Ended: time.Now().AddDate(0, 0, -1), Cost: power.Cost{Energy: 100 * one}},
		}
		// Two are spent: before the daemon began, and before there was a limit.
		h.Configure(rationed(quota.Limits{PerDay: 3*one + one/2}))
		for n := range 2 {
			if err := run("a"); err != nil {
				t.Errorf("job %d: %v", n, err)
			}
		}
		e := overLimit(t, run("a"))
		midnight := time.Date(time.Now().Year(), time.Now().Month(), time.Now().Day()+1, 0, 0, 0, 0, time.Local)
		if e.RetryAfter != time.Until(midnight) || !strings.Contains(e.Detail, "joules_per_day") {
			t.Errorf("got %v, again after %v", e, e.RetryAfter)
		}
		if err := run("b"); err != nil {
			t.Errorf("another client: %v", err)
		}
		time.Sleep(e.RetryAfter)
		if err := run("a"); err != nil {
			t.Errorf("when it was told to come again: %v", err)
		}
		if h.lookedUp != 1 {
			t.Errorf("it was looked up %d times", h.lookedUp)
		}
	})
}

func TestJoulesOfADayHaveTheTailsInThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h *rig
		h = newRig(t, func(r *rig) {
			r.metered.Sensors = []meter.Sensor{warming{time.Now(), time.Now().Add(10 * time.Second)}}
			r.metered.Tail = func(told meter.Tail) { h.Spent(told.Work.Client, told.More) }
		})
		h.meter.Start(t.Context())
		time.Sleep(10 * time.Second)
		run := func(client string) error { return h.Run(t.Context(), of(client), new(sink)) }
		h.earlier = []ledger.Entry{{Client: "early", Ended: time.Now(), Cost: power.Cost{Energy: 60 * power.Joule, Tail: 40 * power.Joule}}}
		h.Configure(rationed(quota.Limits{PerDay: 100 * power.Joule}))
		_ = overLimit(t, run("early"))
		if err := run("a"); err != nil {
			t.Fatal(err)
		}
		if took := h.entries[0].Cost.Energy; took != 60*power.Joule {
			t.Fatalf("the job took %v", took)
		}
		time.Sleep(3 * time.Second) // at 20 W, of which the tail is two
		_ = overLimit(t, run("a"))
		if err := run("b"); err != nil {
			t.Errorf("another client: %v", err)
		}
	})
}

func TestWithoutLimitsNothingIsLookedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t, nil)
		for range 20 {
			if err := h.Run(t.Context(), of("a"), new(sink)); err != nil {
				t.Fatal(err)
			}
		}
		if h.lookedUp != 0 {
			t.Errorf("it was looked up %d times", h.lookedUp)
		}
	})
}
