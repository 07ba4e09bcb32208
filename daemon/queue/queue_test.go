package queue_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/queue"
)

// start is when the tests begin.
var start = time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)

// at returns the moment so many seconds after start.
func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

const gpu, npu = "gpu", "npu"

// chat returns an interactive job on the gpu with ten seconds of work.
func chat(client, id string, more ...func(*queue.Ticket)) queue.Ticket {
	t := queue.Ticket{ID: id, Client: client, Class: job.Interactive, Backend: gpu, Work: 10 * time.Second}
	for _, m := range more {
		m(&t)
	}
	return t
}

func background(t *queue.Ticket) { t.Class = job.Background }
func parked(t *queue.Ticket)     { t.Backend = "" }
func onNPU(t *queue.Ticket)      { t.Backend = npu }

func due(seconds float64) func(*queue.Ticket) {
	return func(t *queue.Ticket) { t.Due = at(seconds) }
}

func promoted(seconds float64) func(*queue.Ticket) {
	return func(t *queue.Ticket) { t.Promote = at(seconds) }
}

func review(seconds float64) func(*queue.Ticket) {
	return func(t *queue.Ticket) { t.Review = at(seconds) }
}

func works(seconds float64) func(*queue.Ticket) {
	return func(t *queue.Ticket) { t.Work = time.Duration(seconds * float64(time.Second)) }
}

// enter lets jobs in, in order, and returns those that got a slot.
func enter(t *testing.T, q *queue.Queue, now time.Time, jobs ...queue.Ticket) (leased []string) {
	t.Helper()
	for _, j := range jobs {
		got, err := q.Enter(now, j)
		if err != nil {
			t.Fatal(err)
		}
		if got {
			leased = append(leased, j.ID)
		}
	}
	return leased
}

// serve ends whoever works after ten seconds, again and again, and returns who
// got the slot in turn.
func serve(q *queue.Queue, now time.Time, working string) string {
	var order []string
	for {
		now = now.Add(10 * time.Second)
		next := q.Leave(now, working)
		if len(next) == 0 {
			return strings.Join(order, " ")
		}
		working = next[0]
		order = append(order, working)
	}
}

func TestWhoIsNext(t *testing.T) {
	for _, c := range []struct {
		rule string
		jobs []queue.Ticket
		want string
	}{
		{
			"in order of arrival, if nothing else is known",
			[]queue.Ticket{chat("a", "1"), chat("a", "2"), chat("a", "3")},
			"1 2 3",
		},
		{
			"who is waited for goes before who is not",
			[]queue.Ticket{chat("a", "1", background), chat("a", "2"), chat("b", "3", background), chat("b", "4")},
			"2 4 1 3",
		},
		{
			"who says no class is waited for",
			[]queue.Ticket{chat("a", "1", background), chat("a", "2", func(t *queue.Ticket) { t.Class = "" })},
			"2 1",
		},
		{
			"clients take turns",
			[]queue.Ticket{chat("a", "a1"), chat("a", "a2"), chat("a", "a3"), chat("b", "b1"), chat("b", "b2")},
			"a1 b1 a2 b2 a3",
		},
		{
			"by work, not by number",
			[]queue.Ticket{
				chat("a", "a1", works(30)), chat("a", "a2"),
				chat("b", "b1"), chat("b", "b2"), chat("b", "b3"), chat("b", "b4"),
			},
			// a1 took no more than b1 after all, which makes up for a2.
			"a1 b1 a2 b2 b3 b4",
		},
		{
			"of a client's jobs the one due first, and last what is never due",
			[]queue.Ticket{chat("a", "1"), chat("a", "2", due(90)), chat("a", "3", due(60)), chat("a", "4", due(90))},
			"3 2 4 1",
		},
		{
			"a due time gets no client ahead of another",
			[]queue.Ticket{chat("a", "a1", due(90)), chat("b", "b1", due(50)), chat("b", "b2", due(60))},
			"a1 b1 b2",
		},
		{
			"background jobs that have waited long enough go as if they were waited for",
			[]queue.Ticket{chat("a", "1"), chat("b", "2", background, promoted(25)), chat("a", "3"), chat("a", "4"), chat("a", "5")},
			"1 3 2 4 5",
		},
		{
			"even before their own client's",
			[]queue.Ticket{chat("a", "1", due(40)), chat("a", "2", background, promoted(15)), chat("a", "3", due(60)), chat("a", "4", due(70))},
			"1 2 3 4",
		},
		{
			"until then they are not",
			[]queue.Ticket{chat("a", "1"), chat("b", "2", background, promoted(900)), chat("a", "3")},
			"1 3 2",
		},
	} {
		q := queue.New(100)
		enter(t, q, start, chat("other", "first"))
		if leased := enter(t, q, start, c.jobs...); leased != nil {
			t.Errorf("%s: %v got a slot that is taken", c.rule, leased)
		}
		if got := serve(q, start, "first"); got != c.want {
			t.Errorf("%s: got %s, want %s", c.rule, got, c.want)
		}
	}
}

