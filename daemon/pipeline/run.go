package pipeline

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// Runner runs jobs. *dispatch.Dispatcher does.
type Runner interface {
	Run(ctx context.Context, j job.Job, sink dispatch.Sink) error
}

// Engine runs pipelines.
type Engine struct {
	Runner Runner
	// Tier tells the tier in force.
	Tier func(ctx context.Context) power.Tier
}

// Call is what is asked of a run.
type Call struct {
	// ID names the run, and with a stage's id behind it each of its jobs; "" has
	// one made up.
	ID string
	// Client and Vouched are of every job.
	Client  string
	Vouched bool
	// Annotations are of every job, but for Deadline, which is of the run.
	job.Annotations
	// Model is that of every job, unless "".
	Model   string
	Arrived time.Time
	Input   string
	Vars    map[string]string
	// Stream has the answers told as they come.
	Stream bool
	// History has each stage know what those before it were asked and answered.
	History bool
	// GoOn has the run go on after a stage that fails.
	GoOn bool
	// StageLimit is how long a stage may take; zero does not bound it.
	StageLimit time.Duration
}

// Listener is told of a run as it goes. An error means that who waits is gone. The
// context ends with the job.
type Listener interface {
	// Routed is called before each attempt at each job.
	Routed(stage string, d route.Decision) error
	// Text is called for pieces of answers, if the call says Stream.
	Text(ctx context.Context, stage, text string) error
	// Done is called when a stage is over.
	Done(Result) error
}

// Result is what a stage came to.
type Result struct {
	Stage string
	// Output is the answer, without white space around it.
	Output string
	// Skipped says why the stage was not run, and Err why it has no answer.
	Skipped string
	Err     error
	// Jobs are the reports of those that were answered, the first answer first.
	Jobs []*dispatch.Report
	// Answered is the one of them whose answer stands; nil if there is none.
	Answered *dispatch.Report
	// Attempts are how often a backend was asked.
	Attempts int
	// Confidence is that of the answer; nil is not known.
	Confidence *float64
	// Escalated tells that the answer is of the other model, and Why why, or why
	// it is not; "" for a stage without an escalation.
	Escalated bool
	Why       string
	// Cost is what is known that its jobs took, as callers may see it.
	Cost         power.Cost
	Began, Ended time.Time
}

// Outcome is what a run came to.
type Outcome struct {
	ID, Pipeline string
	// Results are of the stages in the order in which they were run or skipped.
	Results []Result
	// Last is the stage whose answer Output is; "" if none has answered.
	Last, Output string
	Cost         power.Cost
	Total        time.Duration
}

