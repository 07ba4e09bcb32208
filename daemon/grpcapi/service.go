package grpcapi

import (
	"context"
	"net/http"

	"connectrpc.com/connect"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/job"
)

// service is what peers can call.
type service struct{ *Server }

// Generate answers a prompt in one piece.
func (s service) Generate(ctx context.Context, q *computev1.GenerateRequest) (*computev1.GenerateResponse, error) {
	j, err := generateJob(q, header(ctx))
	a := &answer{longest: s.longest}
	if err := s.run(ctx, s.client(ctx), j, err, a); err != nil {
		return nil, err
	}
	return &computev1.GenerateResponse{
		Response: a.text.String(), BackendUsed: a.report.Decision.Backend,
		Routing: routingOf(a.report), Stats: statsOf(a.report), RequestId: a.report.ID, Model: text(a.report.Model),
		FromCache: a.report.FromCache(),
	}, nil
}

// GenerateStream answers a prompt piece by piece.
func (s service) GenerateStream(ctx context.Context, q *computev1.GenerateRequest, to *connect.ServerStream[computev1.GenerateStreamResponse]) error {
	j, err := generateJob(q, header(ctx))
	c := s.client(ctx)
	return s.run(ctx, c, j, err, &stream{client: c, id: j.ID, to: to.Send})
}

// Embed turns a text into a vector.
func (s service) Embed(ctx context.Context, q *computev1.EmbedRequest) (*computev1.EmbedResponse, error) {
	j, err := embedJob(q, header(ctx))
	a := &answer{longest: s.longest}
	if err := s.run(ctx, s.client(ctx), j, err, a); err != nil {
		return nil, err
	}
	if len(a.vectors) != 1 {
		return nil, errorOf(ctx, j.ID, job.Errorf(job.BackendFailed, "%s answers with %d vectors, want one", a.report.Decision.Backend, len(a.vectors)))
	}
	return &computev1.EmbedResponse{
		Embedding: a.vectors[0], BackendUsed: a.report.Decision.Backend,
		Routing: routingOf(a.report), Stats: statsOf(a.report), RequestId: a.report.ID, Model: text(a.report.Model),
		FromCache: a.report.FromCache(),
	}, nil
}

// run runs a client's job unless there is none, for the reason given, and turns
// what it fails with into the wire's error.
func (s service) run(ctx context.Context, c *client, j job.Job, wrong error, to dispatch.Sink) error {
	if wrong != nil {
		return errorOf(ctx, j.ID, wrong)
	}
	info, _ := connect.CallInfoForHandlerContext(ctx)
	info.ResponseHeader().Set(requestID, j.ID)
	j.Client, j.Vouched = door.Client(ctx, info.RequestHeader())
	if err := s.Runner.Run(ctx, j, to); err != nil {
		c.lastly()
		info.ResponseHeader().Del(requestID) // the error has it
		return errorOf(ctx, j.ID, err)
	}
	c.finally()
	return nil
}

// header returns the head of the request.
func header(ctx context.Context) http.Header {
	info, _ := connect.CallInfoForHandlerContext(ctx) // every handler has it
	return info.RequestHeader()
}