func TestIdleTimeEarnsNoCredit(t *testing.T) {
	q := queue.New(100)
	enter(t, q, start, chat("a", "a0"), chat("a", "a1"), chat("b", "b0"))
	q.Leave(at(10), "a0") // b0, who has had nothing
	q.Leave(at(20), "b0") // a1
	for i, id := range []string{"a2", "a3", "a4", "a5"} {
		enter(t, q, at(20+float64(i)), chat("a", id))
	}
	q.Leave(at(30), "a1")
	q.Leave(at(40), "a2")
	enter(t, q, at(41), chat("b", "b1"), chat("b", "b2"), chat("b", "b3"))
	if got := serve(q, at(40), "a3"); got != "b1 a4 b2 a5 b3" {
		t.Errorf("got %s", got)
	}
}

func TestWhatAClientHasHadIsRemembered(t *testing.T) {
	q := queue.New(100)
	enter(t, q, start, chat("a", "a0", works(30)), chat("b", "b1"), chat("b", "b2"), chat("b", "b3"))
	q.Leave(at(30), "a0")
	enter(t, q, at(31), chat("a", "a1"))
	if got := serve(q, at(30), "b1"); got != "b2 b3 a1" {
		t.Errorf("got %s", got)
	}
}

func TestNobodyOwesOnceAllIsQuiet(t *testing.T) {
	q := queue.New(100)
	q.Slots(start, gpu, 4)
	enter(t, q, start, chat("a", "a0", works(11)), chat("b", "b1"), chat("b", "b2"), chat("b", "b3"))
	for _, id := range []string{"b1", "b2", "b3"} {
		q.Leave(at(10), id)
	}
	q.Leave(at(11), "a0")
	q.Slots(at(11), gpu, 1)
	enter(t, q, at(60), chat("c", "c0"), chat("b", "b4"), chat("d", "d0"))
	if got := serve(q, at(60), "c0"); got != "b4 d0" {
		t.Errorf("got %s", got)
	}
}

func TestSlots(t *testing.T) {
	q := queue.New(100)
	q.Slots(start, gpu, 2)
	jobs := []queue.Ticket{chat("a", "1"), chat("a", "2"), chat("a", "3"), chat("a", "4"), chat("a", "5"), chat("a", "6")}
	expect(t, "as many as there are slots", enter(t, q, start, jobs...), "1", "2")
	expect(t, "a slot that frees is given on", q.Leave(at(1), "2"), "3")
	expect(t, "more slots", q.Slots(at(2), gpu, 4), "4", "5")
	expect(t, "fewer take none away", q.Slots(at(3), gpu, 0))
	if n := q.AtWork(gpu); n != 4 || q.AtWork("nowhere") != 0 {
		t.Errorf("%d at work", n)
	}
	for _, id := range []string{"1", "3", "4"} {
		expect(t, "nor give one", q.Leave(at(4), id))
	}
	expect(t, "before there is one", q.Leave(at(5), "5"), "6")
	expect(t, "another backend has its own", enter(t, q, at(6), chat("a", "7", onNPU), chat("a", "8", onNPU)), "7")
}

