package dbus

import (
	"context"
	"strings"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
)

// answer collects an answer that is wanted in one piece.
type answer struct {
	limits  limits
	text    strings.Builder
	vectors [][]float64
	size    int // of the vectors on the bus, in bytes
	report  *dispatch.Report
}

// Routed has nothing to do: the report has the decision.
func (*answer) Routed(route.Decision) {}

// Begin has nothing to do.
func (*answer) Begin(job.Head) error { return nil }

// Chunk adds a piece.
func (a *answer) Chunk(_ context.Context, c job.Chunk, r *dispatch.Report) error {
	if a.text.Len()+len(c.Text) > a.limits.text {
		return job.Errorf(job.Cancelled, "the answer is longer than %d bytes; have it streamed", a.limits.text)
	}
	a.text.WriteString(c.Text)
	for _, vector := range c.Vectors {
		a.size += 8 + 8*len(vector) // its length with the padding, and its numbers
		if a.size > a.limits.vectors {
			return job.Errorf(job.Cancelled, "the vectors are longer than %d bytes; have fewer texts embedded at a time", a.limits.vectors)
		}
		a.vectors = append(a.vectors, widened(vector))
	}
	if r != nil {
		a.report = r
	}
	return nil
}

// fields returns what the job took.
func (a *answer) fields() map[string]any {
	if a.report == nil {
		return nil
	}
	return a.report.Fields()
}

// widened returns the vector in the one type that D-Bus has for real numbers.
func widened(vector []float32) []float64 {
	wide := make([]float64, len(vector))
	for i, x := range vector {
		wide[i] = float64(x)
	}
	return wide
}
