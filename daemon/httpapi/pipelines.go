package httpapi

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/document"
	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/pipeline"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// pipelineOf is what the path of a pipeline begins with.
const pipelineOf = "/joulemux/v1/pipelines/"

// pipelines lists what pipelines there are.
func (s *Server) pipelines(w http.ResponseWriter, _ *http.Request) {
	list := wire.Pipelines{Pipelines: []wire.Pipeline{}}
	for _, e := range s.Shelf.List() {
		list.Pipelines = append(list.Pipelines, describePipeline(e))
	}
	reply(w, http.StatusOK, list)
}

// pipeline shows one, be it that there is something wrong with it.
func (s *Server) pipeline(w http.ResponseWriter, r *http.Request) {
	e, err := s.Shelf.Find(strings.TrimPrefix(r.URL.Path, pipelineOf))
	if err != nil && !errors.Is(err, job.Invalid) {
		fail(w, err)
		return
	}
	p := describePipeline(e)
	p.Text = string(e.File)
	reply(w, http.StatusOK, p)
}

// checkPipeline says what is wrong with one that the client has.
func (s *Server) checkPipeline(w http.ResponseWriter, r *http.Request) {
	var q wire.CheckPipeline
	if !s.read(w, r, &q) {
		return
	}
	e := pipeline.Entry{Name: q.Name}
	e.Pipeline, e.Err = pipeline.Parse(q.Name, []byte(q.Text))
	reply(w, http.StatusOK, describePipeline(e))
}

func describePipeline(e pipeline.Entry) wire.Pipeline {
	d := wire.Pipeline{Name: e.Name, Path: e.Path}
	var faults document.Faults
	switch p := e.Pipeline; {
	case errors.As(e.Err, &faults):
		for _, f := range faults {
			d.Faults = append(d.Faults, wire.Fault{Line: f.Line, Key: f.Key, Text: f.Text})
		}
	case e.Err != nil:
		d.Faults = []wire.Fault{{Text: e.Err.Error()}}
	default:
		d.Description, d.NeedsInput, d.Vars = p.Description, p.NeedsInput, p.Vars
		d.MaxPowerWatts, d.DeadlineMs = p.MaxPower.Watts(), p.Deadline.Milliseconds()
		for i := range p.Stages {
			d.Stages = append(d.Stages, describeStage(&p.Stages[i]))
		}
	}
	return d
}

func describeStage(s *pipeline.Stage) wire.PipelineStage {
	d := wire.PipelineStage{ID: s.ID, Model: s.Model(), Target: s.Target()}
	for _, t := range s.Tiers {
		d.Tiers = append(d.Tiers, t.String())
	}
	if e := s.Escalation; e != nil {
		d.Escalation = &wire.PipelineStage{Model: e.Model(), Target: e.Target()}
	}
	return d
}

// runPipeline runs a pipeline of the shelf, or one that the client has.
func (s *Server) runPipeline(w http.ResponseWriter, r *http.Request) {
	var q wire.RunPipeline
	if !s.read(w, r, &q) {
		return
	}
	p, err := s.asked(q)
	if err != nil {
		fail(w, err)
		return
	}
	c, err := pipelineCall(r, q)
	if err == nil {
		err = c.Check(p)
	}
	if err != nil {
		fail(w, err)
		return
	}
	out := &stages{lines: s.lines(w), pipeline: p, failing: !c.GoOn}
	w.Header().Set("X-Request-ID", c.ID)
	o, err := s.Engine.Run(r.Context(), p, c, out)
	if err != nil {
		out.fail(r.Context(), err, func(e *wire.Error) any { return wire.PipelineEvent{Error: e} })
		return
	}
	_ = out.put(r.Context(), wire.PipelineEvent{End: endOf(o)}) // a client that is gone needs no end
}

// asked returns the pipeline that a client wants to run.
func (s *Server) asked(q wire.RunPipeline) (*pipeline.Pipeline, error) {
	if q.Text == "" {
		e, err := s.Shelf.Find(q.Pipeline)
		return e.Pipeline, err
	}
	p, err := pipeline.Parse(q.Pipeline, []byte(q.Text))
	if err != nil {
		return nil, &job.Error{Code: job.Invalid, Field: "text", Err: err}
	}
	return p, nil
}

