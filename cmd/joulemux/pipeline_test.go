package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// wholeRun is a run as the daemon tells of it.
const wholeRun = `{"stage":"sort","routed":{"backend_used":"ollama-npu"}}
{"stage":"sort","done":{"output":"question","backend_used":"ollama-npu","hardware":"npu","reason":"named as target","model":"small","attempts":1,"prompt_tokens":9,"tokens_generated":3,"total_time_ms":812,"energy_quality":"estimated","energy_joules":2.4,"jobs":[{}]}}
{"stage":"extra","done":{"output":"","skipped":"not on tier low","attempts":0,"prompt_tokens":0,"tokens_generated":0,"total_time_ms":0,"energy_quality":"none","jobs":[]}}
{"stage":"answer","last":true,"routed":{"backend_used":"ollama-igpu"}}
{"stage":"answer","done":{"output":"Light scatters.","backend_used":"ollama-nvidia","hardware":"nvidia","reason":"least cost","model":"large","escalated":true,"escalation":"confidence 0.42 is below 0.70","attempts":2,"prompt_tokens":9,"tokens_generated":40,"total_time_ms":3100,"energy_quality":"unknown","jobs":[{},{}]}}
{"end":{"id":"X","pipeline":"triage","stage":"answer","output":"Light scatters.","jobs":3,"prompt_tokens":18,"tokens_generated":43,"total_time_ms":3912,"energy_quality":"unknown"}}
`

func TestPipelineIsRun(t *testing.T) {
	r := replay(t, answers{"POST pipelines/run": says(wholeRun)})
	out, err, code := run(t, r.socket, strings.NewReader("Why?\n"), "pipeline", "run", "--max-power", "15W", "--deadline=1m", "--background", "--model", "m", "--var", "language=German", "--var=x=a=b", "triage")
	const said = `sort: ollama-npu (npu): 3 tokens, 0.8 s, 2.40 J estimated; named as target
extra: skipped, not on tier low
answer: ollama-nvidia (nvidia): 40 tokens, 3.1 s, energy unknown; least cost
answer: the answer is large's: confidence 0.42 is below 0.70
triage: 3 jobs, 43 tokens, 3.9 s, energy unknown
`
	if code != 0 || out != "Light scatters.\n" || err != said {
		t.Errorf("it writes %q, says\n%s and exits with %d", out, err, code)
	}
	const want = `POST /joulemux/v1/pipelines/run {"pipeline":"triage","input":"Why?\n","vars":{"language":"German","x":"a=b"},"options":{"class":"background","deadline_ms":60000,"max_power_watts":15,"model":"m"}}`
	if r.requests()[0] != want {
		t.Errorf("it asks %s", r.requests()[0])
	}
	if out, err, code := run(t, r.socket, nil, "pipeline", "run", "-q", "triage", "Why", "so?"); code != 0 || out != "Light scatters.\n" || err != "" || !strings.Contains(r.requests()[1], `"input":"Why so?"`) {
		t.Errorf("quietly: %q, %q, %d, %s", out, err, code, r.requests()[1])
	}
	if out, err, code := run(t, r.socket, nil, "pipeline", "run", "--json", "triage", "x"); code != 0 || out != wholeRun || err != "" {
		t.Errorf("as JSON: %q, %q, %d", out, err, code)
	}
}

func TestPipelineIsStreamed(t *testing.T) {
	const done = `"hardware":"cpu","reason":"r","backend_used":"b","energy_quality":"none","jobs":[]}}` + "\n"
	r := replay(t, answers{"POST pipelines/run": says(
		`{"stage":"a","routed":{}}` + "\n" + `{"stage":"a","text":"Hm"}` + "\n" + `{"stage":"a","done":{"output":"Hm",` + done +
			`{"stage":"b","last":true,"routed":{}}` + "\n" + `{"stage":"b","text":"Light "}` + "\n" + `{"stage":"b","text":"scatters"}` + "\n" + `{"stage":"b","done":{"output":"Light scatters",` + done +
			`{"end":{"id":"X","pipeline":"p","stage":"b","output":"Light scatters","jobs":2,"energy_quality":"none"}}` + "\n")})
	out, err, code := run(t, r.socket, nil, "pipeline", "run", "--stream", "p", "x")
	if code != 0 || out != "Light scatters\n" || !strings.HasPrefix(err, "Hm\na: b (cpu)") || !strings.Contains(r.requests()[0], `"stream":true`) {
		t.Errorf("it writes %q, says %q and exits with %d", out, err, code)
	}
	if out, err, _ := run(t, r.socket, nil, "pipeline", "run", "--stream", "-q", "p", "x"); out != "Light scatters\n" || err != "" {
		t.Errorf("quietly it writes %q and says %q", out, err)
	}
}

