package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/joulemux/joulemux/daemon/simulate"
)

// simulated is a summary as --json has it.
type simulated struct {
	// Variation is what was changed, with --sensitivity.
	Variation string `json:"variation,omitempty"`
	simulate.Summary
}

func (a *app) recordSummaries(variation string, summaries []simulate.Summary) error {
	for _, s := range summaries {
		if err := a.record(simulated{variation, s}); err != nil {
			return err
		}
	}
	return nil
}

// writeSummaries writes a line for each policy.
func writeSummaries(w io.Writer, summaries []simulate.Summary) error {
	t := newTable(w)
	t.row("POLICY", "E/BOUND", "P10-P90", "P95", "MISSED", "PUT OFF", "HOLD",
		"CHAT", "COMPLETION", "BACKGROUND", "OF "+strings.ToUpper(simulate.Reference), "EMPTY")
	for _, s := range summaries {
		t.row(s.Policy, fixed(s.Ratio.Median, 2), fixed(s.Ratio.P10, 2)+"-"+fixed(s.Ratio.P90, 2), fixed(s.Ratio.P95, 2),
			share(s.Missed, 1), share(s.PutOff, 1), share(s.HoldShare, 0),
			firstToken(s, simulate.Interactive), firstToken(s, simulate.Completion), firstToken(s, simulate.Background),
			share(s.Against.Median, 0), fmt.Sprint(s.Emptied))
	}
	return t.flush()
}

func share(part float64, decimals int) string { return fixed(100*part, decimals) + " %" }

// firstToken is the time to it in seconds, of half of the jobs and of nineteen
// in twenty.
func firstToken(s simulate.Summary, c simulate.Class) string {
	spread, some := s.FirstToken[c]
	if !some {
		return "-"
	}
	return fixed(spread.Median, 1) + "/" + fixed(spread.P95, 1) + " s"
}

// simulateVariations shows what becomes of energy and misses when an
// assumption is changed.
func (a *app) simulateVariations(ctx context.Context, study simulate.Study) error {
	t := newTable(a.out)
	head := []string{strings.ToUpper(study.Machine.Name)}
	for _, p := range study.Policies {
		head = append(head, strings.ToUpper(p.Name))
	}
	if !a.json {
		t.row(head...)
	}
	for _, v := range simulate.Variations(&study.Machine) {
		varied := v.Of(study)
		summaries, err := varied.Run(ctx)
		if err != nil {
			return err
		}
		if a.json {
			if err := a.recordSummaries(v.Name, summaries); err != nil {
				return err
			}
			continue
		}
		cells := []string{v.Name}
		for _, s := range summaries {
			cells = append(cells, fixed(s.Ratio.Median, 2)+", "+share(s.Missed, 1))
		}
		t.row(cells...)
	}
	return t.flush()
}

// simulateRandom shows how policies do on machines that nobody has in mind.
func (a *app) simulateRandom(ctx context.Context, study simulate.Study, machines []simulate.Machine) error {
	ratios, missed := make([][]float64, len(study.Policies)), make([][]float64, len(study.Policies))
	for _, m := range machines {
		study.Machine = m
		summaries, err := study.Run(ctx)
		if err != nil {
			return err
		}
		if a.json {
			if err := a.recordSummaries("", summaries); err != nil {
				return err
			}
		}
		for i, s := range summaries {
			ratios[i], missed[i] = append(ratios[i], s.Ratio.Median), append(missed[i], s.Missed-s.Infeasible)
		}
	}
	if a.json {
		return nil
	}
	fmt.Fprintf(a.out, "%s: medians of the runs of each, and misses beyond those that no device can help\n", counted(len(machines), "random machine"))
	t := newTable(a.out)
	t.row("POLICY", "E/BOUND", "P10-P90", "WORST", "MISSED", "P10-P90", "WORST")
	for i, p := range study.Policies {
		r, m := simulate.SpreadOf(ratios[i]), simulate.SpreadOf(missed[i])
		t.row(p.Name, fixed(r.Median, 2), fixed(r.P10, 2)+"-"+fixed(r.P90, 2), fixed(slices.Max(ratios[i]), 2),
			share(m.Median, 1), share(m.P10, 1)+"-"+share(m.P90, 1), share(slices.Max(missed[i]), 1))
	}
	return t.flush()
}
