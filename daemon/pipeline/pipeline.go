// Package pipeline runs several jobs for one request: stages, each on the tiers
// and devices that it names, of which one's answer decides what comes next, and
// of which a small model's answer may be given to a larger one to do better.
//
// A pipeline is a YAML file:
//
//	description: Tells questions from texts, and answers or summarises.
//	vars: {language: English}       # with defaults; one without (~) has to be given
//	max_power_watts: 60             # of every job; whoever asks may want less, not more
//	deadline_ms: 120000             # of the whole run, from its beginning
//	stages:
//	  - id: sort                    # letters, digits and _
//	    target: npu                 # a backend's id or a device class; else any
//	    prompt: |                   # a template, see below
//	      Is this a question or a text? Answer with one word.
//
//	      {{clip 2000 .Input}}
//	    max_tokens: 4
//	    temperature: 0
//	    next:                       # the first that holds; else the stage below
//	      - {when: {contains: question}, to: answer}
//	      - {to: summary}           # the last is without a condition
//	  - id: answer
//	    prompt: "Answer in {{.Vars.language}}: {{.Input}}"
//	    escalate:                   # the stage's own answer first, and then, if in doubt,
//	      model: qwen2.5:7b         # one of this model,
//	      target: igpu              # here,
//	      tiers: [mains, battery]   # on these tiers
//	      confidence_below: 0.7     # the doubt, where the server tells probabilities,
//	      check: {min_words: 3}     # and what has to hold where it does not
//	    next: end
//	  - id: summary
//	    tiers: [mains, battery]     # on others it is skipped
//	    prompt: "Summarise in {{.Vars.language}}: {{.Input}}"
//
// Stages follow each other as they stand in the file, but where next says which
// comes, or that the run ends. There is no way back, so that every stage runs
// once at most; the answer of the last one is the pipeline's.
//
// A stage takes the options of a job by their usual names (model, target, class,
// preference, latency_critical, prefer_power_efficiency, cache_enabled,
// max_latency_ms, deadline_ms, max_power_watts, max_tokens, temperature, top_p,
// top_k, context_length, stop), a prompt and a system text, think (whether a
// model that can is to think first), and format: json, or a JSON schema that the
// answer has. deadline_ms is of the whole stage. What the caller says of the run
// goes before: the least power, latency and time hold, and his model, target and
// class stand for the stages' own.
//
// A model can be a variable's value, as in model: "{{.Vars.large}}"; where that is
// empty, it is the default one. Prompts and system texts are Go's text/template, without loops, definitions and
// variables. There are .Input, .Vars.NAME, .Stages.ID, the answer of a stage
// before, and .Fields.ID.NAME, a member of the answer of one with a format. The
// functions are and, or, not, eq, ne, lt, le, gt, ge, len, lower, trim, and clip N,
// which keeps the first N characters. Of a stage that may not have run before,
// because it is on another way or skipped on some tier, a template has to ask
// whether there is an answer: {{with .Stages.x}}, {{if}}, or {{or .Stages.x .Input}}.
//
// A condition is about the answer of its own stage, or of the one that stage
// names, or of that a member, field. In it, all of these hold that are there:
// equals and one_of (with no regard to case, nor to spaces, quotes and full stops
// around), contains (nor to case), matches (a regular expression of RE2's),
// above and below (the first number in the text), min_words, max_words, json (it
// is a JSON object, with the members that the stage's format requires), and not,
// which has others that must not hold together. Nothing holds of an answer that is
// not there.
//
// The confidence of an answer is the geometric mean of the probabilities that the
// model gave the tokens which it chose: exp of the mean of their logarithms, 0 to
// 1. Where the server does not tell them the check decides, and without a check
// the answer stands. It stands as well where the other model may not run, be it for
// the tier, the power cap or the time, or fails; the result says why.
package pipeline

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// Pipeline is one that has been found to be in order. It is not changed.
type Pipeline struct {
	Name, Description string
	// Vars are what stages can refer to, with what stands for one that is not
	// given; nil has to be given.
	Vars map[string]*string
	// MaxPower bounds what any device draws, and Deadline how long all takes; zero
	// does not.
	MaxPower power.Power
	Deadline time.Duration
	// Stages are in the order of the file; the first is the first to run.
	Stages []Stage
	// NeedsInput tells that a stage refers to the input.
	NeedsInput bool
	// fields are the members of answers that stages refer to, by the stage that
	// they are of.
	fields map[string][]string
}

// Last reports whether no other stage can follow the one of that id.
func (p *Pipeline) Last(id string) bool {
	return slices.ContainsFunc(p.Stages, func(s Stage) bool {
		return s.ID == id && !slices.ContainsFunc(s.next, func(b branch) bool { return b.to != end })
	})
}

// Stage is one job, or two.
type Stage struct {
	ID string
	// options are what the file says of its job, without the text.
	options job.Job
	think   *bool
	// model is what options has, with variables filled in.
	model, prompt, system text
	format                json.RawMessage
	// members are those that format has, and required those that it requires;
	// nil if it does not say.
	members, required []string
	// Tiers are those on which it runs; nil are all.
	Tiers []power.Tier
	next  []branch
	// Escalation is nil for most.
	Escalation *Escalation
}

// Model is the model that the stage names, or "".
func (s *Stage) Model() string { return s.options.Model }

// Target is the backend or the device class that the stage names, or "".
func (s *Stage) Target() string { return s.options.Target }

// Escalation is when another model is asked for what a stage has answered.
type Escalation struct {
	options job.Job // those of the stage, with its own in their place
	model   text    // likewise
	tiers   []power.Tier
	// below is the confidence under which it is; zero leaves it to check.
	below float64
	check *test // nil if there is none
}

// Model is the model that is asked then.
func (e *Escalation) Model() string { return e.options.Model }

// Target is the backend or the device class that it names, or "".
func (e *Escalation) Target() string { return e.options.Target }

// end is where a branch leads that leads to no stage.
const end = -1

// branch is a way on from a stage.
type branch struct {
	when *condition // nil always holds
	to   int
}

// condition is about the answer of a stage.
type condition struct {
	stage int
	field string // of it; "" is all
	test  test
}

// runs reports whether something for some tiers is for that one. What is for mains
// is also for when nobody can say how the machine is powered.
func runs(tiers []power.Tier, t power.Tier) bool {
	return len(tiers) == 0 || slices.Contains(tiers, t) || slices.Contains(tiers, max(t, power.Mains))
}