// Check says what is wrong with what is asked of a pipeline, as a *job.Error.
func (c *Call) Check(p *Pipeline) error {
	size := len(c.Input)
	for _, value := range c.Vars {
		size += len(value)
	}
	if size > longestText {
		return job.Errorf(job.PromptTooLarge, "%d bytes of input, the limit is %d", size, longestText)
	}
	if p.NeedsInput && strings.TrimSpace(c.Input) == "" {
		return job.InvalidField("input", "it is empty")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Vars)) {
		if _, ok := p.Vars[name]; !ok {
			return job.InvalidField("vars."+name, "the pipeline %s has no such variable%s", p.Name, suggestion(name, maps.Keys(p.Vars)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Vars)) {
		if _, given := c.Vars[name]; !given && p.Vars[name] == nil {
			return job.InvalidField("vars."+name, "it has to be given")
		}
	}
	return nil
}

// Run runs a pipeline. The outcome tells of the stages so far also if the run
// fails, which is always with a *job.Error.
func (e *Engine) Run(ctx context.Context, p *Pipeline, c Call, to Listener) (Outcome, error) {
	if c.ID == "" {
		c.ID = rand.Text()
	}
	if c.Arrived.IsZero() {
		c.Arrived = time.Now()
	}
	r := &run{Engine: e, pipeline: p, call: c, to: to, outcome: Outcome{ID: c.ID, Pipeline: p.Name}}
	err := c.Check(p)
	if err == nil {
		err = r.run(ctx)
	}
	r.outcome.Total = time.Since(c.Arrived)
	return r.outcome, err
}

// run is a run under way.
type run struct {
	*Engine
	pipeline *Pipeline
	call     Call
	to       Listener
	outcome  Outcome
	data     data
	prompt   string // of the latest stage
	history  []job.Message
}

// run takes one stage after the other.
func (r *run) run(ctx context.Context) error {
	limit := least(r.call.Deadline, r.pipeline.Deadline)
	if limit > 0 {
		passed := job.Errorf(job.DeadlinePassed, "%d ms", limit.Milliseconds())
		var stop context.CancelFunc
		ctx, stop = context.WithDeadlineCause(ctx, r.call.Arrived.Add(limit), passed)
		defer stop()
	}
	r.begin()
	var failed error
	for at := 0; at != end; {
		s := &r.pipeline.Stages[at]
		result := r.stage(ctx, s)
		r.keep(s, result)
		if err := r.to.Done(result); err != nil && result.Err == nil {
			result.Err = gone(err)
		}
		failed = result.Err
		if failed != nil && (!r.call.GoOn || ctx.Err() != nil) {
			return failed
		}
		at = r.next(s)
	}
	if r.outcome.Last == "" && failed == nil {
		return job.Errorf(job.PowerPolicy, "no stage has an answer: the last is %s", r.outcome.Results[len(r.outcome.Results)-1].Skipped)
	}
	return failed
}

// begin makes what templates refer to.
func (r *run) begin() {
	d := data{Input: r.call.Input, Vars: maps.Clone(r.call.Vars), Stages: make(map[string]string), Fields: make(map[string]map[string]string)}
	if d.Vars == nil {
		d.Vars = make(map[string]string)
	}
	for name, value := range r.pipeline.Vars {
		if _, given := d.Vars[name]; !given && value != nil {
			d.Vars[name] = *value
		}
	}
	for _, s := range r.pipeline.Stages {
		d.Stages[s.ID], d.Fields[s.ID] = "", make(map[string]string)
		for _, name := range r.pipeline.fields[s.ID] {
			d.Fields[s.ID][name] = ""
		}
	}
	r.data = d
}

// keep takes in what a stage came to.
func (r *run) keep(s *Stage, result Result) {
	o := &r.outcome
	o.Results = append(o.Results, result)
	o.Cost = o.Cost.Plus(result.Cost)
	if result.Answered == nil {
		return
	}
	o.Last, o.Output = s.ID, result.Output
	r.data.Stages[s.ID] = result.Output
	maps.Copy(r.data.Fields[s.ID], fieldsOf(result.Output))
	if r.call.History {
		r.history = append(r.history, job.Message{Role: "user", Content: r.prompt}, job.Message{Role: "assistant", Content: result.Output})
	}
}

// next returns the stage that follows.
func (r *run) next(s *Stage) int {
	for _, b := range s.next {
		if b.when == nil || r.holds(b.when) {
			return b.to
		}
	}
	return end
}

// holds reports whether a condition holds. Of an answer that is not there nothing
// does.
func (r *run) holds(c *condition) bool {
	of := &r.pipeline.Stages[c.stage]
	if !slices.ContainsFunc(r.outcome.Results, func(d Result) bool { return d.Stage == of.ID && d.Answered != nil }) {
		return false
	}
	if c.field != "" {
		return c.test.holds(r.data.Fields[of.ID][c.field], nil)
	}
	return c.test.holds(r.data.Stages[of.ID], of.required)
}

// stage runs a stage.
func (r *run) stage(ctx context.Context, s *Stage) Result {
	result := Result{Stage: s.ID, Began: time.Now()}
	if tier := r.Tier(ctx); !runs(s.Tiers, tier) {
		result.Skipped = fmt.Sprintf("not on tier %v", tier)
		result.Ended = result.Began
		return result
	}
	err := r.answer(ctx, s, &result)
	if err == nil && len(r.pipeline.fields[s.ID]) > 0 && fieldsOf(result.Output) == nil {
		err = job.Errorf(job.BackendFailed, "%s does not answer with a JSON object", result.Answered.Decision.Backend)
	}
	if err != nil {
		result.Err, result.Answered, result.Output = of(s.ID, err), nil, ""
	}
	result.Ended = time.Now()
	return result
}

// answer has a stage answered.
func (r *run) answer(ctx context.Context, s *Stage, result *Result) error {
	messages, err := r.messages(s)
	if err != nil {
		return err
	}
	if limit := least(s.options.Deadline, r.call.StageLimit); limit > 0 {
		passed := job.Errorf(job.DeadlinePassed, "%d ms", limit.Milliseconds())
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, limit, passed)
		defer stop()
	}
	tell := func(ctx context.Context, text string) error { return r.to.Text(ctx, s.ID, text) }
	if !r.call.Stream {
		tell = nil
	}
	options, err := r.named(s.options, s.model)
	if err != nil {
		return err
	}
	e := s.Escalation
	if e == nil {
		a, err := r.job(ctx, s, options, messages, false, tell, result)
		return take(result, a, err)
	}
	probable := e.below > 0
	other, err := r.named(e.options, e.model)
	if err != nil {
		return err
	}
	first, err := r.job(ctx, s, options, messages, probable, nil, result)
	if err := take(result, first, err); err != nil {
		return err
	}
	var asks bool
	if asks, result.Why = e.doubts(s, first, r.Tier(ctx)); asks && options.Model == other.Model && (options.Target == other.Target || r.call.Target != "") {
		result.Why += ", but it would be the same model once more"
	} else if asks {
		second, err := r.job(ctx, s, other, messages, probable, tell, result)
		switch err := take(result, second, err); {
		case err == nil:
			result.Escalated = true
		case second.told || second.gone != nil || errors.Is(ctx.Err(), context.Canceled):
			return err // what was told cannot be taken back, and nobody may be there to be told more
		default:
			result.Why += ", and the other model has no answer: " + err.Error()
		}
	}
	if tell != nil && !result.Escalated {
		if err := tell(ctx, first.text.String()); err != nil {
			return gone(err)
		}
	}
	return nil
}

