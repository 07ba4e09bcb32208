package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// row is a line of the table.
type row struct {
	what, joulemux, baseline string
	// value is what the target is about: the ratio, where there is one. A target
	// of zero is none.
	value, target float64
	unit          string
}

func show(w io.Writer, rows []row) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "what\tjoulemuxd\tbaseline\tfigure\ttarget\tmet")
	for _, r := range rows {
		figure, target, met := fmt.Sprintf("%.2f%s", r.value, r.unit), fmt.Sprintf("<= %g%s", r.target, r.unit), "no"
		switch {
		case r.target == 0:
			target, met = "-", "-"
		case r.value <= r.target:
			met = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.what, r.joulemux, r.baseline, figure, target, met)
	}
	_ = t.Flush()
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}
