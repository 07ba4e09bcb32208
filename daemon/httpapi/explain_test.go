package httpapi_test

import (
	"math"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
)

const explainPath = "/joulemux/v1/explain"

// explain asks what would become of a job.
func (r *rig) explain(body string) wire.Explanation {
	r.t.Helper()
	got := r.ask("POST", explainPath, body)
	if got.status != 200 {
		r.t.Fatalf("%s: got %d %s", body, got.status, got.body)
	}
	return read[wire.Explanation](r.t, got.body)
}

func TestAnExplanationRunsNothing(t *testing.T) {
	one, two := with(says(ndjson, lastLine)), with(says(ndjson, lastLine))
	two.resident = nil
	r := newRig(t, one, two)
	e := r.explain(`{"prompt":"Why is the sky blue?","options":{"max_tokens":10}}`)
	if e.Backend != "one" || e.Tier != "unknown" || e.Model != "m:latest" || !strings.HasPrefix(e.Reason, "least cost, ") || e.Error != nil || e.Waits {
		t.Errorf("the decision is %+v", e)
	}
	if e.SecondWatts == nil || *e.SecondWatts != 100 || e.PromptTokens != 5 {
		t.Errorf("reckoned with %v W and %d tokens", e.SecondWatts, e.PromptTokens)
	}
	if n := e.ExpectedTokens; n.Median != 10 || n.Mean > 10 || n.Mean < 9 || n.Learned {
		t.Errorf("expects %+v", n)
	}
	if len(e.Backends) != 2 {
		t.Fatalf("got %+v", e.Backends)
	}
	for i, b := range e.Backends {
		n := b.Estimate
		if n == nil {
			t.Fatalf("of %s there is no estimate", b.ID)
		}
		if sum := n.LoadJoules + n.WorkJoules + n.TailJoules; math.Abs(sum-n.Joules) > 1e-9 || n.Joules <= 0 {
			t.Errorf("%s: the parts of %v J come to %v", b.ID, n.Joules, sum)
		}
		if cold := n.LoadMs > 0 && n.LoadJoules > 0; cold != (b.ID == "two") {
			t.Errorf("%s: %+v", b.ID, n)
		}
		if n.FirstTokenMs < n.LoadMs || n.TotalMs <= n.FirstTokenMs || n.CostJoules <= n.Joules || n.JoulesPerToken <= 0 || n.Quality != "estimated" || n.Samples != 0 {
			t.Errorf("%s: %+v", b.ID, n)
		}
		verdict, hardware := []string{e.Reason, "costs "}[i], []string{"igpu", "cpu"}[i]
		if !b.Fit || b.Hardware != hardware || b.Model != "m:latest" || !strings.HasPrefix(b.Verdict, verdict) {
			t.Errorf("got %+v", b)
		}
	}
	if asked := append(one.questions(), two.questions()...); len(asked) != 0 || r.dispatch.Running() != 0 {
		t.Errorf("a backend was asked %q", asked)
	}
}

func TestAnExplanationMaySupposeATier(t *testing.T) {
	r := newRig(t, with(nil))
	if e := r.explain(`{"prompt":"p","tier":"battery"}`); e.Tier != "battery" || *e.SecondWatts != 15 {
		t.Errorf("got %+v", e)
	}
	if now := r.tiers.Current().Tier.String(); now != "unknown" {
		t.Errorf("it is %s since", now)
	}
	if e := r.explain(`{"prompt":"p","tier":"low","options":{"class":"background"}}`); !e.Waits || e.Backend != "one" || *e.SecondWatts != 0 {
		t.Errorf("got %+v", e)
	}
	if e := r.explain(`{"prompt":"p","options":{"latency_critical":true}}`); e.SecondWatts != nil {
		t.Errorf("to who is in a hurry a second is worth %v W", *e.SecondWatts)
	}
}

