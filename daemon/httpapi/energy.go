package httpapi

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/power"
)

// energy tells what jobs took.
func (s *Server) energy(w http.ResponseWriter, r *http.Request) {
	q, err := parseEnergyQuery(r.URL.Query(), time.Now())
	if err != nil {
		fail(w, err)
		return
	}
	totals, err := s.Ledger.Totals(r.Context(), q.from, q.to(), q.by)
	if err != nil {
		fail(w, err)
		return
	}
	e := wire.Energy{
		From: dayOf(q.from), Until: dayOf(q.until), By: string(q.by),
		Totals: []wire.EnergyTotal{}, Tariff: s.settings.Load().Tariff, Trouble: s.trouble(),
	}
	var all ledger.Total
	for _, t := range totals {
		e.Totals = append(e.Totals, describeTotal(t, e.Tariff))
		all.Paid = ledger.Together(all.Paid, t.Paid...)
		all.Measured, all.Derived, all.Estimated = all.Measured.Plus(t.Measured), all.Derived.Plus(t.Derived), all.Estimated.Plus(t.Estimated)
		all.Unknown, all.None = all.Unknown.Plus(t.Unknown), all.None.Plus(t.None)
	}
	e.All = describeTotal(all, e.Tariff)
	if full, known := s.FullCharge(); known {
		wh := full.WattHours()
		e.BatteryWh = &wh
	}
	reply(w, http.StatusOK, e)
}

// trouble tells why costs may be missing, or returns "".
func (s *Server) trouble() string {
	if err := s.Ledger.Trouble(); err != nil {
		return err.Error()
	}
	return ""
}

// energyQuery asks for what jobs took on some days, by what they have in common.
type energyQuery struct {
	by ledger.Grouping
	// from and until are the beginnings of the first and of the last day, or
	// zero for an end that is open.
	from, until time.Time
}

// to returns the end of the last day.
func (q energyQuery) to() time.Time {
	if q.until.IsZero() {
		return q.until
	}
	return q.until.AddDate(0, 0, 1)
}

// parseEnergyQuery reads the parameters. One that is misspelt is an error: the
// answer would be right and to another question.
func parseEnergyQuery(asked url.Values, now time.Time) (q energyQuery, err error) {
	for name, values := range asked {
		switch {
		case name != "by" && name != "since" && name != "until":
			return q, job.InvalidField(name, "no such parameter; there are by, since and until")
		case len(values) > 1:
			return q, job.InvalidField(name, "it is there %d times", len(values))
		}
	}
	if q.by, err = parseGrouping(asked.Get("by")); err != nil {
		return q, err
	}
	if q.from, err = parseSince(asked.Get("since"), now); err != nil {
		return q, err
	}
	if until := asked.Get("until"); until != "" {
		if q.until, err = parseDay(until); err != nil {
			return q, job.InvalidField("until", "want a day such as 2026-03-14, got %q", until)
		}
	}
	if !q.until.IsZero() && q.until.Before(q.from) {
		return q, job.InvalidField("until", "%s is before %s, the first day asked for", dayOf(q.until), dayOf(q.from))
	}
	return q, nil
}

func parseGrouping(text string) (ledger.Grouping, error) {
	if text == "" {
		return ledger.ByBackend, nil
	}
	all := []ledger.Grouping{ledger.ByDay, ledger.ByBackend, ledger.ByModel, ledger.ByClient}
	if by := ledger.Grouping(text); slices.Contains(all, by) {
		return by, nil
	}
	return "", job.InvalidField("by", "want day, backend, model or client, got %q", text)
}

// parseSince reads the first day. The last 30 days are today and the 29 before
// it, as costs are kept by whole days.
func parseSince(text string, now time.Time) (time.Time, error) {
	const most = 100 * 366
	if text == "" || text == "all" {
		return time.Time{}, nil
	}
	if n, ok := strings.CutSuffix(text, "d"); ok {
		if days, err := strconv.Atoi(n); err == nil && days >= 1 && days <= most {
			y, m, d := now.Local().Date()
			return time.Date(y, m, d-(days-1), 0, 0, 0, 0, time.Local), nil
		}
	}
	day, err := parseDay(text)
	if err != nil {
		return time.Time{}, job.InvalidField("since", "want days such as 30d, a day such as 2026-03-14, or all, got %q", text)
	}
	return day, nil
}

func parseDay(text string) (time.Time, error) {
	return time.ParseInLocation(time.DateOnly, text, time.Local)
}

func dayOf(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.DateOnly)
}

func describeTotal(t ledger.Total, tariff *wire.Tariff) wire.EnergyTotal {
	all := t.All()
	d := wire.EnergyTotal{
		Key: t.Key, Jobs: all.Jobs, Failed: all.Failed, PromptTokens: all.PromptTokens, Tokens: all.Tokens,
		Measured: describeSum(t.Measured), Derived: describeSum(t.Derived), Estimated: describeSum(t.Estimated),
		UnknownJobs: t.Unknown.Jobs, NoneJobs: t.None.Jobs, RadioJoules: t.None.Radio.Joules(),
	}
	d.Cost = costs(&d, t.Paid, tariff)
	return d
}

