package ledger

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/power"
)

// Grouping says what totals are of.
type Grouping string

// The groupings. Everything has one total.
const (
	Everything Grouping = ""
	ByDay      Grouping = "day"
	ByBackend  Grouping = "backend"
	ByModel    Grouping = "model"
	ByClient   Grouping = "client"
)

// Sum is what jobs of one quality took together. Figures that were measured
// and figures that were assumed are never added up.
type Sum struct {
	Jobs, Failed              int64
	PromptTokens, Tokens      int64
	Energy, Gross, Load, Tail power.Energy
	// Radio is what the network took, by assumption, where they ran elsewhere.
	Radio power.Energy
}

// Plus returns both together.
func (s Sum) Plus(t Sum) Sum {
	return Sum{
		Jobs: s.Jobs + t.Jobs, Failed: s.Failed + t.Failed,
		PromptTokens: s.PromptTokens + t.PromptTokens, Tokens: s.Tokens + t.Tokens,
		Energy: s.Energy + t.Energy, Gross: s.Gross + t.Gross, Load: s.Load + t.Load, Tail: s.Tail + t.Tail,
		Radio: s.Radio + t.Radio,
	}
}

// Total is what jobs that have something in common took, by how that is known.
type Total struct {
	// Key is the day (as in "2026-03-14"), the backend, the model or the client.
	Key                          string
	Measured, Derived, Estimated Sum
	// Unknown are jobs whose energy nobody knows, and None those that took none
	// here. Neither has energy to add up.
	Unknown, None Sum
	// Paid is what remote servers charged, by currency, in the order of their names:
	// different ones are not added up.
	Paid []Payment
}

// All returns the jobs and tokens of every quality. Their energies are left
// out, since they are not of one kind.
func (t Total) All() Sum {
	all := t.Measured.Plus(t.Derived).Plus(t.Estimated).Plus(t.Unknown).Plus(t.None)
	all.Energy, all.Gross, all.Load, all.Tail, all.Radio = 0, 0, 0, 0, 0
	return all
}

// of returns the sum of a quality.
func (t *Total) of(q power.Quality) *Sum {
	switch q {
	case power.Measured:
		return &t.Measured
	case power.Derived:
		return &t.Derived
	case power.Estimated:
		return &t.Estimated
	case power.None:
		return &t.None
	default:
		return &t.Unknown
	}
}

// account is what a sum is kept for.
type account struct {
	day, backend, model, client string
	quality                     power.Quality
}

// accountOf returns the account that e, which is normal, goes to.
func accountOf(e Entry) account {
	return account{day(e.Ended), e.Backend, e.Model, e.Client, e.Cost.Quality}
}

// key returns what the account has in common with others of its group.
func (a account) key(by Grouping) string {
	switch by {
	case ByDay:
		return a.day
	case ByBackend:
		return a.backend
	case ByModel:
		return a.model
	case ByClient:
		return a.client
	default:
		return ""
	}
}

// sumOf returns what e, which is normal, adds to its account.
func sumOf(e Entry) Sum {
	s := Sum{
		Jobs: 1, PromptTokens: int64(e.PromptTokens), Tokens: int64(e.Tokens),
		Energy: e.Cost.Energy, Gross: e.Cost.Gross, Load: e.Cost.Load, Tail: e.Cost.Tail,
		Radio: e.Cost.Radio,
	}
	if e.Failed != "" {
		s.Failed = 1
	}
	return s
}

// day returns the calendar day of t where this machine is: days are for
// people. Its text sorts as time does.
func day(t time.Time) string { return t.Local().Format(time.DateOnly) }

// span is the days that totals are of, both ends included.
type span struct{ first, last string }

// spanOf returns the days that have a moment in [from, to).
func spanOf(from, to time.Time) span {
	s := span{last: "9999-12-31"}
	if !from.IsZero() {
		s.first = day(from)
	}
	if !to.IsZero() {
		s.last = day(to.Add(-1))
	}
	return s
}

func (s span) contains(day string) bool { return day >= s.first && day <= s.last }

// totals are totals under construction, by their keys.
type totals map[string]*Total

func (t totals) add(key string, q power.Quality, s Sum) {
	if t[key] == nil {
		t[key] = &Total{Key: key}
	}
	sum := t[key].of(q)
	*sum = sum.Plus(s)
}

// pay adds what was charged.
func (t totals) pay(key string, more Payment) {
	if t[key] == nil {
		t[key] = &Total{Key: key}
	}
	t[key].Paid = Together(t[key].Paid, more)
}

// sorted returns the totals in the order of their keys.
func (t totals) sorted() []Total {
	all := make([]Total, 0, len(t))
	for total := range maps.Values(t) {
		slices.SortFunc(total.Paid, func(a, b Payment) int { return strings.Compare(a.Currency, b.Currency) })
		all = append(all, *total)
	}
	slices.SortFunc(all, func(a, b Total) int { return strings.Compare(a.Key, b.Key) })
	return all
}
