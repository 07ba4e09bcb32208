package queue_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/queue"
)

// replay is backends that work off a queue in virtual time, while jobs come.
type replay struct {
	t       *testing.T
	q       *queue.Queue
	now     time.Time
	tickets map[string]queue.Ticket
	entered map[string]time.Time
	working map[string]time.Time // when they end, by id
	takes   func(queue.Ticket) time.Duration
	// had is the time of backends that each client's jobs have had, and wait
	// for how long each job did.
	had  map[string]time.Duration
	wait map[string]time.Duration
	log  []string // who got a slot when
}

// newReplay returns one with so many slots on the gpu. Work takes as long as
// was predicted unless takes says otherwise.
func newReplay(t *testing.T, most, slots int) *replay {
	t.Helper()
	r := &replay{
		t: t, q: queue.New(most), now: start,
		tickets: map[string]queue.Ticket{},
		entered: map[string]time.Time{},
		working: map[string]time.Time{},
		takes:   func(t queue.Ticket) time.Duration { return t.Work },
		had:     map[string]time.Duration{},
		wait:    map[string]time.Duration{},
	}
	r.began(r.q.Slots(start, gpu, slots))
	return r
}

// enter lets a job in, if there is a place.
func (r *replay) enter(t queue.Ticket) {
	leased, err := r.q.Enter(r.now, t)
	if err != nil {
		return
	}
	r.tickets[t.ID], r.entered[t.ID] = t, r.now
	if leased {
		r.began([]string{t.ID})
	}
}

// began takes note of who got a slot.
func (r *replay) began(ids []string) {
	for _, id := range ids {
		t, ok := r.tickets[id]
		_, twice := r.wait[id]
		if !ok || twice {
			r.t.Fatalf("%s got a slot; known %v, before %v", id, ok, twice)
		}
		takes := r.takes(t)
		r.wait[id], r.working[id] = r.now.Sub(r.entered[id]), r.now.Add(takes)
		r.had[t.Client] += takes
		r.log = append(r.log, fmt.Sprint(r.now.Sub(start), " ", id))
	}
}

// step goes on to when the next job ends, but not beyond until, and reports
// whether one did.
func (r *replay) step(until time.Time) bool {
	first, end := "", until
	for id, e := range r.working {
		if e.Before(end) || e.Equal(end) && (first == "" || id < first) {
			first, end = id, e
		}
	}
	r.now = end
	if first == "" {
		return false
	}
	delete(r.working, first)
	r.began(r.q.Leave(r.now, first))
	return true
}

// run goes on until then.
func (r *replay) run(until time.Time) {
	for r.step(until) {
		continue
	}
}

