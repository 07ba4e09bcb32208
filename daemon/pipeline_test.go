package daemon_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// npuAndGPU is a daemon with an NPU, which has the model small, and an NVIDIA GPU
// behind OpenAI's API, which has the models small and large. All are the tiny one,
// on one real Ollama.
func npuAndGPU(t *testing.T) *daemontest.Daemon {
	t.Helper()
	ollama := realOllama(t)
	return daemontest.Start(t, daemontest.Options{
		Pipelines: []string{filepath.Join(t.TempDir(), "none"), brief(t)},
		Config: fmt.Sprintf(`
backends:
  - {id: ollama-npu, hardware: npu, endpoint: "%s", models: {small: "tiny:latest"}}
  - {id: ovms-nvidia, hardware: nvidia, type: openai, endpoint: "http://%s", models: {small: "tiny:latest", large: "tiny:latest"}}
models: {default: small}
routing: {curiosity: false, learn: false}
`, ollama, openAIOf(t, ollama)),
	})
}

// brief is a folder with the pipelines that ship, but for how much may be answered:
// a model of noise never ends by itself.
func brief(t *testing.T) (folder string) {
	t.Helper()
	folder = t.TempDir()
	files, err := filepath.Glob("../packaging/pipelines/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d pipelines, %v", len(files), err)
	}
	long := regexp.MustCompile(`max_tokens: [0-9]{3}`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(file)), long.ReplaceAll(text, []byte("max_tokens: 9")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// runPipeline runs a pipeline, and returns what its stages and it came to.
func runPipeline(t *testing.T, d *daemontest.Daemon, q wire.RunPipeline) (map[string]*wire.StageDone, *wire.PipelineEnd) {
	t.Helper()
	body, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	a := ask(t, d, "POST", "/joulemux/v1/pipelines/run", string(body))
	if a.status != http.StatusOK {
		t.Fatalf("%s: %d %s", q.Pipeline, a.status, a.body)
	}
	done := make(map[string]*wire.StageDone)
	for line := range bytes.Lines([]byte(a.body)) {
		var e wire.PipelineEvent
		if err := json.Unmarshal(line, &e); err != nil || e.Error != nil {
			t.Fatalf("%s: %v, %s", q.Pipeline, err, line)
		}
		if e.Done != nil {
			done[e.Stage] = e.Done
		}
		if e.End != nil {
			return done, e.End
		}
	}
	t.Fatalf("%s has no end: %s", q.Pipeline, a.body)
	return nil, nil
}

func TestShippedPipelinesOnRealServers(t *testing.T) {
	d := npuAndGPU(t)

	// Ollama holds the model to the format, so that noise is one of the kinds too.
	done, end := runPipeline(t, d, wire.RunPipeline{Pipeline: "triage", Input: "Why is the sky blue?"})
	var sorted struct{ Kind string }
	if err := json.Unmarshal([]byte(done["sort"].Output), &sorted); err != nil {
		t.Fatalf("%v: %s", err, done["sort"].Output)
	}
	then := map[string]string{"question": "answer", "code": "explain", "text": "sum_up"}[sorted.Kind]
	if len(done) != 2 || done[then] == nil || end.Stage != then || end.Output != done[then].Output || end.Output == "" {
		t.Errorf("of the kind %q it goes %v to %s", sorted.Kind, slices.Sorted(maps.Keys(done)), end.Stage)
	}
	if s, a := done["sort"], done[then]; s.Backend != "ollama-npu" || a.Backend != "ovms-nvidia" || s.Tokens == 0 || s.Tokens > 24 || a.Tokens == 0 || a.Tokens > 9 {
		t.Errorf("sorted by %+v, and then %+v", s, a)
	}
	spent(t, done, end)

	// Noise is not sure of itself.
	question := wire.RunPipeline{Pipeline: "ask", Input: "Why?", Vars: map[string]string{"large": "large"}}
	done, end = runPipeline(t, d, question)
	a := done["answer"]
	if !a.Escalated || a.Backend != "ovms-nvidia" || a.Model != "large" || end.Jobs != 2 || a.Confidence == nil || *a.Confidence <= 0 || *a.Confidence >= 1 || !strings.Contains(a.Escalation, "is below 0.75") {
		t.Errorf("unsure: %+v", a)
	}
	spent(t, done, end)
	question.Options = map[string]any{"max_power_watts": 15}
	done, end = runPipeline(t, d, question)
	a = done["answer"]
	if a.Escalated || a.Backend != "ollama-npu" || end.Jobs != 1 || a.Confidence == nil || *a.Confidence <= 0 || !strings.Contains(a.Escalation, "the other model has no answer: no backend") {
		t.Errorf("unsure, within 15 W: %+v", a)
	}
	spent(t, done, end)

	diff := wire.RunPipeline{Pipeline: "commit-message", Input: "diff --git a/x b/x\n+y", Vars: map[string]string{"large": "large"}, Options: map[string]any{"class": "background"}}
	done, end = runPipeline(t, d, diff)
	m := done["message"]
	larger := map[string]bool{"the check holds": false, "the check does not hold": true} // its words are its own
	if escalated, known := larger[m.Escalation]; !known || m.Escalated != escalated || (m.Model == "large") != escalated || end.Output != m.Output {
		t.Errorf("a message: %+v", m)
	}
	if s := done["summary"]; s.Backend != "ollama-npu" || !strings.HasPrefix(s.Reason, "npu preferred; fewest joules") || s.Tokens > 9 {
		t.Errorf("a summary: %+v", s)
	}
	spent(t, done, end)
}

// spent checks that a run took what its stages took.
func spent(t *testing.T, done map[string]*wire.StageDone, end *wire.PipelineEnd) {
	t.Helper()
	joules, tokens := 0.0, 0
	for id, d := range done {
		if d.EnergyQuality != "estimated" || d.EnergyJoules == nil || *d.EnergyJoules <= 0 {
			t.Fatalf("%s took %+v", id, d)
		}
		joules, tokens = joules+*d.EnergyJoules, tokens+d.Tokens
	}
	if end.EnergyQuality != "estimated" || end.EnergyJoules == nil || math.Abs(*end.EnergyJoules-joules) > 1e-6 || end.Tokens != tokens {
		t.Errorf("the stages took %v J for %d tokens, and all %+v", joules, tokens, end)
	}
}

func TestPipelinesOverGRPCOnARealServer(t *testing.T) {
	d := npuAndGPU(t)
	a := new(computev1.ExecutePipelineResponse)
	q := &computev1.ExecutePipelineRequest{
		PipelineId: "triage", Input: map[string]string{"input": "Why?", "language": "German"},
		Options: &computev1.PipelineOptions{CollectMetrics: true}, Annotations: &computev1.JobAnnotations{Target: "npu"},
	}
	err := dial(t, "unix:"+d.Socket).Invoke(t.Context(), computev1.ComputeServiceExecutePipelineProcedure, q, a)
	if err != nil || !a.Success || len(a.StageResults) != 2 || a.StageResults[0].Backend != "ollama-npu" || a.StageResults[1].Backend != "ollama-npu" || len(a.FinalOutput) != 1 ||
		a.TotalEnergyWh <= 0 || a.EnergyQuality != "estimated" || a.StageResults[0].Metadata.TokensOut == 0 || a.StageResults[0].Metadata.Model != "small" {
		t.Errorf("got %v, %v", a, err)
	}
}

func TestPipelinesAreReadWhenAskedFor(t *testing.T) {
	folder := t.TempDir()
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t), Pipelines: []string{folder}})
	if a := ask(t, d, "POST", "/joulemux/v1/pipelines/run", `{"pipeline":"mine"}`); a.status != http.StatusNotFound {
		t.Errorf("got %+v", a)
	}
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(folder, "mine.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("stages: [{id: a, prompt: x, max_tokens: 2}]")
	done, end := runPipeline(t, d, wire.RunPipeline{Pipeline: "mine"})
	if end.Stage != "a" || end.Output != "Rayleigh scattering:" || done["a"].Backend != "ollama-cpu" {
		t.Errorf("got %+v", end)
	}
	write("stages: [{id: b, prompt: x}]")
	if _, end = runPipeline(t, d, wire.RunPipeline{Pipeline: "mine"}); end.Stage != "b" {
		t.Errorf("got %+v", end)
	}
	write("stages: [{id: b, prompt: x, next: b}]")
	if a := ask(t, d, "POST", "/joulemux/v1/pipelines/run", `{"pipeline":"mine"}`); a.status != http.StatusBadRequest || !strings.Contains(a.body, "there is no way back") {
		t.Errorf("got %+v", a)
	}
}