// named returns a job's options with the model that its stage names, unless the
// caller does.
func (r *run) named(j job.Job, model text) (job.Job, error) {
	name, err := model.render(r.data)
	j.Model = cmp.Or(r.call.Model, strings.TrimSpace(name))
	return j, err
}

// take makes an answer the stage's, unless it is none.
func take(result *Result, a *answer, err error) error {
	if err == nil {
		err = a.err()
	}
	if err != nil {
		return err
	}
	result.Output, result.Answered, result.Confidence = strings.TrimSpace(a.text.String()), a.report, a.confidence()
	return nil
}

// doubts reports whether another model is to be asked, and why, or why not.
func (e *Escalation) doubts(s *Stage, a *answer, tier power.Tier) (asks bool, why string) {
	sure := a.confidence()
	switch {
	case sure != nil && e.below > 0:
		asks = *sure < e.below
		why = fmt.Sprintf("confidence %.2f is not below %.2f", *sure, e.below)
		if asks {
			why = fmt.Sprintf("confidence %.2f is below %.2f", *sure, e.below)
		}
	case e.check != nil:
		asks = !e.check.holds(strings.TrimSpace(a.text.String()), s.required)
		why = "the check holds"
		if asks {
			why = "the check does not hold"
		}
	default:
		why = a.report.Decision.Backend + " tells no probabilities, and there is no check"
	}
	if asks && !runs(e.tiers, tier) {
		return false, why + fmt.Sprintf(", but there is no other model on tier %v", tier)
	}
	return asks, why
}

