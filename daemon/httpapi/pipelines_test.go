package httpapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/power"
)

// shelve writes a pipeline onto the rig's shelf.
func (r *rig) shelve(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.shelf, name+".yaml"), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// chatting answers chats by what it is asked, with a probability for each word.
func chatting(answers map[string]string, probability string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Messages []struct{ Content string }
			Logprobs bool
		}
		_ = json.NewDecoder(r.Body).Decode(&q)
		w.Header().Set("Content-Type", ndjson)
		for _, word := range strings.SplitAfter(answers[q.Messages[len(q.Messages)-1].Content], " ") {
			probabilities := ""
			if q.Logprobs {
				probabilities = fmt.Sprintf(`"logprobs":[{"token":"x","logprob":%s}],`, probability)
			}
			fmt.Fprintf(w, `{"message":{"role":"assistant","content":%q},%s"done":false}`+"\n", word, probabilities)
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = io.WriteString(w, `{"message":{"content":""},"done":true,"prompt_eval_count":5,"eval_count":2,"eval_duration":1000000000}`+"\n")
	}
}

const sorting = `description: Sorts.
vars: {tone: kind}
stages:
  - id: sort
    target: one
    prompt: "sort {{.Input}}"
    next: [{when: {equals: text}, to: sum}, {to: answer}]
  - {id: answer, prompt: "answer {{.Input}}", next: end}
  - {id: sum, target: two, prompt: "sum {{.Stages.sort}} {{.Vars.tone}}"}
`

func TestPipelinesAreRun(t *testing.T) {
	first, second := with(chatting(map[string]string{"sort it": "Text."}, "0")), with(chatting(map[string]string{"sum Text. very kind": "Short"}, "0"))
	r := newRig(t, first, second)
	r.shelve("sorting", sorting)
	s := r.follow(r.overTCP, "POST", "/joulemux/v1/pipelines/run",
		`{"pipeline":"sorting","input":"it","vars":{"tone":"very kind"},"stream":true,"options":{"model":"m","max_power_watts":40,"deadline_ms":60000}}`)
	for i, want := range []wire.PipelineEvent{
		{Stage: "sort", Routed: map[string]any{"backend_used": "one"}},
		{Stage: "sort", Text: "Text."},
		{Stage: "sort", Done: &wire.StageDone{Output: "Text.", Backend: "one"}},
		{Stage: "sum", Routed: map[string]any{"backend_used": "two"}},
		{Stage: "sum", Text: "Short"},
		{Stage: "sum", Done: &wire.StageDone{Output: "Short", Backend: "two"}},
	} {
		e := next[wire.PipelineEvent](s)
		if e.Stage != want.Stage || e.Text != want.Text || (e.Routed == nil) != (want.Routed == nil) || e.Routed["backend_used"] != want.Routed["backend_used"] || (e.Done == nil) != (want.Done == nil) || e.Last != (e.Routed != nil && e.Stage == "sum") {
			t.Fatalf("event %d is %+v", i, e)
		}
		if d := e.Done; d != nil && (d.Output != want.Done.Output || d.Backend != want.Done.Backend || d.Hardware == "" || d.Reason == "" || d.Model != "m" || d.Tokens != 2 ||
			d.PromptTokens != 5 || d.Attempts != 1 || len(d.Jobs) != 1 || d.EnergyQuality != "estimated" || *d.EnergyJoules <= 0) {
			t.Errorf("%s is done: %+v", e.Stage, d)
		}
	}
	e := next[wire.PipelineEvent](s).End
	if e == nil || e.Pipeline != "sorting" || e.Stage != "sum" || e.Output != "Short" || e.Jobs != 2 || e.Tokens != 4 || e.PromptTokens != 10 || e.EnergyQuality != "estimated" || *e.EnergyJoules <= 0 || e.ID == "" {
		t.Errorf("the end is %+v", e)
	}
	s.ended()
	// The ledger has its jobs, by the run's name and the stage's.
	if got := read[wire.EnergyJob](t, r.ask("GET", "/joulemux/v1/energy/"+e.ID+".sort", "").body); len(got.Attempts) != 1 || got.Attempts[0].Backend != "one" {
		t.Errorf("the ledger has %+v", got)
	}
}

