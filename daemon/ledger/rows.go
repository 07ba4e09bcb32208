package ledger

import (
	"fmt"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
	"github.com/ncruces/go-sqlite3"
)

// bind sets all parameters of a statement, from the first on.
func bind(s *sqlite3.Stmt, values ...any) error {
	for i, v := range values {
		var err error
		switch v := v.(type) {
		case string:
			err = s.BindText(i+1, v)
		case int64:
			err = s.BindInt64(i+1, v)
		case int:
			err = s.BindInt(i+1, v)
		case bool:
			err = s.BindBool(i+1, v)
		case float64:
			err = s.BindFloat(i+1, v)
		default:
			err = fmt.Errorf("cannot bind a %T", v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// row reads the columns of a result one after the other.
type row struct {
	s    *sqlite3.Stmt
	next int
}

func (r *row) column() int {
	r.next++
	return r.next - 1
}

func (r *row) text() string          { return r.s.ColumnText(r.column()) }
func (r *row) int() int64            { return r.s.ColumnInt64(r.column()) }
func (r *row) real() float64         { return r.s.ColumnFloat(r.column()) }
func (r *row) time() time.Time       { return time.Unix(0, r.int()) }
func (r *row) energy() power.Energy  { return power.Energy(r.int()) }
func (r *row) length() time.Duration { return time.Duration(r.int()) }

// jobColumns are those that jobValues and readJob are about, in their order.
const jobColumns = `id, day, arrived, ended, backend, model, hardware, client, class, tier, on_battery,
	prompt_tokens, tokens, load_time, prefill_time, decode_time, first_token, total_time,
	energy, gross, load, tail, quality, scope, source, uncertainty, coverage, shared, failed,
	kind, completion, max_tokens, radio, price, currency, price_unknown`

func jobValues(e Entry) []any {
	c := e.Cost
	return []any{
		e.ID, day(e.Ended), e.Arrived.UnixNano(), e.Ended.UnixNano(), e.Backend, e.Model,
		string(e.Hardware), e.Client, string(e.Class), e.Tier.String(), e.OnBattery,
		e.PromptTokens, e.Tokens, int64(e.Load), int64(e.Prefill), int64(e.Decode), int64(e.FirstToken), int64(e.Total),
		int64(c.Energy), int64(c.Gross), int64(c.Load), int64(c.Tail), string(c.Quality), c.Scope, c.Source,
		c.Uncertainty, c.Coverage, c.Shared, string(e.Failed),
		string(e.Kind), e.Completion, e.MaxTokens, int64(c.Radio), e.Price.Nano, e.Price.Currency, e.Price.Unknown,
	}
}

func readJob(s *sqlite3.Stmt) Entry {
	r := row{s: s}
	e := Entry{ID: r.text()}
	r.column() // the day
	e.Arrived, e.Ended = r.time(), r.time()
	e.Backend, e.Model = r.text(), r.text()
	e.Hardware, e.Client, e.Class = power.DeviceClass(r.text()), r.text(), job.Class(r.text())
	// A tier that this version does not know is an unknown tier.
	e.Tier, _ = power.ParseTier(r.text())
	e.OnBattery = r.int() != 0
	e.PromptTokens, e.Tokens = int(r.int()), int(r.int())
	e.Load, e.Prefill, e.Decode, e.FirstToken, e.Total = r.length(), r.length(), r.length(), r.length(), r.length()
	e.Cost = power.Cost{
		Energy: r.energy(), Gross: r.energy(), Load: r.energy(), Tail: r.energy(),
		Quality: power.Quality(r.text()), Scope: r.text(), Source: r.text(),
		Uncertainty: r.real(), Coverage: r.real(), Shared: int(r.int()),
	}
	e.Failed = job.Code(r.text())
	e.Kind, e.Completion, e.MaxTokens = job.Kind(r.text()), r.int() != 0, int(r.int())
	e.Cost.Radio = r.energy()
	e.Price = job.Money{Nano: r.int(), Currency: r.text(), Unknown: r.int() != 0}
	return e
}

// sumColumns are those that sumValues and readSum are about, in their order.
var sumColumns = []string{"jobs", "failed", "prompt_tokens", "tokens", "energy", "gross", "load", "tail", "radio"}

func sumValues(s Sum) []any {
	return []any{
		s.Jobs, s.Failed, s.PromptTokens, s.Tokens,
		int64(s.Energy), int64(s.Gross), int64(s.Load), int64(s.Tail), int64(s.Radio),
	}
}

func (r *row) sum() Sum {
	return Sum{
		Jobs: r.int(), Failed: r.int(), PromptTokens: r.int(), Tokens: r.int(),
		Energy: r.energy(), Gross: r.energy(), Load: r.energy(), Tail: r.energy(), Radio: r.energy(),
	}
}

// What is done to the file, in its own language.
var (
	insertJob = "INSERT INTO job (" + jobColumns + ") VALUES (" + marks(1+strings.Count(jobColumns, ",")) + ")"

	addToAccount = "INSERT INTO account (day, backend, model, client, quality, " + strings.Join(sumColumns, ", ") +
		") VALUES (" + marks(5+len(sumColumns)) + ") ON CONFLICT DO UPDATE SET " + additions()
)

const addPayment = `INSERT INTO payment (day, backend, model, client, currency, jobs, unknown, price) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs, unknown = unknown + excluded.unknown, price = price + excluded.price`

// marks returns the places of n parameters.
func marks(n int) string { return "?" + strings.Repeat(", ?", n-1) }

// additions returns the assignments that add a new sum to an old one.
func additions() string {
	all := make([]string, len(sumColumns))
	for i, c := range sumColumns {
		all[i] = c + " = " + c + " + excluded." + c
	}
	return strings.Join(all, ", ")
}

// sumAccounts returns the query for the sums of each group and quality.
func sumAccounts(by Grouping) string {
	return "SELECT " + column(by) + ", quality, sum(" + strings.Join(sumColumns, "), sum(") +
		") FROM account WHERE day >= ? AND day <= ? GROUP BY 1, 2"
}

// sumPayments returns the query for the payments of each group and currency.
func sumPayments(by Grouping) string {
	return "SELECT " + column(by) + ", currency, sum(jobs), sum(unknown), sum(price) FROM payment WHERE day >= ? AND day <= ? GROUP BY 1, 2"
}

// column is what a grouping is by.
func column(by Grouping) string {
	if by == Everything {
		return "''"
	}
	return string(by)
}

const (
	answered = "WHERE failed = '' AND backend <> '" + Cache + "' AND tokens > 0 AND kind IN ('generate', 'chat')"

	findTail = "SELECT n, day, backend, model, client, quality, tail FROM job WHERE id = ? ORDER BY n DESC LIMIT 1"
	setTail  = "UPDATE job SET tail = ? WHERE n = ?"

	saveFigure = `INSERT INTO learned (backend, model, on_battery, figure, value, count, seen) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET value = excluded.value, count = excluded.count, seen = excluded.seen`
	loadFigures = "SELECT backend, model, on_battery, figure, value, count, seen FROM learned"

	pruneOldJobs  = "DELETE FROM job WHERE ended < ?"
	pruneMostJobs = "DELETE FROM job WHERE n <= (SELECT max(n) FROM job) - ?"
	pruneAccounts = "DELETE FROM account WHERE day < ?"
	prunePayments = "DELETE FROM payment WHERE day < ?"
	pruneFigures  = "DELETE FROM learned WHERE seen < ?"
)
