package dbus

import (
	"strings"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
)

// answer collects an answer that is wanted in one piece.
type answer struct {
	most    int // bytes of text
	text    strings.Builder
	vectors [][]float64
	report  *dispatch.Report
}

// Routed has nothing to do: the report has the decision.
func (*answer) Routed(route.Decision) {}

// Begin has nothing to do.
func (*answer) Begin(job.Head) error { return nil }

// Chunk adds a piece.
func (a *answer) Chunk(c job.Chunk, r *dispatch.Report) error {
	if a.text.Len()+len(c.Text) > a.most {
		return job.Errorf(job.Cancelled, "the answer is longer than %d bytes; have it streamed", a.most)
	}
	a.text.WriteString(c.Text)
	for _, vector := range c.Vectors {
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
