// Package quota decides whether a client has had his share: of jobs at once, of
// jobs a minute, and of joules a day. It has no clock and does no I/O.
//
// A client is whom a job names as such: a token, a web page, or a program as far as
// its wire can tell. Of this user's own programs on the ports that is what they say
// of themselves, so that a quota is fairness among them, and a bound on others.
package quota

import (
	"cmp"
	"fmt"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// Limits are what one client may have. Zero fields are no limit.
type Limits struct {
	// Jobs is how many may be under way at once, those that wait included.
	Jobs int
	// PerMinute is how many may begin within any minute.
	PerMinute int
	// PerDay is the energy of a calendar day after which none begins. What is
	// under way then may take more.
	PerDay power.Energy
}

// over returns the limits with others behind them, for what they leave open.
func (l Limits) over(others Limits) Limits {
	return Limits{cmp.Or(l.Jobs, others.Jobs), cmp.Or(l.PerMinute, others.PerMinute), cmp.Or(l.PerDay, others.PerDay)}
}

// Rules say what clients may have.
type Rules struct {
	// Each is for every client, and Named what differs for some.
	Each  Limits
	Named map[string]Limits
}

// For returns the limits of a client.
func (r Rules) For(client string) Limits { return r.Named[client].over(r.Each) }

// Quota is what clients have had. Whoever owns it calls one method at a time.
type Quota struct {
	rules   Rules
	clients map[string]*Account
	// today is the calendar day that energy is counted of, and known tells that
	// what was spent on it before is.
	today string
	known bool
	// counting tells that what is spent now is not in what is being looked up.
	counting bool
}

// Account is what one client has had.
type Account struct {
	jobs int
	// begun is when the jobs of the last minute began, the earliest first.
	begun []time.Time
	spent power.Energy
}

// MostClients is of how many clients is known what they have had, beside those that
// the rules name. Programs name themselves, and may do so ever anew: further ones
// share an account.
const MostClients = 1000

// New returns a quota of which nobody has had anything.
func New(r Rules) *Quota { return &Quota{rules: r, clients: make(map[string]*Account)} }

// Rules returns those in force.
func (q *Quota) Rules() Rules { return q.rules }

// Configure replaces the rules for jobs to come. What counts by them may not have
// counted before.
func (q *Quota) Configure(r Rules) {
	q.rules = r
	q.known, q.counting = false, false
}

// MustKnow reports whether what clients have spent today has to be looked up
// before a job of that one is admitted. Then call Expect, look, and call Know.
func (q *Quota) MustKnow(now time.Time, client string) bool {
	q.turn(now)
	return q.rules.For(client).PerDay > 0 && !q.known
}

// Expect begins to count what is spent beside what is being looked up.
func (q *Quota) Expect() {
	q.counting = true
	for _, a := range q.clients {
		a.spent = 0
	}
}

// Know takes in what clients had spent on that day, up to some moment since
// Expect was called. What ended since then may be counted twice, and never not
// at all.
func (q *Quota) Know(day time.Time, spent map[string]power.Energy) {
	if dayOf(day) != q.today {
		return // that was yesterday, by now
	}
	q.known = true
	for client, energy := range spent {
		if q.rules.For(client).PerDay > 0 {
			q.account(client).spent += energy
		}
	}
}

// turn begins a new day when it is one. At its beginning nothing was spent, unless
// somebody has set the clock back to a day that was.
func (q *Quota) turn(now time.Time) {
	day := dayOf(now)
	if day == q.today {
		return
	}
	begins := q.today != "" && day > q.today
	q.known, q.counting, q.today = begins, begins, day
	for _, a := range q.clients {
		a.spent = 0
	}
}

func dayOf(t time.Time) string { return t.Local().Format(time.DateOnly) }

// account returns that of a client, and makes room for it.
func (q *Quota) account(client string) *Account {
	if a := q.clients[client]; a != nil {
		return a
	}
	if _, named := q.rules.Named[client]; !named && len(q.clients) >= MostClients+len(q.rules.Named) {
		client = "" // that of programs without a name
	}
	if q.clients[client] == nil {
		q.clients[client] = new(Account)
	}
	return q.clients[client]
}

// Admit counts a job of a client on its account, which is to be told when it has
// ended, or says by which limit there is none.
func (q *Quota) Admit(now time.Time, client string) (*Account, error) {
	q.turn(now)
	q.tidy(now)
	l, a := q.rules.For(client), q.account(client)
	a.forget(now)
	switch {
	case l.PerDay > 0 && a.spent >= l.PerDay:
		return nil, refused(client, untilTomorrow(now), "%.4g J of today's %.4g are spent (joules_per_day)", a.spent.Joules(), l.PerDay.Joules())
	case l.Jobs > 0 && a.jobs >= l.Jobs:
		return nil, refused(client, 0, "%s under way already (jobs)", count(a.jobs, "job is", "jobs are"))
	case l.PerMinute > 0 && len(a.begun) >= l.PerMinute:
		return nil, refused(client, a.begun[len(a.begun)-l.PerMinute].Add(time.Minute).Sub(now), "%s begun within a minute (jobs_per_minute)", count(len(a.begun), "job has", "jobs have"))
	}
	a.jobs++
	if l.PerMinute > 0 {
		a.begun = append(a.begun, now)
	}
	return a, nil
}

// End counts a job no longer that was admitted to an account.
func (q *Quota) End(a *Account) { a.jobs-- }

// Spent counts what jobs of a client have taken.
func (q *Quota) Spent(now time.Time, client string, e power.Energy) {
	q.turn(now)
	if q.counting && q.rules.For(client).PerDay > 0 {
		q.account(client).spent += e
	}
}

// forget drops what began more than a minute ago.
func (a *Account) forget(now time.Time) {
	n := 0
	for n < len(a.begun) && now.Sub(a.begun[n]) >= time.Minute {
		n++
	}
	a.begun = append(a.begun[:0], a.begun[n:]...)
}

// tidy makes room where there is none: accounts with nothing in them go.
func (q *Quota) tidy(now time.Time) {
	if len(q.clients) < MostClients {
		return
	}
	for name, a := range q.clients {
		if a.forget(now); a.jobs == 0 && len(a.begun) == 0 && a.spent == 0 {
			delete(q.clients, name)
		}
	}
}

// untilTomorrow returns how long the calendar day yet lasts.
func untilTomorrow(now time.Time) time.Duration {
	y, m, d := now.Local().Date()
	return time.Date(y, m, d+1, 0, 0, 0, 0, time.Local).Sub(now)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// refused is the error of a limit.
func refused(client string, after time.Duration, format string, args ...any) *job.Error {
	e := job.Errorf(job.OverLimit, "of %s, "+format, append([]any{name(client)}, args...)...)
	e.RetryAfter = after
	return e
}

func name(client string) string {
	if client == "" {
		return "a client without a name"
	}
	return fmt.Sprintf("client %q", client)
}
