package quota_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/quota"
	"github.com/joulemux/joulemux/power"
)

// noon is the middle of some day where this machine is.
var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.Local)

// refusal returns the error of a limit that names a key, or fails.
func refusal(t *testing.T, err error, key string) *job.Error {
	t.Helper()
	var e *job.Error
	if !errors.As(err, &e) || e.Code != job.OverLimit || !strings.Contains(e.Detail, "("+key+")") {
		t.Fatalf("got %v, want what is over %s", err, key)
	}
	return e
}

func TestJobsAtOnce(t *testing.T) {
	t.Parallel()
	q := quota.New(quota.Rules{Each: quota.Limits{Jobs: 2}, Named: map[string]quota.Limits{"phone": {Jobs: 1}}})
	first, err := q.Admit(noon, "phone")
	if err != nil {
		t.Fatal(err)
	}
	_, err = q.Admit(noon, "phone")
	if e := refusal(t, err, "jobs"); e.Again() == 0 || !strings.Contains(e.Detail, `client "phone", 1 job is under way`) {
		t.Errorf("got %v", e)
	}
	for range 2 {
		if _, err := q.Admit(noon, "desk"); err != nil {
			t.Errorf("another client is refused: %v", err)
		}
	}
	_, err = q.Admit(noon, "desk")
	_ = refusal(t, err, "jobs")
	q.End(first)
	if _, err := q.Admit(noon, "phone"); err != nil {
		t.Error(err)
	}
}

func TestLimitCountsWhatWasUnderWayBeforeIt(t *testing.T) {
	t.Parallel()
	q := quota.New(quota.Rules{})
	if _, err := q.Admit(noon, "a"); err != nil {
		t.Fatal(err)
	}
	q.Configure(quota.Rules{Each: quota.Limits{Jobs: 1}})
	_, err := q.Admit(noon, "a")
	_ = refusal(t, err, "jobs")
}

func TestJoulesOfADay(t *testing.T) {
	t.Parallel()
	q := quota.New(quota.Rules{Each: quota.Limits{PerDay: power.Joules(100)}})
	if !q.MustKnow(noon, "a") {
		t.Fatal("it knows what it was not told")
	}
	q.Expect()
	q.Spent(noon, "a", power.Joules(10)) // ends while others look
	q.Know(noon, map[string]power.Energy{"a": power.Joules(50), "b": power.Joules(100)})
	if q.MustKnow(noon, "a") {
		t.Error("it has forgotten what it was told")
	}
	_, err := q.Admit(noon, "b")
	if e := refusal(t, err, "joules_per_day"); e.Again() != 12*time.Hour || !strings.Contains(e.Detail, "100 J of today's 100") {
		t.Errorf("got %v, again in %v", e, e.Again())
	}
	q.Spent(noon, "a", power.Joules(39.9))
	if _, err := q.Admit(noon, "a"); err != nil {
		t.Error(err)
	}
	q.Spent(noon, "a", power.Joules(0.1))
	_, err = q.Admit(noon, "a")
	_ = refusal(t, err, "joules_per_day")
	tomorrow := noon.AddDate(0, 0, 1)
	for _, client := range []string{"a", "b"} {
		if q.MustKnow(tomorrow, client) {
			t.Error("on a new day something would have to be looked up")
		}
		if _, err := q.Admit(tomorrow, client); err != nil {
			t.Errorf("on a new day: %v", err)
		}
	}
	if !q.MustKnow(noon, "a") {
		t.Error("with the clock set back, what was spent that day is taken for known")
	}
	q.Configure(quota.Rules{Each: quota.Limits{PerDay: power.Joules(200)}})
	if !q.MustKnow(noon, "a") || q.MustKnow(noon, "a") != q.MustKnow(noon, "b") {
		t.Error("what did not count before is taken for known")
	}
}

// TestLimitsHoldWhateverComes has clients come, end and spend at random, and
// looks at any minute and day that there was.
func TestLimitsHoldWhateverComes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		limits := quota.Limits{Jobs: 1 + r.IntN(4), PerMinute: 1 + r.IntN(6), PerDay: power.Joules(float64(500 + r.IntN(2000)))}
		q := quota.New(quota.Rules{Each: limits, Named: map[string]quota.Limits{"free": {Jobs: 1 << 30, PerMinute: 1 << 30, PerDay: power.Joules(1e12)}}})
		q.MustKnow(noon, "a")
		q.Expect()
		q.Know(noon, nil)
		type client struct {
			underWay []*quota.Account
			begun    []time.Time
			spent    map[string]power.Energy
		}
		clients := map[string]*client{}
		for _, name := range []string{"a", "b", "free"} {
			clients[name] = &client{spent: map[string]power.Energy{}}
		}
		now := noon
		for range 500 {
			now = now.Add(time.Duration(r.IntN(30_000)) * time.Millisecond)
			if r.IntN(50) == 0 {
				now = now.Add(time.Duration(r.IntN(20)) * time.Hour)
			}
			name := []string{"a", "b", "free"}[r.IntN(3)]
			c := clients[name]
			day := now.Format(time.DateOnly)
			if n := len(c.underWay); n > 0 && r.IntN(2) == 0 {
				at := r.IntN(n)
				q.End(c.underWay[at])
				c.underWay = append(c.underWay[:at], c.underWay[at+1:]...)
				energy := power.Joules(float64(r.IntN(300)))
				q.Spent(now, name, energy)
				c.spent[day] += energy
				continue
			}
			recent := 0
			for _, at := range c.begun {
				if now.Sub(at) < time.Minute {
					recent++
				}
			}
			full := name != "free" && (len(c.underWay) >= limits.Jobs || recent >= limits.PerMinute || c.spent[day] >= limits.PerDay)
			a, err := q.Admit(now, name)
			if (err != nil) != full {
				t.Fatalf("seed %d: %s with %d under way, %d within a minute and %v today, of %+v: %v", seed, name, len(c.underWay), recent, c.spent[day], limits, err)
			}
			if err == nil {
				c.underWay, c.begun = append(c.underWay, a), append(c.begun, now)
				continue
			}
			// Who waits as long as he is told is not refused by the same limit.
			if e := (*job.Error)(nil); errors.As(err, &e) && e.RetryAfter > time.Minute && now.Add(e.RetryAfter).Format(time.DateOnly) == day {
				t.Errorf("seed %d: at %v one is told to come again in %v", seed, now, e.RetryAfter)
			}
		}
	}
}

func TestNamesWithoutEndTakeBoundedMemory(t *testing.T) {
	t.Parallel()
	q := quota.New(quota.Rules{Each: quota.Limits{Jobs: 1}, Named: map[string]quota.Limits{"phone": {Jobs: 1}}})
	var all []*quota.Account
	refused := 0
	for i := range 5 * quota.MostClients {
		a, err := q.Admit(noon, fmt.Sprint("program ", i))
		if err != nil {
			refused++
			continue
		}
		all = append(all, a)
	}
	if len(all) > quota.MostClients+2 || refused == 0 {
		t.Errorf("%d have an account, %d have not", len(all), refused)
	}
	phone, err := q.Admit(noon, "phone")
	if err != nil {
		t.Errorf("whom the rules name is refused with the others: %v", err)
	}
	q.End(phone)
	for _, a := range all {
		q.End(a)
	}
	if _, err := q.Admit(noon, "one more"); err != nil {
		t.Errorf("though nobody has anything: %v", err)
	}
}
