package grpcapi

import (
	"context"
	"strings"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
)

// answer collects an answer that is wanted in one piece.
type answer struct {
	longest int
	text    strings.Builder
	vectors [][]float32
	report  *dispatch.Report
}

// Routed has nothing to do: the report has the decision.
func (*answer) Routed(route.Decision) {}

// Begin has nothing to do.
func (*answer) Begin(job.Head) error { return nil }

// Chunk adds a piece.
func (a *answer) Chunk(_ context.Context, c job.Chunk, r *dispatch.Report) error {
	if a.text.Len()+len(c.Text) > a.longest {
		return job.Errorf(job.Cancelled, "the answer is longer than %d bytes; have it streamed", a.longest)
	}
	a.text.WriteString(c.Text)
	a.vectors = append(a.vectors, c.Vectors...)
	if r != nil {
		a.report = r
	}
	return nil
}

// stream sends an answer piece by piece.
type stream struct {
	*client
	id       string
	to       func(*computev1.GenerateStreamResponse) error
	decision route.Decision
	begun    bool
}

// Routed keeps the decision for the first message: until then another backend
// may take over.
func (s *stream) Routed(d route.Decision) { s.decision = d }

// Begin has nothing to do.
func (*stream) Begin(job.Head) error { return nil }

// Chunk sends the text, and what the job took.
func (s *stream) Chunk(ctx context.Context, c job.Chunk, r *dispatch.Report) error {
	if c.Text != "" {
		if err := s.put(ctx, &computev1.GenerateStreamResponse{Token: c.Text}); err != nil {
			return err
		}
	}
	if r == nil {
		return nil
	}
	return s.put(ctx, &computev1.GenerateStreamResponse{
		Done: true, Stats: statsOf(r), Routing: routingOf(r), RequestId: r.ID, Model: text(r.Model), FromCache: r.FromCache(),
	})
}

// put sends a message; the first tells who answers.
func (s *stream) put(ctx context.Context, m *computev1.GenerateStreamResponse) error {
	if !s.begun {
		s.begun = true
		m.BackendUsed, m.RequestId = s.decision.Backend, s.id
		if m.Routing == nil {
			m.Routing = routeOf(s.decision)
		}
	}
	return s.send(ctx, func() error { return s.to(m) })
}
