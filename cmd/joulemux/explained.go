package main

import (
	"fmt"
	"io"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/power"
)

// writeExplanation writes where a job would go and what that was reckoned with,
// what the job would come to on each backend, and what was decided of the
// others.
func writeExplanation(w io.Writer, e wire.Explanation) error {
	t := newTable(w)
	t.row("choice", outcome(e))
	if e.Model != "" {
		t.row("model", e.Model)
	}
	t.row("prompt", counted(e.PromptTokens, "token")+", estimated from its length")
	t.row("answer", expected(e.ExpectedTokens))
	t.row("a second", worthOf(e))
	if err := t.flush(); err != nil {
		return err
	}
	if err := writeProspects(w, e); err != nil {
		return err
	}
	return writeOthers(w, e)
}

// writeOthers writes why the job would not go to the other backends.
func writeOthers(w io.Writer, e wire.Explanation) error {
	t, first := newTable(w), true
	for _, b := range e.Backends {
		if b.ID == e.Backend {
			continue
		}
		if first {
			fmt.Fprintln(w)
		}
		first = false
		t.row("not "+b.ID, b.Verdict)
	}
	return t.flush()
}

// outcome says what would become of the job.
func outcome(e wire.Explanation) string {
	switch {
	case e.Error != nil:
		return "refused: " + (&failure{record: *e.Error}).headline()
	case e.Waits:
		return fmt.Sprintf("waits for a better tier than %s, and is decided anew then; here it would be %s: %s", e.Tier, e.Backend, e.Reason)
	default:
		return e.Backend + ": " + e.Reason
	}
}

// expected says how long the answer is taken to be.
func expected(n wire.ExpectedTokens) string {
	from := "assumed"
	if n.Learned {
		from = "learned"
	}
	return fmt.Sprintf("%.0f tokens on average, as is %s of such answers; half have up to %d", n.Mean, from, n.Median)
}

// worthOf says what a second is worth.
func worthOf(e wire.Explanation) string {
	switch {
	case e.SecondWatts == nil:
		return "is worth any energy"
	case *e.SecondWatts == 0:
		return "is worth nothing: joules alone count"
	default:
		return fmt.Sprintf("is worth %v on tier %s", power.Joules(*e.SecondWatts), e.Tier)
	}
}

// figure is a column of what a job would come to.
type figure struct {
	title, unit string
	of          func(*wire.Estimate) float64
	// least and most are how many decimals there may be.
	least, most int
	// zero tells that nothing is a figure too: else it is left out, and so is
	// the column if it has no other.
	zero bool
}

// The figures that tell most, and all of them in the order in which they add
// up: joules, seconds, and then what both come to.
var (
	energyFigure = figure{"ENERGY", " J", func(e *wire.Estimate) float64 { return e.Joules }, 0, 2, true}
	firstFigure  = figure{"FIRST", " s", func(e *wire.Estimate) float64 { return float64(e.FirstTokenMs) / 1000 }, 1, 1, true}
	allFigure    = figure{"ALL", " s", func(e *wire.Estimate) float64 { return float64(e.TotalMs) / 1000 }, 1, 1, true}

	figures = []figure{
		energyFigure,
		{"LOAD", " J", func(e *wire.Estimate) float64 { return e.LoadJoules }, 0, 2, false},
		{"WORK", " J", func(e *wire.Estimate) float64 { return e.WorkJoules }, 0, 2, true},
		{"TAIL", " J", func(e *wire.Estimate) float64 { return e.TailJoules }, 0, 2, false},
		{"J/TOKEN", "", func(e *wire.Estimate) float64 { return e.JoulesPerToken }, 2, 6, false},
		{"LINE", " s", func(e *wire.Estimate) float64 { return float64(e.WaitMs) / 1000 }, 1, 1, false},
		firstFigure,
		allFigure,
		{"LATE", " %", func(e *wire.Estimate) float64 { return 100 * e.LateProbability }, 0, 0, false},
		{"COST", " J", func(e *wire.Estimate) float64 { return e.CostJoules }, 0, 2, true},
	}
)

// cells are those of the column, under its title. There are none if it has
// nothing to show.
func (f figure) cells(estimates []*wire.Estimate) []string {
	largest := 0.0
	for _, e := range estimates {
		if e != nil {
			largest = max(largest, f.of(e))
		}
	}
	if largest == 0 && !f.zero {
		return nil
	}
	list := []string{f.title}
	for _, e := range estimates {
		if e == nil || f.of(e) == 0 && !f.zero {
			list = append(list, "-")
			continue
		}
		list = append(list, fixed(f.of(e), min(decimals(largest, f.least), f.most))+f.unit)
	}
	return list
}

// writeProspects writes what the job would come to on each backend, if that is
// known of any.
func writeProspects(w io.Writer, e wire.Explanation) error {
	var estimates []*wire.Estimate
	lines := [][]string{{"  BACKEND"}}
	known := false
	for _, b := range e.Backends {
		known = known || b.Estimate != nil
		estimates = append(estimates, b.Estimate)
		lines = append(lines, []string{marked(e, b) + plain(fmt.Sprintf("%s (%s)", b.ID, b.Hardware))})
	}
	if !known {
		return nil
	}
	columns := 0
	for _, f := range figures {
		if cells := f.cells(estimates); cells != nil {
			columns++
			addColumn(lines, cells)
		}
	}
	from := []string{"FIGURES"}
	for _, n := range estimates {
		from = append(from, source(n))
	}
	addColumn(lines, from)
	fmt.Fprintln(w)
	return writeFigures(w, lines, columns)
}

func addColumn(lines [][]string, cells []string) {
	for i, cell := range cells {
		lines[i] = append(lines[i], cell)
	}
}

// marked begins the row of a backend: with an arrow where the job would go.
func marked(e wire.Explanation, b wire.Prospect) string {
	if b.ID == e.Backend {
		return "> "
	}
	return "  "
}

// source says what the figures of a backend stand on.
func source(e *wire.Estimate) string {
	switch {
	case e == nil:
		return "-"
	case e.Quality == "none":
		return "nothing spent here"
	case e.Quality != "estimated":
		return "learned, " + counted(e.Samples, "job")
	case e.Samples > 0:
		return "watts assumed, " + counted(e.Samples, "job")
	default:
		return "assumed"
	}
}

// writeChoices writes a line for each tier.
func writeChoices(w io.Writer, all []wire.Explanation) error {
	var chosen []*wire.Estimate
	lines, backends, reasons := [][]string{{"TIER"}}, []string{"BACKEND"}, []string{"WHY"}
	for _, e := range all {
		n, where := choice(e)
		chosen = append(chosen, n)
		lines, backends, reasons = append(lines, []string{plain(e.Tier)}), append(backends, plain(where)), append(reasons, plain(why(e)))
	}
	shown := []figure{energyFigure, firstFigure, allFigure}
	for _, f := range shown {
		addColumn(lines, f.cells(chosen))
	}
	addColumn(lines, backends)
	addColumn(lines, reasons)
	return writeFigures(w, lines, len(shown))
}

// choice returns what the job would come to where it would go now, if it would.
func choice(e wire.Explanation) (n *wire.Estimate, where string) {
	for _, b := range e.Backends {
		if b.ID == e.Backend && !e.Waits {
			return b.Estimate, b.ID
		}
	}
	return nil, "-"
}

// why says why a job would go where it would, or why it would not.
func why(e wire.Explanation) string {
	switch {
	case e.Error != nil:
		return "refused: " + e.Error.Text
	case e.Waits:
		return "waits for a better tier"
	default:
		return e.Reason
	}
}
