package plan_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/power"
)

// shop serves jobs, for as long as is predicted unless takes says otherwise.
type shop struct {
	*rig
	now    time.Time
	wishes map[string]func(*job.Job)
	came   map[string]time.Time
	where  map[string]string
	ends   map[string]time.Time // of those at work
	done   func(id string)
	takes  func(id string, predicted time.Duration) time.Duration
}

func newShop(t *testing.T, change func([]job.Candidate)) *shop {
	t.Helper()
	s := &shop{
		rig: newRig(t, power.Mains), now: at(0), wishes: make(map[string]func(*job.Job)), came: make(map[string]time.Time),
		where: make(map[string]string), ends: make(map[string]time.Time), done: func(string) {},
		takes: func(_ string, predicted time.Duration) time.Duration { return predicted },
	}
	s.change = change
	return s
}

// asks is a client's wish for an answer of that length.
func asks(client string, tokens int32, more ...func(*job.Job)) func(*job.Job) {
	return func(j *job.Job) {
		j.Client, j.Lengths = client, job.LengthsOf([]int32{tokens})
		for _, m := range more {
			m(j)
		}
	}
}

func (s *shop) come(id string, wish func(*job.Job)) {
	s.wishes[id], s.came[id] = wish, s.now
	s.try(id)
}

func (s *shop) try(id string) {
	ask := s.ask(id, s.came[id], s.wishes[id])
	p, err := s.Place(s.now, ask)
	if err != nil {
		s.Fatalf("job %s: %v", id, err)
	}
	s.where[id] = p.Decision.Backend
	if p.Started {
		s.begin(id, p.Decision.Backend)
	}
	s.carryOut(p.Effects)
}

func (s *shop) begin(id, backend string) {
	ask := s.ask(id, s.came[id], s.wishes[id])
	for i := range ask.Candidates {
		if c := &ask.Candidates[i]; c.ID == backend {
			s.ends[id] = s.now.Add(s.takes(id, c.Estimate(&ask.Job, ask.Job.Lengths.Mean()).Total))
		}
	}
}

func (s *shop) carryOut(effects []plan.Effect) {
	for _, e := range effects {
		switch e.Kind {
		case plan.Start:
			s.begin(e.ID, e.Backend)
		case plan.Reconsider:
			s.try(e.ID)
		case plan.Unload:
		}
	}
}

// until lets everything happen that does before then.
func (s *shop) until(then time.Time) {
	for {
		first, id := then, ""
		for each, end := range s.ends {
			if end.Before(first) || end.Equal(first) && each < id {
				first, id = end, each
			}
		}
		next := s.Next()
		switch {
		case !next.IsZero() && next.Before(first):
			s.now = next
			s.carryOut(s.Tick(next))
		case id != "":
			s.now = first
			delete(s.ends, id)
			s.carryOut(s.Ended(first, id, plan.Outcome{Usage: job.Usage{Tokens: 100}}))
			s.done(id)
		default:
			s.now = then
			return
		}
	}
}

// TestBackgroundJobsDoNotStarve has more asked by people who wait than there is
// time for, for three hours: who has nobody waiting is served in time even so.
func TestBackgroundJobsDoNotStarve(t *testing.T) {
	s := newShop(t, nil)
	served, late := 0, time.Duration(0)
	s.done = func(id string) {
		if id[0] == 'b' {
			served++
			late = max(late, s.now.Sub(s.came[id]))
		}
	}
	came := 0
	for n := range 1200 { // each takes ten seconds, and comes after nine
		s.come(fmt.Sprintf("i%04d", n), asks("chat", 200, func(j *job.Job) { j.Target = "igpu" }))
		if n%20 == 0 {
			came++
			s.come(fmt.Sprintf("b%04d", n), asks("indexer", 200, background, func(j *job.Job) { j.Target = "igpu" }))
		}
		s.until(s.now.Add(9 * time.Second))
	}
	s.until(s.now.Add(20 * time.Minute))
	// They are due after 5 min and 2 s for each token.
	due := 5*time.Minute + 400*time.Second
	t.Logf("%d of %d were served, within %v; they were due within %v", served, came, late, due)
	if served != came || late > due {
		t.Errorf("%d of %d were served, the last after %v, due within %v", served, came, late, due)
	}
}

// TestClientsHaveTheirShare has two clients ask for more than there is, the one
// for many short answers and the other for few long ones, which take longer than
// was predicted. What counts is how long they were at work.
func TestClientsHaveTheirShare(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		s := newShop(t, nil)
		tokens := map[string]int32{"brief": 20 + r.Int32N(40), "verbose": 100 + r.Int32N(400)}
		had, of, n := map[string]float64{}, map[string]string{}, 0
		more := func(client string) {
			id := fmt.Sprintf("%05d", n)
			n++
			of[id] = client
			s.come(id, asks(client, tokens[client], func(j *job.Job) { j.Target = "igpu" }))
		}
		s.takes = func(id string, predicted time.Duration) time.Duration {
			if of[id] == "verbose" {
				predicted += predicted / 2
			}
			had[of[id]] += predicted.Seconds()
			return predicted
		}
		s.done = func(id string) { more(of[id]) }
		for range 3 { // of each, one at work at most and some in line
			more("brief")
			more("verbose")
		}
		s.until(at(2 * 3600))
		if off := math.Abs(had["brief"]/had["verbose"] - 1); off > 0.1 {
			t.Errorf("seed %d: with answers of %v tokens they had %v seconds, %.0f %% off", seed, tokens, had, 100*off)
		}
	}
}

// TestInstancesOfAClassShareTheLoad has jobs of any length come to two servers
// that are alike: each goes where it is done first, by what is ahead of it.
func TestInstancesOfAClassShareTheLoad(t *testing.T) {
	twins := func(c []job.Candidate) {
		c[0] = c[1]
		c[0].ID, c[1].ID = "igpu-1", "igpu-2"
		model := *c[1].Model
		c[0].Model, c[2].Healthy = &model, false
	}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 8))
		s := newShop(t, twins)
		tokens, load := map[string]int32{}, map[string]float64{}
		// left is what is to do there, in seconds: two at the least where a job is
		// at work, since none is believed to end at once.
		left := func(backend string) (sum float64) {
			for id, where := range s.where {
				if end, works := s.ends[id]; where == backend && works {
					sum += end.Sub(s.now).Seconds()
				} else if where == backend {
					sum += float64(tokens[id]) / 20
				}
			}
			if sum > 0 {
				sum = max(sum, 2)
			}
			return sum
		}
		s.done = func(id string) { delete(s.where, id) }
		for n := range 300 {
			id := fmt.Sprintf("%03d", n)
			tokens[id] = 20 + r.Int32N(400)
			one, two := left("igpu-1"), left("igpu-2")
			// Of equal patience, so that nobody goes before who came earlier.
			s.come(id, asks("a", tokens[id], func(j *job.Job) { j.Deadline = time.Hour }))
			load[s.where[id]] += float64(tokens[id])
			if chosen := s.where[id]; chosen == "igpu-1" && one > two+1e-6 || chosen == "igpu-2" && two > one+1e-6 {
				t.Fatalf("seed %d: job %d goes to %s, where there are %.1f s and %.1f s to do", seed, n, chosen, one, two)
			}
			s.until(s.now.Add(time.Duration(r.ExpFloat64() * 6 * float64(time.Second))))
		}
		if share := load["igpu-1"] / (load["igpu-1"] + load["igpu-2"]); math.Abs(share-0.5) > 0.05 {
			t.Errorf("seed %d: the one had %.0f %% of it", seed, 100*share)
		}
	}
}