func TestPipelineThatFails(t *testing.T) {
	r := replay(t, answers{"POST pipelines/run": says(`{"stage":"a","routed":{}}` + "\n" + `{"stage":"a","done":{"output":"","error":{"error":"deadline passed: stage a","code":"deadline_passed"},"jobs":[]}}` + "\n" +
		`{"error":{"error":"deadline passed: stage a: 100 ms","code":"deadline_passed"}}` + "\n")})
	if out, err, code := run(t, r.socket, nil, "pipeline", "run", "p", "x"); code != 8 || out != "" || err != "a: deadline passed: stage a\njoulemux: deadline passed: stage a: 100 ms\n" {
		t.Errorf("it writes %q, says %q and exits with %d", out, err, code)
	}
	r = replay(t, answers{"POST pipelines/run": refuses(404, wire.Error{Text: `pipeline not found: "p"`, Code: wire.CodePipelineNotFound})})
	if _, err, code := run(t, r.socket, nil, "pipeline", "run", "p", "x"); code != 4 || !strings.Contains(err, "pipeline not found") {
		t.Errorf("it says %q and exits with %d", err, code)
	}
	r = replay(t, answers{"POST pipelines/run": says(`{"stage":"a","routed":{}}` + "\n")})
	if _, err, code := run(t, r.socket, nil, "pipeline", "run", "p", "x"); code != 1 || !strings.Contains(err, "broke off") {
		t.Errorf("it says %q and exits with %d", err, code)
	}
	for _, args := range []string{"run", "run --var x p", "run --var =x p", "run --max-tokens 3 p", "check", "show", "list x", "run ./none.yaml"} {
		if _, err, code := run(t, r.socket, nil, append([]string{"pipeline"}, strings.Fields(args)...)...); code != 2 {
			t.Errorf("%s says %q and exits with %d", args, err, code)
		}
	}
}

func TestPipelinesOfOnesOwn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(file, []byte("stages: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := replay(t, answers{
		"POST pipelines/run":   says(wholeRun),
		"POST pipelines/check": says(`{"name":"mine","faults":[{"line":1,"key":"stages","text":"a pipeline needs stages"},{"text":"nothing"}]}`),
		"GET pipelines":        says(`{"pipelines":[{"name":"a","description":"Does it."},{"name":"b","path":"/x/b.yaml","faults":[{"line":1,"text":"x"}]}]}`),
		"GET pipelines/a":      says(`{"name":"a","path":"/x/a.yaml","text":"stages:\n"}`),
	})
	if _, err, code := run(t, r.socket, nil, "pipeline", "run", file, "x"); code != 0 || !strings.Contains(r.requests()[0], `{"pipeline":"mine","text":"stages: []\n","input":"x"}`) {
		t.Errorf("it asks %s, says %q and exits with %d", r.requests()[0], err, code)
	}
	if out, err, code := run(t, r.socket, nil, "pipeline", "check", file); code != 2 || out != file+":1: stages: a pipeline needs stages\n"+file+": nothing\n" || err != "joulemux: 2 faults\n" {
		t.Errorf("it writes %q, says %q and exits with %d", out, err, code)
	}
	if out, _, code := run(t, r.socket, nil, "pipeline", "list"); code != 0 || out != "a  Does it.\nb  has 1 fault: joulemux pipeline check /x/b.yaml\n" {
		t.Errorf("it writes %q and exits with %d", out, code)
	}
	if out, err, code := run(t, r.socket, nil, "pipeline", "show", "a"); code != 0 || out != "stages:\n" || err != "/x/a.yaml\n" {
		t.Errorf("it writes %q, says %q and exits with %d", out, err, code)
	}
}
