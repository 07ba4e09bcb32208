package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/power"
)

// warnOf tells that the ledger is in trouble.
func (a *app) warnOf(trouble string) {
	if trouble != "" {
		fmt.Fprintln(a.err, "joulemux: the ledger cannot use its file, so older jobs may be missing:", plain(trouble))
	}
}

// writeEnergy writes a line for each total, and one for all of them.
func writeEnergy(w io.Writer, e wire.Energy) error {
	if len(e.Totals) == 0 {
		_, err := fmt.Fprintln(w, nothingSpent(e))
		return err
	}
	var rows []spent
	for _, t := range e.Totals {
		rows = append(rows, spent{EnergyTotal: t, energy: &e})
	}
	all := spent{EnergyTotal: e.All, energy: &e}
	all.Key = "total"
	rows = append(rows, all)
	if err := writeColumns(w, columns(e.By, all), rows); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "\n"+strings.Join(remarks(all), "; "))
	return err
}

// nothingSpent says that there were no jobs.
func nothingSpent(e wire.Energy) string {
	switch {
	case e.From == "" && e.Until == "":
		return "no jobs yet: the ledger is empty"
	default:
		return "no jobs " + days(e) + "; --since all shows older ones"
	}
}

// days says from when to when, as in "from 2026-01-02 on".
func days(e wire.Energy) string {
	switch {
	case e.From == "" && e.Until == "":
		return "of all time"
	case e.Until == "":
		return "from " + plain(e.From) + " on"
	case e.From == "":
		return "until " + plain(e.Until)
	default:
		return "from " + plain(e.From) + " until " + plain(e.Until)
	}
}

// remarks says what the figures are of, and what is not in them.
func remarks(all spent) []string {
	list := []string{"Wh of jobs " + days(*all.energy)}
	if all.guessed() {
		list = append(list, "~ has estimates in it")
	}
	if n := all.UnknownJobs; n > 0 {
		list = append(list, counted(int(n), "job")+" of unknown energy not in it")
	}
	if n := all.NoneJobs; n > 0 {
		remark := counted(int(n), "job") + " took none here"
		if all.RadioJoules > 0 {
			remark += " but the radio's"
		}
		list = append(list, remark)
	}
	var currencies []string
	for _, c := range all.Cost {
		currencies = append(currencies, cmp.Or(plain(c.Currency), "PRICE"))
		if c.UnknownJobs > 0 {
			list = append(list, counted(int(c.UnknownJobs), "job")+" of unknown price not in "+cmp.Or(plain(c.Currency), "it"))
		}
	}
	if len(currencies) > 1 {
		list = append(list, strings.Join(currencies, " and ")+" are not added up")
	}
	return list
}

// spent is what jobs took, as people are shown it.
type spent struct {
	wire.EnergyTotal
	energy *wire.Energy
}

// joules are those up to the last token, of every quality.
func (s spent) joules() float64 { return s.Measured.Joules + s.Derived.Joules + s.Estimated.Joules }

// tail is in watt-hours, as are all that follow.
func (s spent) tail() float64 {
	return power.Joules(s.Measured.TailJoules + s.Derived.TailJoules + s.Estimated.TailJoules).WattHours()
}

func (s spent) total() float64 {
	return s.Measured.Wh + s.Derived.Wh + s.Estimated.Wh + s.tail() + s.radio()
}

// radio is what the network took, while jobs ran elsewhere.
func (s spent) radio() float64 { return power.Joules(s.RadioJoules).WattHours() }

// known reports whether there is anything to show: what is unknown is no zero.
func (s spent) known() bool {
	return s.Measured.Jobs+s.Derived.Jobs+s.Estimated.Jobs > 0 || s.RadioJoules > 0
}

// guessed reports whether a sum of all qualities has assumptions in it.
func (s spent) guessed() bool { return s.Estimated.Jobs > 0 || s.RadioJoules > 0 }

// perToken is of the jobs whose energy is known.
func (s spent) perToken() float64 {
	tokens := s.Measured.Tokens + s.Derived.Tokens + s.Estimated.Tokens
	if tokens == 0 {
		return 0
	}
	return s.joules() / float64(tokens)
}

// cost is what they cost in a currency, and whether that is anything.
func (s spent) cost(currency string) (wire.Cost, bool) {
	at := slices.IndexFunc(s.Cost, func(c wire.Cost) bool { return c.Currency == currency })
	if at < 0 {
		return wire.Cost{}, false
	}
	return s.Cost[at], true
}

func (s spent) percent() float64 { return 100 * s.total() / *s.energy.BatteryWh }

