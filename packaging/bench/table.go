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
	// value is what the target is about: the ratio, where there is one.
	value, target float64
	unit          string
}

func show(w io.Writer, rows []row) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "what\tjoulemuxd\tbaseline\tratio\ttarget\tmet")
	for _, r := range rows {
		ratio, met := "-", "no"
		if r.unit == "" {
			ratio = fmt.Sprintf("%.2f", r.value)
		}
		if r.value <= r.target {
			met = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t<= %g%s\t%s\n", r.what, r.joulemux, r.baseline, ratio, r.target, r.unit, met)
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
