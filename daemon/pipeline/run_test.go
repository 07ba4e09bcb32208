package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/pipeline"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// said is what a model answers.
type said struct {
	text  string
	probs []float64 // of its tokens, if it tells
	err   error     // before anything is said, if there is no text
	takes time.Duration
	// draws is how many watts the backend draws: a job with a lower cap is refused.
	draws  float64
	status int // of a refusal by the backend
	cost   power.Cost
}

// script answers jobs by the stage and number in their id, and by model.
type script struct {
	says map[string]said // by model, or by stage
	tier power.Tier

	mu    sync.Mutex
	asked []job.Job
	open  int
}

func (s *script) jobs() []job.Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *script) enter(j job.Job, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 {
		s.asked = append(s.asked, j)
	}
	s.open += n
}

// body is the request that a job makes.
type body struct {
	Model    string
	Messages []job.Message
	Stream   bool
	Format   json.RawMessage
	Think    *bool
	Logprobs bool
	Options  map[string]any
}

func bodyOf(j job.Job) (b body) {
	if err := json.Unmarshal(j.Original.Body, &b); err != nil {
		panic(err)
	}
	return b
}

func (s *script) Run(ctx context.Context, j job.Job, to dispatch.Sink) error {
	s.enter(j, 1)
	defer s.enter(j, -1)
	stage := strings.TrimPrefix(j.ID, "run.")
	a, ok := s.says[j.Model]
	if !ok {
		a = s.says[stage]
	}
	if a.draws > 0 && j.MaxPower > 0 && power.Watts(a.draws) > j.MaxPower {
		return job.Errorf(job.NoBackend, "none draws so little")
	}
	if a.err != nil && a.text == "" && a.takes == 0 {
		return a.err
	}
	d := route.Decision{Backend: "backend-" + j.Target}
	to.Routed(d)
	if j.Deadline > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadlineCause(ctx, j.Arrived.Add(j.Deadline), job.Errorf(job.DeadlinePassed, "the job's"))
		defer stop()
	}
	if a.takes > 0 {
		select {
		case <-time.After(a.takes):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if a.err != nil && a.text == "" {
		return a.err
	}
	if err := to.Begin(job.Head{Status: max(200, a.status)}); err != nil {
		return err
	}
	report := &dispatch.Report{ID: j.ID, Model: j.Model, Decision: d, Cost: a.cost}
	if a.status >= 400 {
		return to.Chunk(ctx, job.Chunk{Raw: []byte(a.text), Last: true}, report)
	}
	words := strings.SplitAfter(a.text, " ")
	for i, w := range words {
		line := map[string]any{"message": map[string]string{"content": w}}
		if i < len(a.probs) && bodyOf(j).Logprobs {
			line["logprobs"] = []map[string]any{{"token": w, "logprob": math.Log(a.probs[i])}}
		}
		if err := to.Chunk(ctx, job.Chunk{Raw: job.Line(line)}, nil); err != nil {
			return err
		}
	}
	if a.err != nil {
		return a.err
	}
	return to.Chunk(ctx, job.Chunk{Raw: []byte(`{"message":{"content":""},"done":true}` + "\n"), Last: true}, report)
}

// heard keeps what a listener is told.
type heard struct {
	told []string
	fail string // at what it is gone
}

func (h *heard) tell(format string, args ...any) error {
	h.told = append(h.told, fmt.Sprintf(format, args...))
	if h.fail != "" && strings.HasPrefix(h.told[len(h.told)-1], h.fail) {
		return errors.New("broken pipe")
	}
	return nil
}

func (h *heard) Routed(stage string, d route.Decision) error {
	return h.tell("%s on %s", stage, d.Backend)
}

func (h *heard) Text(_ context.Context, stage, text string) error {
	return h.tell("%s says %s", stage, text)
}
func (h *heard) Done(r pipeline.Result) error { return h.tell("%s is done", r.Stage) }

func call(input string) pipeline.Call {
	return pipeline.Call{ID: "run", Input: input, Vars: map[string]string{}}
}

func run(ctx context.Context, p *pipeline.Pipeline, c pipeline.Call, s *script) (pipeline.Outcome, error) {
	return runFor(ctx, p, c, s, new(heard))
}

func runFor(ctx context.Context, p *pipeline.Pipeline, c pipeline.Call, s *script, h *heard) (pipeline.Outcome, error) {
	e := &pipeline.Engine{Runner: s, Tier: func(context.Context) power.Tier { return s.tier }}
	return e.Run(ctx, p, c, h)
}

// path is the way that a run took.
func path(o pipeline.Outcome) string {
	var ids []string
	for _, r := range o.Results {
		id := r.Stage
		if r.Skipped != "" {
			id += "?"
		}
		if r.Err != nil {
			id += "!"
		}
		ids = append(ids, id)
	}
	return strings.Join(ids, " ")
}

const triage = `
vars: {language: German, tone: ~}
stages:
  - id: sort
    target: npu
    tiers: [mains, battery]
    prompt: "Question or text? {{clip 5 .Input}}"
    system: "Be {{.Vars.tone}}."
    max_tokens: 3
    temperature: 0
    stop: ["\n"]
    think: false
    next:
      - {when: {one_of: [question, Frage]}, to: answer}
      - {when: {above: 3, below: 5}, to: end}
      - {to: sum}
  - {id: answer, prompt: "{{.Vars.language}}: {{.Input}}", next: end}
  - {id: sum, prompt: "{{with .Stages.sort}}It is {{.}}. {{end}}{{.Input}}"}
`

func TestTheAnswerDecidesWhatComesNext(t *testing.T) {
	p := parse(t, triage)
	for answer, want := range map[string]string{
		"Question":        "sort answer",
		"  *question*.\n": "sort answer",
		"FRAGE!":          "sort answer",
		"it is a text":    "sort sum",
		"4 of 5":          "sort",
		"5":               "sort sum",
	} {
		s := &script{says: map[string]said{"sort": {text: answer}, "answer": {text: " yes \n"}, "sum": {text: "short"}}}
		c := call("Why is it so?")
		c.Vars["tone"] = "brief"
		o, err := run(t.Context(), p, c, s)
		if err != nil || path(o) != want || o.Last != o.Results[len(o.Results)-1].Stage || o.Output != o.Results[len(o.Results)-1].Output {
			t.Errorf("after %q it goes %s, want %s: %+v, %v", answer, path(o), want, o, err)
		}
		b := bodyOf(s.jobs()[0])
		if b.Messages[0] != (job.Message{Role: "system", Content: "Be brief."}) || b.Messages[1] != (job.Message{Role: "user", Content: "Question or text? Why i"}) || b.Think == nil || *b.Think || b.Logprobs {
			t.Errorf("it asks %+v", b)
		}
		if o := b.Options; o["num_predict"] != 3.0 || o["temperature"] != 0.0 || fmt.Sprint(o["stop"]) != "[\n]" || len(o) != 3 {
			t.Errorf("with %v", o)
		}
		if j := s.jobs()[0]; j.Target != "npu" || j.Kind != job.Chat || j.PromptBytes != len("Be brief.Question or text? Why i") || j.MaxTokens != 3 || j.ID != "run.sort" {
			t.Errorf("the job is %+v", j)
		}
	}
}

func TestStagesOfOtherTiersAreSkipped(t *testing.T) {
	s := &script{tier: power.Low, says: map[string]said{"sum": {text: "short"}}}
	c := call("text")
	c.Vars["tone"] = "brief"
	o, err := run(t.Context(), parse(t, triage), c, s)
	if err != nil || path(o) != "sort? sum" || o.Results[0].Skipped != "not on tier low" || o.Output != "short" {
		t.Errorf("got %s, %+v, %v", path(o), o, err)
	}
	if got := bodyOf(s.jobs()[0]).Messages[0].Content; got != "text" {
		t.Errorf("it asks %q", got)
	}
	_, err = run(t.Context(), parse(t, one("    tiers: [mains]")), call("x"), s)
	if !errors.Is(err, job.PowerPolicy) || !strings.Contains(err.Error(), "not on tier low") {
		t.Errorf("with nothing else: %v", err)
	}
}

func TestWhatIsAskedIsChecked(t *testing.T) {
	p := parse(t, triage)
	for want, change := range map[string]func(*pipeline.Call){
		"input: it is empty":                          func(c *pipeline.Call) { c.Input = " \n" },
		"vars.tone: it has to be given":               func(c *pipeline.Call) { delete(c.Vars, "tone") },
		`vars.langage: the pipeline test has no such`: func(c *pipeline.Call) { c.Vars["langage"] = "x" },
	} {
		c := call("x")
		c.Vars["tone"] = ""
		change(&c)
		s := new(script)
		if _, err := run(t.Context(), p, c, s); !errors.Is(err, job.Invalid) || !strings.Contains(err.Error(), want) || len(s.jobs()) > 0 {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := run(t.Context(), parse(t, one("")), call(""), new(script)); err != nil {
		t.Errorf("without a need for input: %v", err)
	}
}

// ladder asks a small model, and then perhaps a large one.
const ladder = `
max_power_watts: 50
stages:
  - id: a
    model: small
    target: npu
    prompt: x
    max_tokens: 9
    escalate: {model: large, target: igpu, tiers: [mains, battery, unknown], confidence_below: 0.7, max_tokens: 99%s}
  - {id: b, prompt: "{{.Stages.a}}"}
`

func TestEscalation(t *testing.T) {
	sure, unsure := []float64{0.9, 0.8}, []float64{0.9, 0.1}
	check := ", check: {min_words: 2}"
	for name, c := range map[string]struct {
		more         string
		tier         power.Tier
		small, large said
		change       func(*pipeline.Call)
		escalated    bool
		why          string
	}{
		"sure":             {small: said{text: "one two", probs: sure}, why: "confidence 0.85 is not below 0.70"},
		"unsure":           {small: said{text: "one two", probs: unsure}, escalated: true, why: "confidence 0.30 is below 0.70"},
		"sure, and wrong":  {more: check, small: said{text: "one", probs: sure}, why: "confidence 0.90 is not below 0.70"},
		"the check fails":  {more: check, small: said{text: "one"}, escalated: true, why: "the check does not hold"},
		"the check holds":  {more: check, small: said{text: "one two"}, why: "the check holds"},
		"nobody can tell":  {small: said{text: "one two"}, why: "backend-npu tells no probabilities, and there is no check"},
		"on another tier":  {tier: power.Low, small: said{text: "one", probs: unsure}, why: "confidence 0.90 is not below 0.70"},
		"not on this tier": {tier: power.Low, small: said{text: "one two", probs: unsure}, why: "confidence 0.30 is below 0.70, but there is no other model on tier low"},
		"over the cap": {
			small: said{text: "one two", probs: unsure}, large: said{text: "never", draws: 55},
			why: "confidence 0.30 is below 0.70, and the other model has no answer: no backend: none draws so little",
		},
		"over the caller's cap": {
			small: said{text: "one two", probs: unsure, draws: 3}, large: said{text: "never", draws: 40},
			change: func(c *pipeline.Call) { c.MaxPower = 15 * power.Watt },
			why:    "confidence 0.30 is below 0.70, and the other model has no answer: no backend: none draws so little",
		},
		"it fails half way": {
			small: said{text: "one two", probs: unsure}, large: said{text: "ha", err: job.Errorf(job.BackendFailed, "broke")},
			why: "confidence 0.30 is below 0.70, and the other model has no answer: backend failed: broke",
		},
		"the caller names the model": {
			small: said{text: "one two", probs: unsure}, change: func(c *pipeline.Call) { c.Model, c.Target = "small", "npu" },
			why: "confidence 0.30 is below 0.70, but it would be the same model once more",
		},
	} {
		for _, streams := range []bool{false, true} {
			if c.large.text == "" {
				c.large.text = "the large one"
			}
			s := &script{tier: c.tier, says: map[string]said{"small": c.small, "large": c.large, "b": {text: "b"}}}
			asked := call("x")
			asked.Stream = streams
			if c.change != nil {
				c.change(&asked)
			}
			h := new(heard)
			o, err := runFor(t.Context(), parse(t, fmt.Sprintf(ladder, c.more)), asked, s, h)
			if streams && name == "it fails half way" {
				// What was told is not taken back.
				if !errors.Is(err, job.BackendFailed) || !slices.Contains(h.told, "a says ha") {
					t.Errorf("%s, streamed: %v, %v", name, err, h.told)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			want := c.small.text
			if c.escalated {
				want = c.large.text
			}
			r := o.Results[0]
			if r.Output != want || r.Escalated != c.escalated || r.Why != c.why {
				t.Errorf("%s: %q, %v, %q", name, r.Output, r.Escalated, r.Why)
			}
			if said := spoken(h, "a"); streams && strings.TrimSpace(said) != want || !streams && said != "" {
				t.Errorf("%s: it says %q", name, said)
			}
			for _, j := range s.jobs() {
				if most := power.Watts(50); j.MaxPower == 0 || j.MaxPower > most {
					t.Errorf("%s: %s may draw %v", name, j.ID, j.MaxPower)
				}
			}
			if j := s.jobs(); c.escalated && (j[1].ID != "run.a.2" || j[1].Target != "igpu" || j[1].MaxTokens != 99 || !bodyOf(j[1]).Logprobs) {
				t.Errorf("%s: the second job is %+v", name, j[1])
			}
		}
	}
}

// spoken is what a stage was heard to say.
func spoken(h *heard, stage string) string {
	var text strings.Builder
	for _, line := range h.told {
		if rest, ok := strings.CutPrefix(line, stage+" says "); ok {
			text.WriteString(rest)
		}
	}
	return text.String()
}

func TestMembersOfAnAnswer(t *testing.T) {
	p := parse(t, `
stages:
  - id: a
    prompt: x
    format: {type: object, properties: {kind: {type: string}, urgent: {type: boolean}}, required: [kind]}
    next: [{when: {field: kind, equals: bug}, to: b}, {to: end}]
  - {id: b, prompt: "{{.Fields.a.kind}} {{.Fields.a.urgent}}"}
`)
	s := &script{says: map[string]said{"a": {text: `{"kind": "Bug", "urgent": true}`}, "b": {text: "done"}}}
	o, err := run(t.Context(), p, call("x"), s)
	if err != nil || path(o) != "a b" || bodyOf(s.jobs()[1]).Messages[0].Content != "Bug true" {
		t.Errorf("got %s, %v, %s", path(o), err, s.jobs()[1].Original.Body)
	}
	if !strings.Contains(string(bodyOf(s.jobs()[0]).Format), `"urgent":{"type":"boolean"}`) {
		t.Errorf("the format is %s", bodyOf(s.jobs()[0]).Format)
	}
	s = &script{says: map[string]said{"a": {text: `{"kind": "Bu`}}}
	if o, err := run(t.Context(), p, call("x"), s); !errors.Is(err, job.BackendFailed) || !strings.Contains(err.Error(), "stage a: backend- does not answer with a JSON object") || path(o) != "a!" {
		t.Errorf("of half an object: %s, %v", path(o), err)
	}
}

func TestFailuresNameTheirStage(t *testing.T) {
	p := parse(t, "stages:\n  - {id: a, prompt: x}\n  - {id: b, prompt: x}\n  - {id: c, prompt: \"{{with .Stages.b}}{{.}}{{else}}none{{end}}\"}")
	says := map[string]said{"a": {text: "1", cost: joules(2)}, "b": {err: job.Errorf(job.ModelNotFound, "m")}, "c": {text: "3", cost: joules(4)}}
	s := &script{says: says}
	o, err := run(t.Context(), p, call("x"), s)
	if !errors.Is(err, job.ModelNotFound) || err.Error() != "model not found: stage b: m" || path(o) != "a b!" || o.Cost.Energy != 2*power.Joule {
		t.Errorf("got %s, %v, %v", path(o), o.Cost, err)
	}
	c := call("x")
	c.GoOn = true
	s = &script{says: says}
	o, err = run(t.Context(), p, c, s)
	if err != nil || path(o) != "a b! c" || o.Output != "3" || bodyOf(s.jobs()[2]).Messages[0].Content != "none" {
		t.Errorf("going on: %s, %v", path(o), err)
	}
	says["b"] = said{text: `{"error":"no such option"}`, status: 400}
	if _, err := run(t.Context(), p, call("x"), &script{says: says}); !errors.Is(err, job.Invalid) || !strings.Contains(err.Error(), "stage b: backend- says no such option") {
		t.Errorf("refused by the backend: %v", err)
	}
}

func joules(j float64) power.Cost {
	return power.Cost{Energy: power.Joules(j), Quality: power.Measured, Scope: "package", Coverage: 1}
}

func TestEnergyIsTheSumOfTheParts(t *testing.T) {
	p := parse(t, fmt.Sprintf(ladder, ""))
	guess := power.Cost{Energy: 30 * power.Joule, Quality: power.Estimated}
	s := &script{says: map[string]said{
		"small": {text: "x", probs: []float64{0.1}, cost: joules(1.23)}, "large": {text: "y", cost: joules(20)}, "b": {text: "z", cost: guess},
	}}
	o, err := run(t.Context(), p, call("x"), s)
	if err != nil || o.Cost.Energy != o.Results[0].Cost.Energy+o.Results[1].Cost.Energy || o.Cost.Energy != power.Joules(1.3+20+30) || o.Cost.Quality != power.Estimated || o.Results[0].Cost.Quality != power.Measured {
		t.Errorf("got %v of %v and %v, %v", o.Cost, o.Results[0].Cost, o.Results[1].Cost, err)
	}
	// What failed once it had begun has taken something that we do not know.
	s.says["large"] = said{text: "ha", err: job.Errorf(job.BackendFailed, "broke")}
	o, err = run(t.Context(), p, call("x"), s)
	if err != nil || o.Cost.Known() || o.Results[0].Cost.Known() {
		t.Errorf("got %v, %v", o.Cost, err)
	}
}

func TestHistoryIsTold(t *testing.T) {
	p := parse(t, "stages:\n  - {id: a, prompt: one}\n  - {id: b, prompt: two, system: s}")
	s := &script{says: map[string]said{"a": {text: "1"}}}
	c := call("")
	c.History = true
	if _, err := run(t.Context(), p, c, s); err != nil {
		t.Fatal(err)
	}
	want := []job.Message{{Role: "system", Content: "s"}, {Role: "user", Content: "one"}, {Role: "assistant", Content: "1"}, {Role: "user", Content: "two"}}
	if got := bodyOf(s.jobs()[1]).Messages; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestWhatTheCallerSaysGoesBefore(t *testing.T) {
	p := parse(t, one("    target: npu\n    class: interactive\n    model: m\n    max_latency_ms: 500\n    max_power_watts: 20\n  - {id: b, prompt: x}"))
	s := new(script)
	c := call("")
	c.Target, c.Class, c.Model, c.Client, c.Vouched = "cpu", job.Background, "mine", "me", true
	c.MaxLatency, c.MaxPower, c.PreferPowerEfficiency, c.CacheEnabled = time.Second, 30*power.Watt, true, true
	if _, err := run(t.Context(), p, c, s); err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		latency time.Duration
		most    power.Power
	}{{500 * time.Millisecond, 20 * power.Watt}, {time.Second, 30 * power.Watt}} {
		j := s.jobs()[i]
		if j.Target != "cpu" || j.Class != job.Background || j.Model != "mine" || j.Client != "me" || !j.Vouched || j.MaxLatency != want.latency || j.MaxPower != want.most || !j.PreferPowerEfficiency || !j.CacheEnabled || j.Deadline != 0 {
			t.Errorf("job %d is %+v", i, j)
		}
	}
}

func TestACallerWhoWantsNoAnswerThatWasGivenBeforeGetsNone(t *testing.T) {
	p := parse(t, one("    cache_enabled: true\n  - {id: b, prompt: x, cache_enabled: false}"))
	for _, said := range []job.Annotations{{}, {CacheEnabled: true}, {CacheRefused: true}} {
		s, c := new(script), call("")
		c.Annotations = said
		if _, err := run(t.Context(), p, c, s); err != nil {
			t.Fatal(err)
		}
		for i, own := range []job.Annotations{{CacheEnabled: true}, {CacheRefused: true}} {
			want := own
			if said.CacheEnabled || said.CacheRefused {
				want = said
			}
			if j := s.jobs()[i]; j.CacheEnabled != want.CacheEnabled || j.CacheRefused != want.CacheRefused {
				t.Errorf("the caller says %+v, and job %d is enabled %v, refused %v", said, i, j.CacheEnabled, j.CacheRefused)
			}
		}
	}
}

func TestDeadlinesAreOfTheWholeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := parse(t, "deadline_ms: 10000\nstages:\n  - {id: a, prompt: x, deadline_ms: 5000}\n  - {id: b, prompt: x}\n  - {id: c, prompt: x}")
		s := &script{says: map[string]said{"a": {text: "1", takes: 4 * time.Second}, "b": {text: "2", takes: 5 * time.Second}, "c": {text: "3", takes: 2 * time.Second}}}
		o, err := run(t.Context(), p, call("x"), s)
		if !errors.Is(err, job.DeadlinePassed) || !strings.Contains(err.Error(), "stage c") || path(o) != "a b c!" || o.Total != 10*time.Second {
			t.Errorf("got %s after %v: %v", path(o), o.Total, err)
		}
		for i, want := range []time.Duration{5 * time.Second, 6 * time.Second, time.Second} {
			if got := s.jobs()[i].Deadline; got != want+time.Millisecond { // later than the run's or the stage's own
				t.Errorf("job %d has %v, want %v", i, got, want)
			}
		}
		// A stage's own ends it alone, and whoever asks may want less.
		s = &script{says: map[string]said{"a": {text: "1", takes: 4 * time.Second}}}
		c := call("x")
		c.StageLimit, c.GoOn, c.Deadline = 3*time.Second, true, 9*time.Second
		o, err = run(t.Context(), p, c, s)
		if err != nil || path(o) != "a! b c" || s.jobs()[1].Deadline != 3*time.Second+time.Millisecond {
			t.Errorf("got %s, %v, %v", path(o), s.jobs()[1].Deadline, err)
		}
	})
}

func TestCancelEndsTheJobAndTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, file := range []string{one("  - {id: b, prompt: x}"), fmt.Sprintf(ladder, "")} {
			ctx, cancel := context.WithCancel(t.Context())
			s := &script{says: map[string]said{"a": {text: "1", takes: time.Hour}, "small": {text: "1", probs: []float64{0.1}}, "large": {text: "1", takes: time.Hour}}}
			ended := make(chan error)
			go func() {
				c := call("x")
				c.GoOn = true
				_, err := run(ctx, parse(t, file), c, s)
				ended <- err
			}()
			synctest.Wait()
			before := len(s.jobs())
			cancel()
			if err := <-ended; !errors.Is(err, job.Cancelled) {
				t.Errorf("got %v", err)
			}
			if s.open != 0 || len(s.jobs()) != before {
				t.Errorf("%d jobs are open, and %d came after the end", s.open, len(s.jobs())-before)
			}
		}
	})
}