// poisson calls enter at random, so often per second on average, for as long.
func (r *replay) poisson(random *rand.Rand, rate float64, long time.Duration, enter func(n int)) {
	end := r.now.Add(long)
	for n := 0; ; n++ {
		next := r.now.Add(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
		if next.After(end) {
			return
		}
		r.run(next)
		enter(n)
	}
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// seconds returns a random span up to so many seconds.
func seconds(random *rand.Rand, most float64) time.Duration {
	return time.Duration(random.Float64() * most * float64(time.Second))
}

func TestBackgroundRunsWhereThereIsRoom(t *testing.T) {
	r, random := newReplay(t, 1000, 1), seeded(1)
	r.poisson(random, 0.08, 12*time.Hour, func(n int) { // 0.08/s × 10 s: a fifth of the time is left
		r.enter(chat("chat", fmt.Sprint("chat", n)))
		if n%20 == 0 {
			r.enter(chat("batch", fmt.Sprint("batch", n), background))
		}
	})
	r.run(r.now.Add(time.Hour))
	for id := range r.entered {
		if w, ok := r.wait[id]; !ok || w > time.Hour {
			t.Errorf("%s waited %v, began %v", id, w, ok)
		}
	}
}

func TestPromotedJobsRunWhereThereIsNone(t *testing.T) {
	for _, who := range []string{"batch", "chat0"} { // a client of its own, and one that overloads too
		const patience, line = 10 * time.Minute, 60
		r, random := newReplay(t, line, 1), seeded(2)
		r.poisson(random, 0.2, 12*time.Hour, func(n int) { // twice what can be done
			client := fmt.Sprint("chat", n%3)
			r.enter(chat(client, fmt.Sprint(client, "-", n), func(t *queue.Ticket) { t.Due = r.now.Add(time.Minute) }))
			if n%40 == 0 {
				r.enter(chat(who, fmt.Sprint("background", n), background, func(t *queue.Ticket) { t.Promote = r.now.Add(patience) }))
			}
		})
		// The line may be full of its client's jobs that were due sooner, and
		// that client has a turn in three.
		most := patience + (line+5)*3*10*time.Second
		for id, entered := range r.entered {
			if w, ok := r.wait[id]; strings.HasPrefix(id, "background") && (w > most || !ok && r.now.Sub(entered) > most) {
				t.Errorf("%s of %s waited %v, began %v", id, who, w, ok)
			}
		}
	}
}

func TestNewcomersStarveNobody(t *testing.T) {
	const line = 40
	r, random := newReplay(t, line, 1), seeded(3)
	old := 0
	r.poisson(random, 0.2, 12*time.Hour, func(n int) { // twice what can be done
		r.enter(chat(fmt.Sprint("new", n), fmt.Sprint("new", n)))
		last := fmt.Sprint("old", old)
		if _, waits := r.entered[last]; !waits || r.wait[last] > 0 {
			old++
			r.enter(chat("old", fmt.Sprint("old", old)))
		}
	})
	// Each of those in the line has its share, or half of it at the worst:
	// newcomers who have waited advance virtual time by less than they had.
	most := 2 * (line + 1) * 10 * time.Second
	for id, entered := range r.entered {
		if w, ok := r.wait[id]; strings.HasPrefix(id, "old") && (w > most || !ok && r.now.Sub(entered) > most) {
			t.Errorf("%s waited %v, began %v", id, w, ok)
		}
	}
}

func TestFairBetweenTwoClients(t *testing.T) {
	for _, c := range []struct {
		rule  string
		slots int
		a, b  float64 // up to how long their jobs work
		error float64 // up to how many times longer than predicted
		other bool    // others come and go
	}{
		{"jobs of one size", 1, 10, 10, 1, false},
		{"short ones against long ones", 1, 2, 60, 1, false},
		{"several slots", 3, 5, 30, 1, false},
		{"predictions are wrong", 2, 10, 30, 4, false},
		{"others come and go", 1, 5, 30, 1, true},
		{"all of it", 3, 5, 30, 4, true},
	} {
		r, random := newReplay(t, 1000, c.slots), seeded(4)
		r.takes = func(t queue.Ticket) time.Duration {
			return time.Duration(float64(t.Work) * (1 + random.Float64()*(c.error-1)))
		}
		n := 0
		demand := func(client string, most float64) {
			n++
			r.enter(chat(client, fmt.Sprint(client, n), func(t *queue.Ticket) { t.Work = seconds(random, most) }))
		}
		for range 10 {
			demand("a", c.a)
			demand("b", c.b)
		}
		for range 6_000 {
			served := len(r.log)
			r.step(r.now.Add(time.Hour))
			for _, line := range r.log[served:] { // who got a slot asks for another
				switch _, id, _ := strings.Cut(line, " "); id[0] {
				case 'a':
					demand("a", c.a)
				case 'b':
					demand("b", c.b)
				}
			}
			if c.other && random.IntN(4) == 0 {
				demand(fmt.Sprint("other", random.IntN(5)), 20)
			}
		}
		if ratio := r.had["a"].Seconds() / r.had["b"].Seconds(); ratio < 0.9 || ratio > 1.1 {
			t.Errorf("%s: a had %.2f of what b had", c.rule, ratio)
		}
	}
}

// crowd fills a queue at random and returns the replay.
func crowd(t *testing.T, random *rand.Rand, slots int) *replay {
	t.Helper()
	r := newReplay(t, 1000, slots)
	for n := range random.IntN(40) {
		r.enter(anyone(random, fmt.Sprint("job", n), r.now))
		if random.IntN(3) == 0 {
			r.run(r.now.Add(seconds(random, 20)))
		}
	}
	return r
}

// anyone returns a random job.
func anyone(random *rand.Rand, id string, now time.Time) queue.Ticket {
	client := fmt.Sprint("client", random.IntN(1+random.IntN(8)))
	j := chat(client, id, func(t *queue.Ticket) { t.Work = seconds(random, 10) })
	if random.IntN(2) == 0 {
		j.Class, j.Work = job.Background, seconds(random, 40)
		if random.IntN(2) == 0 {
			j.Promote = now.Add(seconds(random, 300))
		}
	}
	if random.IntN(3) > 0 {
		j.Due = now.Add(seconds(random, 120))
	}
	return j
}

func TestAheadIsNeverLessThanTheWait(t *testing.T) {
	for seed := range uint64(3000) {
		random := seeded(seed)
		r := crowd(t, random, 1+int(seed)%2)
		x := anyone(random, "x", r.now)
		ahead := r.q.Ahead(r.now, x)
		r.enter(x)
		standing := r.q.Ahead(r.now, x)
		r.run(r.now.Add(time.Hour))
		if w := r.wait["x"]; w > ahead || w > standing {
			t.Fatalf("seed %d: %+v was to wait %v, then %v, and waited %v", seed, x, ahead, standing, w)
		}
	}
}

func TestAheadIsExactForAClientAlone(t *testing.T) {
	for seed := range uint64(300) {
		random := seeded(seed)
		r := newReplay(t, 1000, 1)
		alone := func(id string) queue.Ticket {
			j := anyone(random, id, r.now)
			j.Client, j.Promote = "alone", time.Time{}
			return j
		}
		for n := range 20 {
			r.enter(alone(fmt.Sprint(n)))
		}
		r.run(start.Add(seconds(random, 60)))
		x := alone("x")
		ahead := r.q.Ahead(r.now, x)
		r.enter(x)
		standing := r.q.Ahead(r.now, x)
		r.run(r.now.Add(time.Hour))
		if w := r.wait["x"]; w != ahead || w != standing {
			t.Fatalf("seed %d: %+v was to wait %v, then %v, and waited %v", seed, x, ahead, standing, w)
		}
	}
}

func TestAheadIsMonotone(t *testing.T) {
	for seed := range uint64(1000) {
		random := seeded(seed)
		r := crowd(t, random, 1)
		x, y := anyone(random, "x", r.now), anyone(random, "y", r.now)
		for _, c := range []struct {
			rule        string
			less, more  queue.Ticket
			before, end func()
		}{
			{rule: "to be due later is not sooner", less: with(x, due(1)), more: x},
			{rule: "nor is to be due never", less: x, more: with(x, func(t *queue.Ticket) { t.Due = time.Time{} })},
			{rule: "nor to be waited for by nobody", less: with(x, func(t *queue.Ticket) { t.Class = job.Interactive }), more: with(x, background)},
			{rule: "nor to come after another", less: x, more: x, before: func() { r.enter(y) }},
		} {
			less := r.q.Ahead(r.now, c.less)
			if c.before != nil {
				c.before()
			}
			if more := r.q.Ahead(r.now, c.more); more < less {
				t.Fatalf("seed %d: %s: %v, then %v", seed, c.rule, less, more)
			}
		}
		before := r.q.Ahead(r.now, x)
		r.q.Leave(r.now, "y")
		if after := r.q.Ahead(r.now, x); after > before {
			t.Fatalf("seed %d: one less ahead is not later: %v, then %v", seed, before, after)
		}
	}
}

func with(t queue.Ticket, change func(*queue.Ticket)) queue.Ticket {
	change(&t)
	return t
}

// witness plays a queue's caller at random and checks what is always true.
type witness struct {
	t       *testing.T
	random  *rand.Rand
	q       *queue.Queue
	now     time.Time
	slots   map[string]int
	tickets map[string]queue.Ticket
	waits   []string
	works   []string
	gone    []string
	log     strings.Builder
}

func (w *witness) event(n int) {
	w.now = w.now.Add(seconds(w.random, 3))
	switch k := w.random.IntN(100); {
	case k < 45:
		w.enter(anyone(w.random, fmt.Sprint("job", n), w.now))
	case k < 70 && len(w.works) > 0:
		w.leave(&w.works)
	case k < 80 && len(w.waits) > 0:
		w.leave(&w.waits)
	case k < 84 && len(w.gone) > 0:
		expect(w.t, "gone", w.q.Leave(w.now, w.gone[w.random.IntN(len(w.gone))]))
	case k < 85:
		expect(w.t, "unknown", w.q.Leave(w.now, "stranger"))
	case k < 92 && len(w.waits) > 0:
		w.move(w.waits[w.random.IntN(len(w.waits))])
	case k < 96:
		backend := w.backend()
		w.slots[backend] = 1 + w.random.IntN(4)
		w.leased(w.q.Slots(w.now, backend, w.slots[backend])...)
	default:
		w.review()
	}
	w.check()
}

func (w *witness) backend() string { return []string{gpu, npu}[w.random.IntN(2)] }

// somewhere gives a job a backend, or none.
func (w *witness) somewhere(j *queue.Ticket) {
	j.Backend = w.backend()
	if w.random.IntN(6) == 0 {
		j.Backend = ""
	}
	if w.random.IntN(2) == 0 {
		j.Review = w.now.Add(seconds(w.random, 60))
	}
}

func (w *witness) enter(j queue.Ticket) {
	w.somewhere(&j)
	leased, err := w.q.Enter(w.now, j)
	if err != nil {
		w.gone = append(w.gone, j.ID)
		return
	}
	w.tickets[j.ID], w.waits = j, append(w.waits, j.ID)
	if leased {
		w.leased(j.ID)
	}
}

func (w *witness) leave(from *[]string) {
	i := w.random.IntN(len(*from))
	id := (*from)[i]
	*from = slices.Delete(*from, i, i+1)
	w.gone = append(w.gone, id)
	w.leased(w.q.Leave(w.now, id)...)
	delete(w.tickets, id)
}

func (w *witness) move(id string) {
	j := w.tickets[id]
	w.somewhere(&j)
	w.tickets[id] = j
	if w.q.Move(w.now, j) {
		w.leased(id)
	}
}

func (w *witness) review() {
	for _, id := range w.q.Review(w.now) {
		if j := w.tickets[id]; !slices.Contains(w.waits, id) || j.Review.IsZero() || j.Review.After(w.now) {
			w.t.Fatalf("%s is to be thought over at %v, which is %v", id, j.Review, w.now)
		}
	}
	if next := w.q.Next(); !next.IsZero() && !next.After(w.now) {
		w.t.Fatalf("next is %v, which has passed", next)
	}
}

// leased takes note of who got a slot, which only those get who wait.
func (w *witness) leased(ids ...string) {
	for _, id := range ids {
		i := slices.Index(w.waits, id)
		if i < 0 {
			w.t.Fatalf("%s got a slot and did not wait", id)
		}
		backend := w.tickets[id].Backend
		if w.q.AtWork(backend) > w.slots[backend] {
			w.t.Fatalf("%s got one of %d slots, %d are at work", id, w.slots[backend], w.q.AtWork(backend))
		}
		w.waits = slices.Delete(w.waits, i, i+1)
		w.works = append(w.works, id)
		fmt.Fprintln(&w.log, id)
	}
}

func (w *witness) check() {
	waits := len(w.q.Parked())
	for backend, slots := range w.slots {
		line := w.q.Waiting(backend, job.Interactive) + w.q.Waiting(backend, job.Background)
		if line > 0 && w.q.AtWork(backend) < slots {
			w.t.Fatalf("%d wait and %d work in %d slots of %s", line, w.q.AtWork(backend), slots, backend)
		}
		waits += line
	}
	if works := w.q.AtWork(gpu) + w.q.AtWork(npu); works != len(w.works) || waits != len(w.waits) {
		w.t.Fatalf("%d wait and %d work; want %d and %d", waits, works, len(w.waits), len(w.works))
	}
}

func TestWhateverHappens(t *testing.T) {
	play := func(seed uint64) string {
		w := &witness{
			t: t, random: seeded(seed), q: queue.New(25), now: start,
			slots:   map[string]int{gpu: 1, npu: 1},
			tickets: map[string]queue.Ticket{},
		}
		for n := range 25_000 {
			w.event(n)
		}
		for len(w.works)+len(w.waits) > 0 { // everyone leaves in the end
			from := &w.works
			if len(w.works) == 0 {
				from = &w.waits // parked
			}
			w.leave(from)
			w.check()
		}
		return w.log.String()
	}
	for seed := range uint64(4) {
		if log := play(seed); seed == 0 && log != play(seed) {
			t.Error("the same events had another outcome")
		}
	}
}

func TestOfAClientsJobsTheOneDueFirst(t *testing.T) {
	for seed := range uint64(200) {
		random, q := seeded(seed), queue.New(100)
		enter(t, q, start, chat("other", "first"))
		tickets := map[string]queue.Ticket{}
		for n := range 50 {
			j := anyone(random, fmt.Sprint(n), start)
			j.Class = job.Interactive
			tickets[j.ID] = j
			enter(t, q, start, j)
		}
		last := map[string]queue.Ticket{}
		for id := range strings.FieldsSeq(serve(q, start, "first")) {
			j := tickets[id]
			if l, ok := last[j.Client]; ok && (l.Due.IsZero() && !j.Due.IsZero() || !j.Due.IsZero() && j.Due.Before(l.Due)) {
				t.Fatalf("seed %d: %s, due %v, after %s, due %v", seed, id, j.Due, l.ID, l.Due)
			}
			last[j.Client] = j
		}
	}
}

// crowded returns a queue of which so many wait, of a tenth as many clients.
func crowded(b *testing.B, waiting int) *queue.Queue {
	b.Helper()
	random, q := seeded(5), queue.New(2*waiting+10)
	for n := range waiting + 1 {
		j := anyone(random, fmt.Sprint("job", n), start)
		j.Client = fmt.Sprint("client", random.IntN(1+waiting/10))
		j.Review = start.Add(seconds(random, 600))
		if _, err := q.Enter(start, j); err != nil {
			b.Fatal(err)
		}
	}
	return q
}

func BenchmarkQueue(b *testing.B) {
	for _, waiting := range []int{10, 1000, 100_000} {
		random := seeded(6)
		jobs := make([]queue.Ticket, 1000)
		for n := range jobs {
			jobs[n] = anyone(random, fmt.Sprint("new", n), start)
			jobs[n].Client = fmt.Sprint("client", random.IntN(1+waiting/10))
			jobs[n].Review = start.Add(seconds(random, 600))
		}
		b.Run(fmt.Sprint("EnterLeave/", waiting), func(b *testing.B) {
			q := crowded(b, waiting)
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				j := jobs[n%len(jobs)]
				_, _ = q.Enter(start, j)
				q.Leave(start, j.ID)
			}
		})
		b.Run(fmt.Sprint("Ahead/", waiting), func(b *testing.B) {
			q := crowded(b, waiting)
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				q.Ahead(start, jobs[n%len(jobs)])
			}
		})
		b.Run(fmt.Sprint("Next/", waiting), func(b *testing.B) { // a slot that frees is given on
			q := crowded(b, waiting)
			works := "job0"
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				next := q.Leave(start, works)
				works = next[0]
				j := jobs[n%len(jobs)]
				j.ID = fmt.Sprint("more", n)
				_, _ = q.Enter(start, j)
			}
		})
	}
}