func TestJobsEndOnce(t *testing.T) {
	q := queue.New(100)
	enter(t, q, start, chat("a", "1"), chat("a", "2"), chat("a", "3"), chat("a", "4"))
	if _, err := q.Enter(start, chat("b", "2")); err == nil {
		t.Error("a job entered twice")
	}
	expect(t, "who never came", q.Leave(at(1), "stranger"))
	expect(t, "who waits frees no slot", q.Leave(at(1), "2"))
	expect(t, "a lease", q.Leave(at(2), "1"), "3")
	expect(t, "a lease that has ended", q.Leave(at(2), "1"))
	expect(t, "a wait that has ended", q.Leave(at(2), "2"))
	if n := q.AtWork(gpu); n != 1 {
		t.Errorf("%d at work", n)
	}
}

func TestMove(t *testing.T) {
	q := queue.New(100)
	enter(t, q, start, chat("a", "1"), chat("a", "2"), chat("a", "3"), chat("b", "4", onNPU), chat("a", "5", onNPU))
	if q.Move(at(1), chat("a", "1", onNPU)) || q.AtWork(gpu) != 1 {
		t.Error("a lease was moved")
	}
	if q.Move(at(1), chat("a", "stranger")) {
		t.Error("a stranger was moved in")
	}
	if q.Move(at(1), chat("a", "2", onNPU)) {
		t.Error("a slot that is taken was given")
	}
	if got := serve(q, at(10), "4"); got != "2 5" {
		t.Errorf("its place is by arrival: got %s, want 2 5", got)
	}
	if !q.Move(at(100), chat("a", "3", onNPU)) {
		t.Error("a free slot was not given")
	}
}

func TestParked(t *testing.T) {
	q := queue.New(100)
	enter(t, q, start, chat("a", "1", background, parked), chat("a", "2"), chat("a", "3", background), chat("a", "4", background, parked))
	q.Move(at(1), chat("a", "3", background, parked))
	expect(t, "in order of arrival", q.Parked(), "1", "3", "4")
	expect(t, "no slot is theirs", q.Leave(at(2), "2"))
	for _, id := range q.Parked() {
		if got := q.Move(at(3), chat("a", id, background)); got != (id == "1") {
			t.Errorf("%s got a slot: %v", id, got)
		}
	}
	if n := q.Waiting(gpu, job.Background); n != 2 || q.Waiting(gpu, job.Interactive) != 0 {
		t.Errorf("%d wait", n)
	}
	q.Leave(at(4), "3")
	if n := q.Waiting(gpu, job.Background); n != 1 {
		t.Errorf("%d wait after one has left", n)
	}
}

func TestBusy(t *testing.T) {
	fill := func(q *queue.Queue) {
		enter(t, q, start, chat("a", "1", works(40)), chat("a", "2"), chat("a", "3"),
			chat("a", "4", background), chat("a", "5", background, parked))
	}
	for _, c := range []struct {
		rule  string
		job   queue.Ticket
		retry time.Duration // of a refusal
	}{
		{"one too many comes again when a slot is free", chat("b", "6"), 30 * time.Second},
		{"of background jobs, too", chat("b", "6", background), 30 * time.Second},
		{"which count while they are parked", chat("b", "6", background, parked), time.Minute},
		{"who need not wait is welcome", chat("b", "6", onNPU), 0},
	} {
		q := queue.New(2)
		fill(q)
		_, err := q.Enter(at(10), c.job)
		var e *job.Error
		if errors.As(err, &e) != (c.retry > 0) || e != nil && (e.Code != job.Busy || e.RetryAfter != c.retry) {
			t.Errorf("%s: %v", c.rule, err)
		}
	}
	q := queue.New(2)
	fill(q)
	q.Leave(at(1), "3")
	enter(t, q, at(2), chat("b", "6"))
}