func TestAListenerWhoIsGoneEndsTheRun(t *testing.T) {
	p := parse(t, one("  - {id: b, prompt: x}"))
	for _, at := range []string{"a on", "a says", "a is done"} {
		s := &script{says: map[string]said{"a": {text: "1 2"}}}
		c := call("")
		c.Stream = true
		_, err := runFor(t.Context(), p, c, s, &heard{fail: at})
		if err == nil || len(s.jobs()) != 1 {
			t.Errorf("gone when %s: %v, after %d jobs", at, err, len(s.jobs()))
		}
	}
}

func TestModelsCanBeVariables(t *testing.T) {
	p := parse(t, `
vars: {small: tiny, large: "", none: ""}
stages:
  - id: a
    model: "{{.Vars.small}}"
    prompt: x
    escalate: {model: "{{.Vars.large}}", confidence_below: 0.5}
  - {id: b, model: "{{.Vars.none}}", prompt: x}
`)
	for large, want := range map[string][]string{"huge": {"tiny", "huge", ""}, "": {"tiny", "", ""}, "tiny": {"tiny", ""}} {
		s := &script{says: map[string]said{"tiny": {text: "x", probs: []float64{0.1}}}}
		c := call("x")
		c.Vars["large"] = large
		_, err := run(t.Context(), p, c, s)
		var got []string
		for _, j := range s.jobs() {
			got = append(got, j.Model)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("with %q it asks %q, %v", large, got, err)
		}
	}
	if _, err := pipeline.Parse("x", []byte(one("    model: '{{.Vars.x}}'"))); err == nil || !strings.Contains(err.Error(), "line 4: stages[0].model: there is no variable x") {
		t.Errorf("got %v", err)
	}
}

