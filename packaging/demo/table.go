package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/power"
)

// width is what terminals are made at least for this table.
const width = 120

// standIn is the marker of every backend.
const standIn = " (CPU stands in)"

const header = `
One laptop's day. The battery is simulated. CPU processes stand in for its four devices: four Ollamas, all on this
machine's CPU, play the NPU, the integrated GPU, the NVIDIA GPU and the CPU, so tokens/s are this CPU's. The cost is
estimated: the watts assumed of the real device x the time taken here. Nothing of it is measured. All else is real:
upowerd, the buses, joulemuxd, and the clients joulemux and busctl, whose answers are all that you see.
`

const rowFormat = "%-8s  %6s  %-16s  %-29s  %8s  %s\n"

// table writes rows as they come. The first failure to write ends it.
type table struct {
	out io.Writer
	err error
}

func (t *table) printf(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.out, format, args...)
	}
}

func (t *table) header(model string) {
	t.printf("%sThe model is %s.\n\n", header, model)
	t.printf(rowFormat, "TIER", "CHARGE", "ASKED FOR", "BACKEND", "TOKENS/S", "COST")
}

// stop heads the rows of a stop.
func (t *table) stop(event string, s wire.Status) {
	t.printf("\n%s: tier %s (%s)\n", event, s.Tier, s.TierReason)
}

// row shows an answer; what it does not say of the laptop is as in s.
func (t *table) row(asked string, a answer, s wire.Status) {
	tier, backend, rate := s.Tier, "none", "-"
	if a.refusal == nil {
		tier, backend = a.Tier, a.Backend+standIn
		rate = fmt.Sprintf("%.1f", a.TokensPerSecond)
	}
	charge := fmt.Sprintf("%.0f %%", s.Supply.ChargePercent)
	t.printf(rowFormat, tier, charge, asked, backend, rate, a.cost())
	for _, line := range fold(a.why(), width-20) {
		t.printf("%20s%s\n", "", line)
	}
}

// cost is what the answer took, or that there is none.
func (a answer) cost() string {
	if a.refusal != nil {
		return string(a.outcome())
	}
	c := power.Cost{Quality: power.Quality(a.EnergyQuality)}
	if a.EnergyJoules != nil {
		c.Energy = power.Joules(*a.EnergyJoules)
	}
	if a.EnergySource == "" {
		return c.String()
	}
	return c.String() + " = " + a.EnergySource
}

func (a answer) why() string {
	if a.refusal != nil {
		return a.refusal.Text
	}
	return a.Reason
}

// fold breaks text into lines, between words. A word that is longer than a
// line stays whole.
func fold(text string, columns int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) <= columns:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
