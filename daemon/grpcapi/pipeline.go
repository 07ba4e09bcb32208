package grpcapi

import (
	"context"
	"maps"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/pipeline"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// ExecutePipeline runs a pipeline.
func (s service) ExecutePipeline(ctx context.Context, q *computev1.ExecutePipelineRequest) (*computev1.ExecutePipelineResponse, error) {
	return s.pipeline(ctx, q, &stages{client: s.client(ctx)})
}

// ExecutePipelineStream runs a pipeline, and tells how it goes.
func (s service) ExecutePipelineStream(ctx context.Context, q *computev1.ExecutePipelineRequest, to *connect.ServerStream[computev1.PipelineStreamResponse]) error {
	out := &stages{client: s.client(ctx), to: to.Send}
	a, err := s.pipeline(ctx, q, out)
	if err != nil {
		return err
	}
	return to.Send(&computev1.PipelineStreamResponse{Done: true, FinalResult: a})
}

// pipeline runs a client's pipeline. Once it has begun, that it fails is an answer
// too, as long as the call has not ended.
func (s service) pipeline(ctx context.Context, q *computev1.ExecutePipelineRequest, out *stages) (*computev1.ExecutePipelineResponse, error) {
	c, err := pipelineCall(q, header(ctx))
	info, _ := connect.CallInfoForHandlerContext(ctx)
	var found pipeline.Entry
	if err == nil {
		found, err = s.Shelf.Find(q.GetPipelineId())
	}
	if err == nil {
		err = c.Check(found.Pipeline)
	}
	if err != nil {
		return nil, errorOf(ctx, c.ID, err)
	}
	info.ResponseHeader().Set(requestID, c.ID)
	c.Client, c.Vouched = door.Client(ctx, info.RequestHeader())
	c.Stream = c.Stream && out.to != nil
	out.heat, out.metadata = s.Heat, q.GetOptions().GetCollectMetrics()
	o, err := s.Engine.Run(ctx, found.Pipeline, c, out)
	if err != nil && ctx.Err() != nil {
		out.lastly()
		info.ResponseHeader().Del(requestID) // the error has it
		return nil, errorOf(ctx, c.ID, err)
	}
	out.finally()
	return outcomeOf(o, err, out.results), nil
}

// pipelineCall returns what is asked of a run. With an error it has its name at
// least.
func pipelineCall(q *computev1.ExecutePipelineRequest, head http.Header) (pipeline.Call, error) {
	j, err := finish(job.Job{Model: q.GetModel()}, q.GetAnnotations(), q.GetRequestId(), head)
	o := q.GetOptions()
	c := pipeline.Call{
		ID: j.ID, Annotations: j.Annotations, Model: j.Model, Arrived: time.Now(), Vars: maps.Clone(q.GetInput()),
		Stream: o.GetEnableStreaming(), History: o.GetPreserveContext(), GoOn: o.GetContinueOnError(),
		StageLimit: time.Duration(o.GetStageTimeoutMs()) * time.Millisecond,
	}
	c.Input = c.Vars["input"]
	delete(c.Vars, "input")
	if err == nil && c.StageLimit < 0 {
		err = job.InvalidField("options.stage_timeout_ms", "want a number from 0 on, got %d", o.GetStageTimeoutMs())
	}
	return c, err
}

// stages keeps what stages came to, and tells it.
type stages struct {
	*client
	to       func(*computev1.PipelineStreamResponse) error // nil for an answer in one piece
	metadata bool
	heat     func() power.Heat
	results  []*computev1.StageResult
}

// Routed has nothing to do: the result has it.
func (*stages) Routed(string, route.Decision) error { return nil }

// Text sends a piece of a stage's output.
func (s *stages) Text(ctx context.Context, stage, text string) error {
	return s.put(ctx, &computev1.PipelineStreamResponse{StageId: stage, PartialOutput: text})
}

// Done sends what a stage came to.
func (s *stages) Done(r pipeline.Result) error {
	result := resultOf(r)
	if s.metadata {
		result.Metadata = metadataOf(r, s.heat)
	}
	s.results = append(s.results, result)
	return s.put(context.Background(), &computev1.PipelineStreamResponse{StageId: r.Stage, Done: true, StageResult: result})
}

func (s *stages) put(ctx context.Context, m *computev1.PipelineStreamResponse) error {
	if s.to == nil {
		return nil
	}
	return s.send(ctx, func() error { return s.to(m) })
}

func resultOf(r pipeline.Result) *computev1.StageResult {
	result := &computev1.StageResult{StageId: r.Stage, Success: r.Err == nil, Output: text(r.Output), Skipped: r.Skipped}
	if r.Err != nil {
		result.Error = clip(r.Err.Error())
	}
	if r.Answered != nil {
		result.Backend, result.Routing = r.Answered.Decision.Backend, routingOf(r.Answered)
	}
	return result
}

func metadataOf(r pipeline.Result, heat func() power.Heat) *computev1.StageMetadata {
	m := &computev1.StageMetadata{
		StartTimeUnix: r.Began.Unix(), EndTimeUnix: r.Ended.Unix(), DurationMs: r.Ended.Sub(r.Began).Milliseconds(),
		Forwarded: r.Escalated, ForwardReason: clip(r.Why), AttemptCount: number(r.Attempts),
		Temperature: float32(heat().Last.Temperature),
	}
	if r.Answered != nil {
		m.Model = text(r.Answered.Model)
	}
	if r.Confidence != nil {
		m.Confidence = float32(*r.Confidence)
	}
	in, out := 0, 0
	for _, j := range r.Jobs {
		in, out = in+j.Usage.PromptTokens, out+j.Usage.Tokens
		m.Jobs = append(m.Jobs, statsOf(j))
	}
	m.TokensIn, m.TokensOut = number(in), number(out)
	m.EnergyQuality, m.EnergyJoules, _ = energyOf(r.Cost)
	return m
}

// energyOf returns what is known of a cost that is told as it is.
func energyOf(c power.Cost) (quality string, joules, wattHours float64) {
	switch {
	case c.Quality == "": // no job at all
		return string(power.None), 0, 0
	case !c.Known():
		return string(c.Quality), 0, 0
	default:
		return string(c.Quality), c.Energy.Joules(), c.Energy.WattHours()
	}
}

func outcomeOf(o pipeline.Outcome, err error, results []*computev1.StageResult) *computev1.ExecutePipelineResponse {
	a := &computev1.ExecutePipelineResponse{
		PipelineId: o.Pipeline, Success: err == nil, StageResults: results, TotalTimeMs: milliseconds(o.Total), RequestId: o.ID,
	}
	if err != nil {
		a.Error = clip(err.Error())
	}
	if o.Last != "" {
		a.FinalOutput = map[string]string{o.Last: text(o.Output)}
	}
	quality, joules, wattHours := energyOf(o.Cost)
	a.EnergyQuality, a.EnergyJoules, a.TotalEnergyWh = quality, joules, float32(wattHours)
	return a
}