func TestThatAJobWouldGoNowhereIsExplainedToo(t *testing.T) {
	r := newRig(t, with(nil), with(nil))
	for _, c := range []struct{ rule, body, code, verdict string }{
		{"a background job on a critical battery", `{"prompt":"p","tier":"critical","options":{"class":"background"}}`, wire.CodePowerPolicy, "background jobs are refused"},
		{"a cap on power", `{"prompt":"p","options":{"max_power_watts":1}}`, wire.CodeNoBackend, "draws 12.0 W, more than"},
		{"a model that is nowhere", `{"prompt":"p","options":{"model":"q"}}`, wire.CodeModelNotFound, `has no model "q"`},
		{"a target that there is not", `{"prompt":"p","options":{"target":"tpu"}}`, wire.CodeBackendNotFound, "not the target"},
	} {
		e := r.explain(c.body)
		if e.Error == nil || e.Error.Code != c.code || e.Backend != "" || e.Reason != "" || len(e.Backends) != 2 {
			t.Errorf("%s: got %+v", c.rule, e)
			continue
		}
		if b := e.Backends[0]; !strings.HasPrefix(b.Verdict, c.verdict) || (b.Estimate == nil) != (c.code == wire.CodeModelNotFound) {
			t.Errorf("%s: got %+v", c.rule, b)
		}
	}
}

func TestWhatCannotBeExplainedIsAnError(t *testing.T) {
	r := newRig(t, with(nil))
	r.Configure(httpapi.Settings{MaxBody: 200})
	huge := `{"prompt":"` + strings.Repeat("x", 200) + `"}`
	for _, c := range []struct {
		body, header string
		status       int
		field, text  string
	}{
		{`{"prompt":""}`, "", 400, "prompt", "empty"},
		{`{"prompt":"p","teir":"low"}`, "", 400, "", `unknown field "teir"`},
		{`{"prompt":"p","tier":"turbo"}`, "", 400, "tier", `"turbo" is none of`},
		{`{"prompt":"p","options":{"max_token":5}}`, "", 400, "options.max_token", `did you mean "max_tokens"?`},
		{`{"prompt":"p"}`, "X-Max-Latency-Ms: soon", 400, "X-Max-Latency-Ms", "want a number"},
		{`{"prompt":"p"}`, "Origin: https://example.org", 403, "Origin", "not allowed"},
		{`{"prompt":"p"}`, "Host: example.org", 403, "Host", "not this machine"},
		{huge, "", 413, "", "200 bytes"},
	} {
		var headers []string
		if c.header != "" {
			headers = append(headers, c.header)
		}
		got := r.over(r.overTCP, "POST", explainPath, c.body, headers...)
		if e := read[wire.Error](t, got.body); got.status != c.status || e.Field != c.field || !strings.Contains(e.Text, c.text) {
			t.Errorf("%.60s %s: got %d %s", c.body, c.header, got.status, got.body)
		}
	}
	if got := r.ask("GET", explainPath, ""); got.status != 405 || got.header.Get("Allow") != "POST" {
		t.Errorf("GET: got %+v", got)
	}
}

func TestWithoutBackendsOrConfigurationThereIsNothingToExplain(t *testing.T) {
	r := newRig(t)
	if got := r.ask("POST", explainPath, `{"prompt":"p"}`); got.status != 503 || read[wire.Error](t, got.body).Code != wire.CodeNoBackend {
		t.Errorf("without backends: got %+v", got)
	}
	settings := dispatch.DefaultSettings()
	settings.Refusal = job.Errorf(job.NoBackend, "the configuration has a fault in line 3")
	r.dispatch.Configure(settings)
	if got := r.ask("POST", explainPath, `{"prompt":"p"}`); got.status != 503 || !strings.Contains(got.body, "line 3") {
		t.Errorf("without a configuration: got %+v", got)
	}
}

func TestTheLengthsOfAnswersAreLearned(t *testing.T) {
	r := newRig(t, with(says(ndjson, `{"response":"x","done":true,"eval_count":50,"eval_duration":1000000000}`+"\n")))
	for range 64 {
		if got := r.ask("POST", "/joulemux/v1/generate", `{"prompt":"p"}`); got.status != 200 {
			t.Fatalf("got %+v", got)
		}
	}
	e := r.explain(`{"prompt":"p"}`)
	if n := e.ExpectedTokens; !n.Learned || n.Median != 50 || n.Mean != 50 {
		t.Errorf("expects %+v", n)
	}
}