func TestALargerModelIsAskedNeverAboveTheCap(t *testing.T) {
	small := with(chatting(map[string]string{"x": "hm hm"}, "-1"))
	small.models, small.resident = []string{"small"}, []string{"small"}
	large := with(chatting(map[string]string{"x": "yes"}, "-0.1"))
	large.models, large.resident = []string{"large"}, []string{"large"}
	r := newRig(t, small, large) // assumed to draw 12 W and 28 W
	r.shelve("ask", "stages: [{id: a, model: small, prompt: x, escalate: {model: large, confidence_below: 0.5}}]")
	for _, c := range []struct {
		options, output, why string
		jobs                 int
		confidence           float64
	}{
		{`{}`, "yes", "confidence 0.37 is below 0.50", 2, 0.9048},
		{`{"max_power_watts":15}`, "hm hm", "confidence 0.37 is below 0.50, and the other model has no answer: no backend", 1, 0.3679},
	} {
		s := r.follow(r.overUnix, "POST", "/joulemux/v1/pipelines/run", `{"pipeline":"ask","options":`+c.options+`}`)
		var d *wire.StageDone
		for d == nil {
			d = next[wire.PipelineEvent](s).Done
		}
		if d.Output != c.output || !strings.HasPrefix(d.Escalation, c.why) || len(d.Jobs) != c.jobs || d.Escalated != (c.jobs == 2) || d.Confidence == nil || *d.Confidence-c.confidence > 1e-4 || c.confidence-*d.Confidence > 1e-4 {
			t.Errorf("with %s: %+v", c.options, d)
		}
	}
	if asked := large.questions(); len(asked) != 1 {
		t.Errorf("the large one was asked %q", asked)
	}
}

func TestPipelinesAreListedShownAndChecked(t *testing.T) {
	r := newRig(t)
	if got := r.ask("GET", "/joulemux/v1/pipelines", "").body; got != `{"pipelines":[]}`+"\n" {
		t.Errorf("got %s", got)
	}
	r.shelve("sorting", sorting)
	r.shelve("broken", "stages: [{id: a, promt: x}]")
	list := read[wire.Pipelines](t, r.ask("GET", "/joulemux/v1/pipelines", "").body).Pipelines
	if len(list) != 2 || list[0].Name != "broken" || len(list[0].Faults) != 2 || list[0].Faults[0].Line != 1 || list[1].Description != "Sorts." || !list[1].NeedsInput || len(list[1].Stages) != 3 ||
		list[1].Stages[0].Target != "one" || *list[1].Vars["tone"] != "kind" || list[1].Text != "" || list[1].Path != filepath.Join(r.shelf, "sorting.yaml") {
		t.Errorf("got %+v", list)
	}
	if p := read[wire.Pipeline](t, r.ask("GET", "/joulemux/v1/pipelines/sorting", "").body); p.Text != sorting {
		t.Errorf("got %+v", p)
	}
	if p := read[wire.Pipeline](t, r.ask("GET", "/joulemux/v1/pipelines/broken", "").body); p.Text == "" || len(p.Faults) != 2 {
		t.Errorf("got %+v", p)
	}
	if got := r.ask("GET", "/joulemux/v1/pipelines/sortng", ""); got.status != 404 || read[wire.Error](t, got.body).Code != wire.CodePipelineNotFound || !strings.Contains(got.body, "sorting") {
		t.Errorf("got %+v", got)
	}
	if p := read[wire.Pipeline](t, r.ask("POST", "/joulemux/v1/pipelines/check", `{"text":"stages: [{id: a, prompt: x, next: a}]"}`).body); len(p.Faults) != 1 || !strings.Contains(p.Faults[0].Text, "a, a") {
		t.Errorf("got %+v", p)
	}
	if p := read[wire.Pipeline](t, r.ask("POST", "/joulemux/v1/pipelines/check", `{"text":"stages: [{id: a, prompt: x, tiers: [low], escalate: {model: m, check: {json: true}}}]"}`).body); len(p.Faults) != 0 || p.Stages[0].Tiers[0] != "low" || p.Stages[0].Escalation.Model != "m" {
		t.Errorf("got %+v", p)
	}
}