// costs returns what energy costs by the tariff, if there is one, and what remote
// servers charge.
func costs(t *wire.EnergyTotal, paid []ledger.Payment, tariff *wire.Tariff) (list []wire.Cost) {
	if tariff != nil {
		wh := power.Joules(t.RadioJoules).WattHours()
		for _, s := range []wire.EnergySum{t.Measured, t.Derived, t.Estimated} {
			wh += s.Wh + power.Joules(s.TailJoules).WattHours()
		}
		amount := wh / 1000 * tariff.PricePerKWh
		list = append(list, wire.Cost{Currency: tariff.Currency, Amount: amount, EnergyAmount: amount})
	}
	for _, p := range paid {
		at := slices.IndexFunc(list, func(c wire.Cost) bool { return c.Currency == p.Currency })
		if at < 0 {
			at, list = len(list), append(list, wire.Cost{Currency: p.Currency})
		}
		c := &list[at]
		c.RemoteAmount, c.RemoteJobs, c.UnknownJobs = p.Amount(), p.Jobs, p.Unknown
		c.Amount += p.Amount()
	}
	return list
}

// describeSum tells a sum as the cost of a job is told: one that has a single
// job in it is that.
func describeSum(s ledger.Sum) wire.EnergySum {
	return wire.EnergySum{
		Jobs: s.Jobs, Failed: s.Failed, PromptTokens: s.PromptTokens, Tokens: s.Tokens,
		Joules: s.Energy.Told().Joules(), GrossJoules: s.Gross.Told().Joules(),
		LoadJoules: s.Load.Told().Joules(), TailJoules: s.Tail.Told().Joules(),
		Wh: s.Energy.Told().WattHours(),
	}
}

// energyOf is the path before a job's id, which may have slashes of its own in
// it, escaped.
const energyOf = "/joulemux/v1/energy/"

// energyOfJob tells what one job took.
func (s *Server) energyOfJob(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimPrefix(r.URL.Path, energyOf)
	first, err := s.Ledger.Job(r.Context(), id)
	if errors.Is(err, ledger.ErrNoJob) {
		reply(w, http.StatusNotFound, &wire.Error{Text: "the ledger has no job " + strconv.Quote(id), Code: wire.CodeJobNotFound, Field: "id"})
		return
	}
	told := wire.EnergyJob{ID: id}
	for e := first; err == nil; {
		told.Attempts = append(told.Attempts, describeEntry(e, time.Now()))
		e, err = s.Ledger.Job(r.Context(), id+"."+strconv.Itoa(len(told.Attempts)+1))
		if err == nil && !e.Arrived.Equal(first.Arrived) {
			break // of an earlier job, whose client gave it the same id
		}
	}
	if err != nil && !errors.Is(err, ledger.ErrNoJob) {
		fail(w, err)
		return
	}
	told.Trouble = s.trouble()
	reply(w, http.StatusOK, told)
}

func describeEntry(e ledger.Entry, now time.Time) wire.EnergyAttempt {
	d := wire.EnergyAttempt{
		ID: e.ID, Arrived: e.Arrived, Ended: e.Ended, Backend: e.Backend, Hardware: string(e.Hardware),
		Model: e.Model, Client: e.Client, Class: string(e.Class), Tier: e.Tier.String(), OnBattery: e.OnBattery,
		PromptTokens: e.PromptTokens, Tokens: e.Tokens,
		LoadMs: e.Load.Milliseconds(), PrefillMs: e.Prefill.Milliseconds(), DecodeMs: e.Decode.Milliseconds(),
		FirstTokenMs: e.FirstToken.Milliseconds(), TotalMs: e.Total.Milliseconds(),
	}
	if e.Failed != "" {
		_, d.Failed = statusOf(e.Failed)
	}
	describeCost(&d, e.Cost.Told())
	if d.CostCurrency = e.Price.Currency; d.CostCurrency != "" && !e.Price.Unknown {
		amount := e.Price.Amount()
		d.Cost = &amount
	}
	if e.Cost.Tail == 0 && now.Sub(e.Ended) < tailKnown {
		d.TailJoules = nil
	}
	return d
}

// tailKnown is how long after a job its tail is known, with some room: the
// meter takes two seconds, and tells of no tail that is nothing.
const tailKnown = 5 * time.Second

// describeCost tells the energy of an attempt.
func describeCost(d *wire.EnergyAttempt, c power.Cost) {
	d.Quality, d.RadioJoules = string(c.Quality), c.Radio.Joules()
	if !c.Known() {
		return
	}
	joules, wh := c.Energy.Joules(), c.Energy.WattHours()
	d.Joules, d.Wh, d.Source = &joules, &wh, c.Source
	if d.Tokens > 0 {
		each := joules / float64(d.Tokens)
		d.JoulesPerToken = &each
	}
	if c.Scope == "" {
		return
	}
	gross, load, tail := c.Gross.Joules(), c.Load.Joules(), c.Tail.Joules()
	d.Scope, d.GrossJoules, d.LoadJoules, d.TailJoules = c.Scope, &gross, &load, &tail
	d.Uncertainty, d.Coverage, d.SharedJobs = c.Uncertainty, &c.Coverage, c.Shared
}