// messages are what a stage asks.
func (r *run) messages(s *Stage) ([]job.Message, error) {
	var list []job.Message
	system, err := s.system.render(r.data)
	if err != nil {
		return nil, err
	}
	if system != "" {
		list = append(list, job.Message{Role: "system", Content: system})
	}
	prompt, err := s.prompt.render(r.data)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(prompt) == "" {
		return nil, job.Errorf(job.Invalid, "its prompt comes out empty")
	}
	r.prompt = prompt
	return append(append(list, r.history...), job.Message{Role: "user", Content: prompt}), nil
}

// job runs a job of a stage. There is an answer also with an error, as far as it
// came.
func (r *run) job(ctx context.Context, s *Stage, options job.Job, messages []job.Message, probable bool, tell func(context.Context, string) error, result *Result) (*answer, error) {
	a := &answer{tell: tell, routed: func(d route.Decision) error {
		result.Attempts++
		return r.to.Routed(s.ID, d)
	}}
	j, err := r.annotate(ctx, s, options, len(result.Jobs)+1)
	if err != nil {
		return a, err
	}
	err = r.Runner.Run(ctx, ask(j, s, messages, probable), a)
	switch {
	case a.report != nil:
		result.Jobs = append(result.Jobs, a.report)
		result.Cost = result.Cost.Plus(a.report.Cost.Told())
	case a.decision != nil:
		// It has taken something that the ledger knows, and we do not.
		result.Cost = result.Cost.Plus(power.Cost{Quality: power.Unknown})
	}
	return a, err
}

// annotate returns a stage's options with what the caller and the pipeline say of
// them.
func (r *run) annotate(ctx context.Context, s *Stage, j job.Job, n int) (job.Job, error) {
	c := r.call
	j.ID, j.Client, j.Vouched, j.Arrived = c.ID+"."+s.ID, c.Client, c.Vouched, time.Now()
	if n > 1 {
		j.ID += fmt.Sprintf(".%d", n)
	}
	j.MaxPower = least(j.MaxPower, least(c.MaxPower, r.pipeline.MaxPower))
	j.MaxLatency = least(j.MaxLatency, c.MaxLatency)
	if c.Target != "" {
		j.Target = c.Target
	}
	if c.Class != "" {
		j.Class = c.Class
	}
	if len(c.Preferred) > 0 {
		j.Preferred = c.Preferred
	}
	j.LatencyCritical = j.LatencyCritical || c.LatencyCritical
	j.PreferPowerEfficiency = j.PreferPowerEfficiency || c.PreferPowerEfficiency
	if c.CacheEnabled || c.CacheRefused {
		j.CacheEnabled, j.CacheRefused = c.CacheEnabled, c.CacheRefused
	}
	j.Custom, j.Deadline = c.Custom, 0
	if err := ctx.Err(); err != nil {
		return j, context.Cause(ctx)
	}
	if until, ok := ctx.Deadline(); ok {
		// A little later than ours, which then is the one that passes.
		j.Deadline = max(0, until.Sub(j.Arrived)).Truncate(time.Millisecond) + time.Millisecond
	}
	return j, nil
}

// least returns the lesser of two limits, of which zero is none.
func least[T ~int64](a, b T) T {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// of returns an error with the name of the stage that it is of.
func of(stage string, err error) *job.Error {
	e := &job.Error{Code: job.Cancelled, Detail: "the client is gone"}
	var known *job.Error
	if errors.As(err, &known) {
		copied := *known
		e = &copied
	}
	e.Answer = nil // in words of a server that the caller knows nothing of
	e.Detail = strings.TrimSuffix("stage "+stage+": "+e.Detail, ": ")
	return e
}

// gone is the error for a caller who does not take what he is told.
func gone(err error) error {
	return &job.Error{Code: job.Cancelled, Detail: "the answer cannot be delivered", Err: err}
}