func TestBadRequestsForPipelinesAreRefused(t *testing.T) {
	r := newRig(t, with(says(ndjson, `{"message":{"content":"x"}}`+"\n")))
	r.shelve("sorting", sorting)
	r.shelve("broken", "stages: [{id: a, promt: x}]")
	for _, c := range []struct {
		body   string
		status int
		code   string
		text   string
	}{
		{`{"pipeline":"sortin","input":"x"}`, 404, wire.CodePipelineNotFound, `did you mean \"sorting\"`},
		{`{"pipeline":"../sorting","input":"x"}`, 404, wire.CodePipelineNotFound, ""},
		{`{"pipeline":"broken","input":"x"}`, 400, wire.CodeInvalid, "line 1: stages[0].promt: no such key"},
		{`{"text":"stages: [{id: a, prompt: x, next: a}]"}`, 400, wire.CodeInvalid, "there is no way back"},
		{`{"pipeline":"sorting"}`, 400, wire.CodeInvalid, "input: it is empty"},
		{`{"pipeline":"sorting","input":"x","vars":{"tune":"x"}}`, 400, wire.CodeInvalid, `did you mean \"tone\"`},
		{`{"pipeline":"sorting","input":"x","options":{"max_tokens":3}}`, 400, wire.CodeInvalid, "options.max_tokens: no such annotation"},
		{`{"pipeline":"sorting","input":"x","options":{"max_power_watts":-3}}`, 400, wire.CodeInvalid, "options.max_power_watts"},
		{`{"pipeline":"sorting","input":"x","stage_timeout_ms":-1}`, 400, wire.CodeInvalid, "stage_timeout_ms"},
		{`{"pipeline":"sorting","inputs":"x"}`, 400, wire.CodeInvalid, "unknown field"},
		{`{"pipeline":"sorting","input":"x","options":{"model":"none"}}`, 404, wire.CodeModelNotFound, "stage sort"},
		{`{"pipeline":"sorting","input":"x","options":{"target":"dgpu"}}`, 404, wire.CodeBackendNotFound, "stage sort"},
	} {
		got := r.ask("POST", "/joulemux/v1/pipelines/run", c.body)
		if e := read[wire.Error](t, got.body); got.status != c.status || e.Code != c.code || !strings.Contains(got.body, c.text) {
			t.Errorf("%s: got %d %s", c.body, got.status, got.body)
		}
	}
	// What fails once something was said ends as an error.
	s := r.follow(r.overUnix, "POST", "/joulemux/v1/pipelines/run", `{"pipeline":"sorting","input":"x"}`)
	var e wire.PipelineEvent
	for e.Error == nil {
		e = next[wire.PipelineEvent](s)
	}
	s.ended()
	if e.Error.Code != wire.CodeBackendFailed || !strings.Contains(e.Error.Text, "stage sort") {
		t.Errorf("got %+v", e.Error)
	}
}

func TestStagesFollowTheTier(t *testing.T) {
	r := newRig(t, with(chatting(map[string]string{"a": "A", "b": "B"}, "0")))
	r.shelve("tiers", "stages: [{id: a, prompt: a, tiers: [mains]}, {id: b, prompt: b}]")
	if err := r.tiers.Prefer(t.Context(), power.PreferSaver); err != nil {
		t.Fatal(err)
	}
	got := r.ask("POST", "/joulemux/v1/pipelines/run", `{"pipeline":"tiers"}`)
	if !strings.Contains(got.body, `"skipped":"not on tier saver"`) || !strings.Contains(got.body, `"output":"B","jobs":1`) {
		t.Errorf("got %s", got.body)
	}
}

func TestAClientWhoLeavesEndsTheRun(t *testing.T) {
	gone := make(chan struct{})
	r := newRig(t, with(func(w http.ResponseWriter, q *http.Request) {
		says(ndjson, `{"message":{"content":"Hel"},"done":false}`+"\n", "")(w, q)
		<-q.Context().Done()
		close(gone)
	}))
	r.shelve("two", "stages: [{id: a, prompt: x}, {id: b, prompt: x}]")
	s := r.follow(r.overUnix, "POST", "/joulemux/v1/pipelines/run", `{"pipeline":"two","stream":true,"continue_on_error":true}`)
	for next[wire.PipelineEvent](s).Text == "" {
	}
	s.leave()
	wait(t, "the job's end", gone)
}