// pipelineCall returns what a client asks of a run.
func pipelineCall(r *http.Request, q wire.RunPipeline) (pipeline.Call, error) {
	var j job.Job
	for _, key := range slices.Sorted(maps.Keys(q.Options)) {
		set := j.Annotate
		if key == "model" {
			set = j.Set
		}
		if err := set(key, q.Options[key]); err != nil {
			return pipeline.Call{}, within("options", err)
		}
	}
	if err := door.Annotate(&j, r.Header); err != nil {
		return pipeline.Call{}, err
	}
	if q.StageTimeoutMs < 0 {
		return pipeline.Call{}, job.InvalidField("stage_timeout_ms", "want a number from 0 on, got %d", q.StageTimeoutMs)
	}
	client, vouched := door.Client(r.Context(), r.Header)
	return pipeline.Call{
		ID: cmp.Or(j.ID, rand.Text()), Client: client, Vouched: vouched, Annotations: j.Annotations, Model: j.Model, Arrived: time.Now(),
		Input: q.Input, Vars: q.Vars, Stream: q.Stream, History: q.PreserveContext, GoOn: q.ContinueOnError,
		StageLimit: time.Duration(q.StageTimeoutMs) * time.Millisecond,
	}, nil
}

// stages writes a run as our own events.
type stages struct {
	*lines
	pipeline *pipeline.Pipeline
	// failing tells that a stage which fails is the end, and that how is told then.
	failing bool
}

// Routed tells the client where a stage's job goes.
func (s *stages) Routed(stage string, d route.Decision) error {
	return s.put(context.Background(), wire.PipelineEvent{Stage: stage, Last: s.pipeline.Last(stage), Routed: d.Fields()})
}

// Text writes a piece of an answer.
func (s *stages) Text(ctx context.Context, stage, text string) error {
	return s.put(ctx, wire.PipelineEvent{Stage: stage, Text: text})
}

// Done writes what a stage came to. A failure before anything was said can still
// be the answer's status.
func (s *stages) Done(r pipeline.Result) error {
	if r.Err != nil && s.failing && !s.begun {
		return nil
	}
	return s.put(context.Background(), wire.PipelineEvent{Stage: r.Stage, Done: doneOf(r)})
}

func doneOf(r pipeline.Result) *wire.StageDone {
	d := &wire.StageDone{
		Output: r.Output, Skipped: r.Skipped, Confidence: r.Confidence, Escalated: r.Escalated, Escalation: r.Why, Attempts: r.Attempts,
		TotalMs: r.Ended.Sub(r.Began).Milliseconds(), EnergyQuality: string(power.None), Jobs: []map[string]any{},
	}
	if r.Err != nil {
		d.Error = describe(r.Err)
	}
	if a := r.Answered; a != nil {
		d.Backend, d.Hardware, d.Reason, d.Model = a.Decision.Backend, string(a.Decision.Class), a.Decision.Reason(), a.Model
	}
	for _, j := range r.Jobs {
		d.Jobs = append(d.Jobs, j.Fields())
		d.PromptTokens, d.Tokens = d.PromptTokens+j.Usage.PromptTokens, d.Tokens+j.Usage.Tokens
	}
	d.EnergyQuality, d.EnergyJoules = told(r.Cost)
	return d
}

// told returns what is known of a cost.
func told(c power.Cost) (quality string, joules *float64) {
	quality = string(cmp.Or(c.Quality, power.None)) // no job at all
	if c.Known() {
		j := c.Energy.Joules()
		joules = &j
	}
	return quality, joules
}

func endOf(o pipeline.Outcome) *wire.PipelineEnd {
	e := &wire.PipelineEnd{ID: o.ID, Pipeline: o.Pipeline, Stage: o.Last, Output: o.Output, TotalMs: o.Total.Milliseconds()}
	for _, r := range o.Results {
		for _, j := range r.Jobs {
			e.Jobs, e.PromptTokens, e.Tokens = e.Jobs+1, e.PromptTokens+j.Usage.PromptTokens, e.Tokens+j.Usage.Tokens
		}
	}
	e.EnergyQuality, e.EnergyJoules = told(o.Cost)
	return e
}