// sum is a figure of all qualities together, marked if it is not all measured.
func (s spent) sum(text string) string {
	switch {
	case !s.known():
		return "-"
	case s.guessed():
		return "~" + text
	default:
		return text
	}
}

// column is one of a table of what was spent.
type column struct {
	title string
	cell  func(spent) string
}

// columns returns those that have anything in them.
func columns(by string, all spent) []column {
	wh, perToken := decimals(all.total(), 2), decimals(all.perToken(), 2)
	list := []column{
		{strings.ToUpper(plain(by)), func(s spent) string { return cmp.Or(plain(s.Key), "-") }},
		{"JOBS", func(s spent) string { return fmt.Sprint(s.Jobs) }},
	}
	if all.Failed > 0 {
		list = append(list, column{"FAILED", func(s spent) string { return fmt.Sprint(s.Failed) }})
	}
	list = append(list,
		column{"TOKENS", func(s spent) string { return fmt.Sprint(s.Tokens) }},
		column{"J/TOKEN", func(s spent) string {
			if s.perToken() == 0 {
				return "-"
			}
			if s.Estimated.Jobs > 0 {
				return "~" + fixed(s.perToken(), perToken)
			}
			return fixed(s.perToken(), perToken) // the radio is not in it
		}})
	for _, q := range []struct {
		title string
		of    func(spent) wire.EnergySum
	}{
		{"MEASURED", func(s spent) wire.EnergySum { return s.Measured }},
		{"DERIVED", func(s spent) wire.EnergySum { return s.Derived }},
		{"ESTIMATED", func(s spent) wire.EnergySum { return s.Estimated }},
	} {
		if q.of(all).Jobs > 0 {
			list = append(list, column{q.title, func(s spent) string {
				if q.of(s).Jobs == 0 {
					return "-"
				}
				return fixed(q.of(s).Wh, wh)
			}})
		}
	}
	if all.tail() > 0 {
		list = append(list, column{"TAIL", func(s spent) string { return fixed(s.tail(), wh) }})
	}
	if all.radio() > 0 {
		list = append(list, column{"RADIO", func(s spent) string {
			if s.radio() == 0 {
				return "-"
			}
			return "~" + fixed(s.radio(), wh)
		}})
	}
	list = append(list, column{"TOTAL", func(s spent) string { return s.sum(fixed(s.total(), wh)) }})
	return append(list, worth(all)...)
}

// worth returns the columns that say what that is worth, as far as that
// is known.
func worth(all spent) (list []column) {
	for _, c := range all.Cost {
		money := decimals(c.Amount, 2)
		list = append(list, column{cmp.Or(plain(c.Currency), "PRICE"), func(s spent) string {
			own, ok := s.cost(c.Currency)
			switch text := fixed(own.Amount, money); {
			case !ok:
				return "-"
			case own.EnergyAmount == 0 && own.RemoteJobs > own.UnknownJobs: // of which nothing is assumed
				return text
			default:
				return s.sum(text)
			}
		}})
	}
	if all.energy.BatteryWh != nil {
		percent := decimals(all.percent(), 1)
		list = append(list, column{"BATTERY", func(s spent) string { return s.sum(fixed(s.percent(), percent) + " %") }})
	}
	return list
}

// decimals is how many make three digits that matter of the largest figure of
// a column, so that all of it lines up; least is the fewest.
func decimals(largest float64, least int) int {
	const most = 6
	if largest <= 0 {
		return least
	}
	return min(max(2-int(math.Floor(math.Log10(largest))), least), most)
}

func fixed(f float64, decimals int) string { return fmt.Sprintf("%.*f", decimals, f) }

// writeColumns writes a table whose first column is of words, and the others
// of figures.
func writeColumns(w io.Writer, columns []column, rows []spent) error {
	lines := make([][]string, len(rows)+1)
	for _, c := range columns {
		lines[0] = append(lines[0], c.title)
		for i, r := range rows {
			lines[i+1] = append(lines[i+1], c.cell(r))
		}
	}
	return writeFigures(w, lines, len(columns)-1)
}

// writeFigures writes lines of cells. After the first column there are so many
// of figures, which end where the others of their column do; all else is words.
func writeFigures(w io.Writer, lines [][]string, figures int) error {
	widths := make([]int, len(lines[0]))
	for _, cells := range lines {
		for i, cell := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, cells := range lines {
		var line strings.Builder
		for i, cell := range cells {
			if i > 0 {
				line.WriteString("  ")
			}
			if i == 0 || i > figures {
				fmt.Fprintf(&line, "%-*s", widths[i], cell)
			} else {
				fmt.Fprintf(&line, "%*s", widths[i], cell)
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}