func TestReview(t *testing.T) {
	q := queue.New(100)
	if !q.Next().IsZero() {
		t.Errorf("there is nobody, and %v is when to look", q.Next())
	}
	enter(t, q, start, chat("a", "works", review(1)), chat("a", "1", review(20)), chat("a", "2", review(10)),
		chat("a", "3"), chat("a", "4", parked, review(30)), chat("a", "5", review(15)))
	q.Leave(at(1), "5")
	for _, c := range []struct {
		rule string
		at   float64
		want []string
		next time.Time
	}{
		{"nobody's time has come", 9, nil, at(10)},
		{"one's has", 10, []string{"2"}, at(20)},
		{"who was told once is not told again", 19, nil, at(20)},
		{"late is early enough", 60, []string{"1", "4"}, time.Time{}},
	} {
		expect(t, c.rule, q.Review(at(c.at)), c.want...)
		if got := q.Next(); !got.Equal(c.next) {
			t.Errorf("%s: next at %v, want %v", c.rule, got, c.next)
		}
	}
	q.Move(at(61), chat("a", "2", review(70)))
	expect(t, "but once it was moved", q.Review(at(70)), "2")
}

func TestAhead(t *testing.T) {
	for _, c := range []struct {
		rule string
		now  float64
		jobs []queue.Ticket // after one with ten seconds of work at start
		job  queue.Ticket
		want time.Duration
	}{
		{"what remains for who is at work", 4, nil, chat("a", "x"), 6 * time.Second},
		{"which is never less than nothing", 14, nil, chat("a", "x"), 0},
		{"nothing where a slot is free", 4, nil, chat("a", "x", onNPU), 0},
		{"its client's that are due sooner", 0, []queue.Ticket{chat("a", "1", due(50)), chat("a", "2", due(70)), chat("a", "3")}, chat("a", "x", due(60)), 20 * time.Second},
		{"who is not waited for does not count", 0, []queue.Ticket{chat("a", "1", background)}, chat("b", "x"), 10 * time.Second},
		{"unless it is no different itself", 0, []queue.Ticket{chat("a", "1", background), chat("b", "2")}, chat("c", "x", background), 30 * time.Second},
		{"or will have waited long enough", 0, []queue.Ticket{chat("a", "1", background, promoted(9)), chat("a", "2", background, promoted(19)), chat("a", "3", background, promoted(31))}, chat("b", "x"), 30 * time.Second},
		{"no more of other clients than their turns bring", 0, []queue.Ticket{chat("a", "1"), chat("a", "2"), chat("a", "3"), chat("a", "4")}, chat("b", "x"), 20 * time.Second},
	} {
		q := queue.New(100)
		enter(t, q, start, chat("other", "first"))
		enter(t, q, start, c.jobs...)
		if got := q.Ahead(at(c.now), c.job); got != c.want {
			t.Errorf("%s: got %v, want %v", c.rule, got, c.want)
		}
	}
	q := queue.New(100)
	q.Slots(start, gpu, 2)
	enter(t, q, start, chat("a", "1"), chat("a", "2"), chat("a", "3"))
	if got := q.Ahead(start, chat("a", "x")); got != 15*time.Second {
		t.Errorf("spread over the slots: got %v", got)
	}
}

func TestNobodyWaitsForThemselves(t *testing.T) {
	q := queue.New(100)
	x := chat("a", "x", background, promoted(5), due(50))
	enter(t, q, start, chat("other", "first"), x, chat("a", "later", background, due(60)))
	for now, want := range []time.Duration{10 * time.Second, 5 * time.Second} { // until it is promoted, and after
		if got := q.Ahead(at(5*float64(now)), x); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestPromotionsComeOneAfterTheOther(t *testing.T) {
	q := queue.New(100)
	enter(t, q, start, chat("other", "first"))
	for n := range 8 { // each while the one before it works
		enter(t, q, start, chat("a", fmt.Sprint(n), background, promoted(float64(9+10*n))))
	}
	if got := q.Ahead(start, chat("b", "x")); got != 90*time.Second {
		t.Errorf("got %v", got)
	}
}

func TestAbsurdPredictionsStayInTime(t *testing.T) {
	q := queue.New(100_000)
	enter(t, q, start, chat("a", "less", works(-9e9)))
	for n := range 60_000 {
		enter(t, q, start, chat(fmt.Sprint("client", n), fmt.Sprint(n), works(9e9)))
	}
	if got := q.Ahead(start, chat("client7", "x", due(-9e9))); got < 24*time.Hour {
		t.Errorf("%v", got)
	}
}

func expect(t *testing.T, rule string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", rule, got, want)
	}
}
