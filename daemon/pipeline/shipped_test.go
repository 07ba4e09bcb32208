package pipeline_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/pipeline"
	"github.com/joulemux/joulemux/power"
)

// shipped returns the pipeline of that name which comes with joulemux.
func shipped(t *testing.T, name string) *pipeline.Pipeline {
	t.Helper()
	e, err := pipeline.Shelf{"../../packaging/pipelines"}.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return e.Pipeline
}

func TestShippedPipelinesAreInOrder(t *testing.T) {
	files, err := os.ReadDir("../../packaging/pipelines")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range (pipeline.Shelf{"../../packaging/pipelines"}).List() {
		if e.Err != nil || e.Pipeline.Description == "" || !e.Pipeline.NeedsInput || e.Pipeline.Deadline == 0 {
			t.Errorf("%s: %+v", e.Name, e)
		}
		names = append(names, e.Name)
	}
	if len(names) != len(files) || !slices.Equal(names, []string{"ask", "commit-message", "triage"}) {
		t.Errorf("there are %v", names)
	}
}

func TestTriageGoesWhereTheKindLeads(t *testing.T) {
	for answer, want := range map[string]string{
		`{"kind":"question"}`: "sort answer", `{"kind": "code"}`: "sort explain", `{"kind":"text"}`: "sort sum_up", `{"kind":"what"}`: "sort sum_up",
	} {
		s := &script{says: map[string]said{"sort": {text: answer}}}
		c := call("it")
		c.Vars["language"] = "German"
		o, err := run(t.Context(), shipped(t, "triage"), c, s)
		jobs := s.jobs()
		if err != nil || path(o) != want || !strings.Contains(bodyOf(jobs[1]).Messages[0].Content, "German") {
			t.Errorf("after %s it goes %s: %v", answer, path(o), err)
		}
		if !jobs[0].Prefers(power.NPU) || !jobs[1].Prefers(power.NVIDIA) || jobs[0].MaxTokens != 24 || jobs[0].MaxPower != 100*power.Watt || jobs[1].Deadline == 0 {
			t.Errorf("the jobs are %+v", jobs)
		}
	}
}

func TestAskEscalatesWhereTheSmallModelIsUnsure(t *testing.T) {
	for name, c := range map[string]struct {
		small     said
		tier      power.Tier
		escalated bool
	}{
		"sure":               {small: said{text: "It scatters blue light.", probs: []float64{.9, .9, .9, .9}}},
		"unsure":             {small: said{text: "It scatters blue light.", probs: []float64{.5, .9, .4, .9}}, escalated: true},
		"unsure on low":      {small: said{text: "It scatters blue light.", probs: []float64{.5, .9, .4, .9}}, tier: power.Low},
		"it does not know":   {small: said{text: "I do not know that."}, escalated: true},
		"nobody can tell":    {small: said{text: "It scatters blue light."}},
		"it says too little": {small: said{text: "Light."}, escalated: true},
	} {
		s := &script{tier: c.tier, says: map[string]said{"": c.small, "big": {text: "Rayleigh."}}}
		asked := call("Why is the sky blue?")
		asked.Vars["large"] = "big"
		o, err := run(t.Context(), shipped(t, "ask"), asked, s)
		if err != nil || o.Results[0].Escalated != c.escalated || (o.Output == "Rayleigh.") != c.escalated {
			t.Errorf("%s: %+v, %v", name, o.Results, err)
		}
	}
}

func TestCommitMessagesAreChecked(t *testing.T) {
	for message, good := range map[string]bool{
		"parser: take comments after a key":                                       true,
		"parser: take comments after a key\n\nPeople write them, and we said no.": true,
		"Here is your commit message:\n```\nfix\n```":                             false,
		"\"parser: take comments\"":                                               false,
		"fix":                                                                     false,
		strings.Repeat("long ", 30):                                               false,
	} {
		s := &script{says: map[string]said{"summary": {text: "comments are taken"}, "message": {text: message}, "qwen2.5:7b": {text: "better"}}}
		o, err := run(t.Context(), shipped(t, "commit-message"), call("diff --git"), s)
		if err != nil || path(o) != "summary message" || o.Results[1].Escalated == good {
			t.Errorf("%q: %+v, %v", message, o.Results, err)
		}
	}
}