func TestTextsAreBounded(t *testing.T) {
	s := new(script)
	_, err := run(t.Context(), parse(t, strings.Replace(one(""), "prompt: x", `prompt: "{{.Input}}{{.Input}}{{.Input}}"`, 1)), call(strings.Repeat("x", 3<<20)), s)
	if !errors.Is(err, job.PromptTooLarge) || len(s.jobs()) > 0 {
		t.Errorf("got %v", err)
	}
	if _, err := run(t.Context(), parse(t, strings.Replace(one(""), "prompt: x", `prompt: "{{clip 9 .Input}}"`, 1)), call(strings.Repeat("x", 9<<20)), s); !errors.Is(err, job.PromptTooLarge) || len(s.jobs()) > 0 {
		t.Errorf("got %v", err)
	}
	if _, err := run(t.Context(), parse(t, strings.Replace(one(""), "prompt: x", `prompt: "{{clip 0 .Input}}"`, 1)), call("x"), s); !errors.Is(err, job.Invalid) || !strings.Contains(err.Error(), "comes out empty") {
		t.Errorf("got %v", err)
	}
}

func TestSameInputsSamePath(t *testing.T) {
	// Whatever is answered, each stage runs once at most, no job may draw more than
	// the least of the caps, and a second run is like the first.
	words := []string{"yes", "no", "3", "", "one two three"}
	for seed := range 200 {
		pick := func(n int) int { seed = (seed*1103515245 + 12345) & (1<<31 - 1); return (seed >> 8) % n }
		var file strings.Builder
		fmt.Fprintf(&file, "max_power_watts: %d\nstages:\n", 5+pick(40))
		n := 2 + pick(8)
		for i := range n {
			fmt.Fprintf(&file, "  - id: s%d\n    prompt: x\n    max_power_watts: %d\n", i, 1+pick(60))
			if pick(3) == 0 {
				file.WriteString("    tiers: [mains, low]\n")
			}
			if pick(3) == 0 {
				fmt.Fprintf(&file, "    escalate: {model: m, confidence_below: 0.%d, max_power_watts: %d}\n", 1+pick(9), 1+pick(60))
			}
			if i+2 < n {
				fmt.Fprintf(&file, "    next: [{when: {contains: %s}, to: s%d}, {to: s%d}]\n", words[pick(3)], i+1+pick(n-i-1), i+1)
			}
		}
		p := parse(t, file.String())
		says := map[string]said{"m": {text: words[pick(len(words))]}}
		for i := range n {
			says[fmt.Sprintf("s%d", i)] = said{text: words[pick(len(words))], probs: []float64{float64(pick(10)) / 10}, cost: joules(float64(pick(9)))}
		}
		c := call("x")
		c.MaxPower = power.Watts(float64(1 + pick(60)))
		tier := []power.Tier{power.Mains, power.Battery, power.Low}[pick(3)]
		first, second := &script{says: says, tier: tier}, &script{says: maps.Clone(says), tier: tier}
		o, err := run(t.Context(), p, c, first)
		again, errAgain := run(t.Context(), p, c, second)
		if path(o) != path(again) || o.Output != again.Output || (err == nil) != (errAgain == nil) || len(first.jobs()) != len(second.jobs()) {
			t.Fatalf("once %s, then %s", path(o), path(again))
		}
		runs, sum := make(map[string]int), power.Energy(0)
		for _, j := range first.jobs() {
			if runs[j.ID]++; runs[j.ID] > 1 {
				t.Fatalf("%s has run twice", j.ID)
			}
			if j.MaxPower <= 0 || j.MaxPower > min(c.MaxPower, p.MaxPower) {
				t.Fatalf("%s may draw %v of %v and %v", j.ID, j.MaxPower, c.MaxPower, p.MaxPower)
			}
		}
		for _, r := range o.Results {
			sum += r.Cost.Energy
		}
		if sum != o.Cost.Energy {
			t.Fatalf("the parts took %v, and all %v", sum, o.Cost.Energy)
		}
	}
}
