package job_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ollama/ollama/api"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

func TestModelNames(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"qwen2.5", "qwen2.5:latest", true},
		{"Qwen2.5:0.5B", "qwen2.5:0.5b", true},
		{"registry.ollama.ai/library/llama3.2:1b", "llama3.2:1b", true},
		{"hf.co/someone/model", "hf.co/someone/model:latest", true},
		{"localhost:5000/me/model", "localhost:5000/me/model:latest", true},
		{"llama3.2:1b", "llama3.2:3b", false},
		{"llama3.2", "llama3.1", false},
	} {
		if got := job.SameModel(c.a, c.b); got != c.same {
			t.Errorf("SameModel(%q, %q) = %v", c.a, c.b, got)
		}
	}
}

func TestMayReload(t *testing.T) {
	four, eight := 4096, 8192
	for _, c := range []struct {
		what  string
		job   job.Job
		model job.Model
		want  bool
	}{
		{"who asks for no context gets what is there", job.Job{}, job.Model{Resident: true, ContextLength: four}, false},
		{"the same again", job.Job{ContextLength: four}, job.Model{Resident: true, ContextLength: four}, false},
		{"another", job.Job{ContextLength: eight}, job.Model{Resident: true, ContextLength: four}, true},
		{"another, over a wire of ours", job.Job{Content: job.Content{Sampling: job.Sampling{ContextLength: &eight}}}, job.Model{Resident: true, ContextLength: four}, true},
		{"a server that does not tell", job.Job{ContextLength: four}, job.Model{Resident: true}, true},
		{"what is not loaded is not loaded anew", job.Job{ContextLength: eight}, job.Model{}, false},
	} {
		if got := c.job.MayReload(c.model); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}

func TestEstimate(t *testing.T) {
	igpu := job.Profile{Draw: 12 * power.Watt, FirstToken: 350 * time.Millisecond, Prefill: 220, Decode: 22, LoadRate: 1e9}
	resident := job.Candidate{Profile: igpu, Model: &job.Model{Size: 4e9, Resident: true}}
	j := job.Job{Kind: job.Chat, MaxTokens: 44, PromptBytes: 880}
	e := resident.Estimate(&j, 44)
	if e.FirstToken != 1350*time.Millisecond || e.Total != 3350*time.Millisecond || e.Load != 0 {
		t.Errorf("resident: %+v", e)
	}
	if want := power.Joules(12 * 3.35); e.Energy != want {
		t.Errorf("energy is %v, want %v", e.Energy, want)
	}
	cold := resident
	cold.Model = &job.Model{Size: 4e9}
	if e := cold.Estimate(&j, 44); e.Load != 5*time.Second || e.FirstToken != 6350*time.Millisecond {
		t.Errorf("not resident: %+v", e)
	}
	j.Kind = job.Embed
	if e := resident.Estimate(&j, 44); e.Total != e.FirstToken {
		t.Errorf("an embedding takes %v after its first token", e.Total-e.FirstToken)
	}
	if e := (&job.Candidate{}).Estimate(&j, 44); e.Total != 0 {
		t.Errorf("unknown rates take %v", e.Total)
	}
}

func TestEstimateCountsWhatIsKnownOfTheMoment(t *testing.T) {
	c := job.Candidate{
		Profile: job.Profile{Draw: 10 * power.Watt, Prefill: 100, Decode: 10}, Model: &job.Model{Resident: true},
		Wait: 5 * time.Second, Held: 400, Tail: 3 * power.Joule,
	}
	j := job.Job{Kind: job.Chat, PromptBytes: 800}
	e := c.Estimate(&j, 20)
	if e.FirstToken != 6*time.Second || e.Total != 8*time.Second || e.Energy != 33*power.Joule || e.Tail != 3*power.Joule {
		t.Errorf("in line for 5 s, half of the prompt read before: %+v", e)
	}
	c.Held = 10_000
	if e := c.Estimate(&j, 20); e.FirstToken != 5*time.Second {
		t.Errorf("all of it read before: %+v", e)
	}
}

func TestATokenByItself(t *testing.T) {
	for want, p := range map[power.Energy]job.Profile{
		500 * power.Joule / 1000: {Draw: 10 * power.Watt, Decode: 20},
		300 * power.Joule / 1000: {Draw: 10 * power.Watt, Decode: 20, TokenEnergy: 300 * power.Joule / 1000},
		0:                        {Draw: 10 * power.Watt},
	} {
		if got := p.PerToken(); got != want {
			t.Errorf("%+v: got %v, want %v", p, got, want)
		}
	}
	for bytes, want := range map[int]int{-1: 0, 0: 0, 1: 1, 8: 2, 9: 3} {
		if got := (job.Job{PromptBytes: bytes}).PromptTokens(); got != want {
			t.Errorf("a prompt of %d bytes has %d tokens, want %d", bytes, got, want)
		}
	}
}

func TestMostTokens(t *testing.T) {
	for limit, want := range map[int]int{0: job.LongestTokens, 16: 16, 4096: 4096} {
		if got := (job.Job{MaxTokens: limit}).MostTokens(); got != want {
			t.Errorf("limit %d: %d, want %d", limit, got, want)
		}
	}
}

func TestErrorSaysEverythingOnce(t *testing.T) {
	err := error(&job.Error{
		Code: job.NoBackend, Detail: "2 backends",
		Refused: map[string]string{"ollama-npu": "unhealthy", "ollama-cpu": "draws 28.0 W"},
		Err:     errors.New("boom"),
	})
	if want := "no backend: 2 backends: ollama-cpu: draws 28.0 W; ollama-npu: unhealthy: boom"; err.Error() != want {
		t.Errorf("got %q", err)
	}
	if !errors.Is(err, job.NoBackend) || errors.Is(err, job.Busy) {
		t.Error("errors.Is does not go by the code")
	}
}

func TestSetModel(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{}`, `{"model":"m"}`},
		{`{"prompt":"x"}`, `{"model":"m","prompt":"x"}`},
		{` { "model" : "old" , "prompt":"a\"b" } `, ` { "model" : "m" , "prompt":"a\"b" } `},
		{`{"model":"","Model":null}`, `{"model":"m","Model":"m"}`},
		{`{"options":{"model":"inner"}}`, `{"model":"m","options":{"model":"inner"}}`},
	} {
		got, err := job.SetModel([]byte(c.body), "m")
		if err != nil || string(got) != c.want {
			t.Errorf("%s: got %s, %v; want %s", c.body, got, err, c.want)
		}
	}
	if _, err := job.SetModel([]byte(`[1]`), "m"); err == nil {
		t.Error("an array has no model")
	}
}

func TestParseKeepAlive(t *testing.T) {
	for value, want := range map[string]time.Duration{
		`0`: 0, `-0`: 0, `0.0`: 0, `300`: 5 * time.Minute, `0.5`: 500 * time.Millisecond, `1e3`: 1000 * time.Second,
		`-1`: job.Forever, `-0.1`: job.Forever, `1e300`: job.Forever, `9223372037`: job.Forever,
		`"0"`: 0, `"5m"`: 5 * time.Minute, ` "1h30m" `: 90 * time.Minute, `"-1s"`: job.Forever,
	} {
		got, err := job.ParseKeepAlive([]byte(value))
		if err != nil || got == nil || *got != want {
			t.Errorf("%s: got %v, %v; want %v", value, got, err, want)
		}
	}
	for _, value := range []string{``, `null`, ` null `} {
		if got, err := job.ParseKeepAlive([]byte(value)); err != nil || got != nil {
			t.Errorf("%q: got %v, %v; it says nothing", value, got, err)
		}
	}
	for _, value := range []string{`""`, `"5"`, `"soon"`, `true`, `[5]`, `{}`, `1e400`, `x`} {
		if got, err := job.ParseKeepAlive([]byte(value)); err == nil {
			t.Errorf("%s: got %v", value, got)
		}
	}
}

func TestNameLimit(t *testing.T) {
	for body, want := range map[string]string{
		`{"model":"m"}`: `{"model":"m"}`,
		`{"model":"m", "max_completion_tokens": 5 }`:           `{"max_tokens":5,"model":"m", "max_completion_tokens": 5 }`,
		`{"max_completion_tokens":5,"max_tokens":7}`:           `{"max_completion_tokens":5,"max_tokens":7}`,
		`{"max_completion_tokens":5,"max_tokens":null}`:        `{"max_completion_tokens":5,"max_tokens":5}`,
		`{"max_completion_tokens":null}`:                       `{"max_completion_tokens":null}`,
		`{"messages":["\"max_completion_tokens\":5"]}`:         `{"messages":["\"max_completion_tokens\":5"]}`,
		`{"metadata":{"max_completion_tokens":5},"model":"m"}`: `{"metadata":{"max_completion_tokens":5},"model":"m"}`,
	} {
		if got, err := job.NameLimit([]byte(body)); err != nil || string(got) != want {
			t.Errorf("%s becomes %s, %v", body, got, err)
		}
	}
}

func TestAskUsage(t *testing.T) {
	for _, c := range []struct {
		body, want string
		added      bool
	}{
		{`{"a":1}`, `{"stream_options":{"include_usage":true},"a":1}`, true},
		{`{ "stream_options" : null }`, `{ "stream_options" : {"include_usage":true} }`, true},
		{`{"stream_options":{ }}`, `{"stream_options":{"include_usage":true }}`, true},
		{`{"stream_options":{"x":1, "include_usage": false}}`, `{"stream_options":{"x":1, "include_usage": true}}`, true},
		{`{"stream_options": {"include_usage" :true}}`, `{"stream_options": {"include_usage" :true}}`, false},
	} {
		got, added, err := job.AskUsage([]byte(c.body))
		if err != nil || string(got) != c.want || added != c.added {
			t.Errorf("%s became %s, %v, %v", c.body, got, added, err)
		}
	}
	if _, _, err := job.AskUsage([]byte(`{"stream_options":7}`)); !errors.Is(err, job.Invalid) {
		t.Errorf("got %v", err)
	}
}

func TestSetListed(t *testing.T) {
	got, err := job.SetListed([]byte(`{"model": "a:1", "x":[1, 2], "name":"a:1"}`), "b")
	if err != nil || string(got) != `{"model": "b", "x":[1, 2], "name":"b"}` {
		t.Errorf("%s, %v", got, err)
	}
}

func TestSetKeepAlive(t *testing.T) {
	for _, c := range []struct {
		body string
		keep time.Duration
		want string
	}{
		{`{}`, 5 * time.Second, `{"keep_alive":5}`},
		{`{"model":"m"}`, 0, `{"keep_alive":0,"model":"m"}`},
		{` { "keep_alive" : "5m" , "prompt":"a\"b" } `, 18750 * time.Millisecond, ` { "keep_alive" : 18 , "prompt":"a\"b" } `},
		{`{"keep_alive":-1,"Keep_Alive":null,"\u006Beep_alive":1}`, time.Minute, `{"keep_alive":60,"Keep_Alive":60,"\u006Beep_alive":60}`},
		{`{"options":{"keep_alive":-1}}`, -time.Second, `{"keep_alive":0,"options":{"keep_alive":-1}}`},
	} {
		got, err := job.SetKeepAlive([]byte(c.body), c.keep)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: got %s, %v; want %s", c.body, got, err, c.want)
		}
	}
	if _, err := job.SetKeepAlive([]byte(`"5m"`), 0); err == nil {
		t.Error("a string keeps nothing")
	}
}

func TestTakeOwn(t *testing.T) {
	for _, c := range []struct{ body, rest, own string }{
		{`{"a":1}`, `{"a":1}`, ""},
		{`{"joulemux":{}}`, `{}`, `{}`},
		{`{"joulemux":{"target":"cpu"},"a":1}`, `{"a":1}`, `{"target":"cpu"}`},
		{`{"a":1, "joulemux":{}, "b":2}`, `{"a":1, "b":2}`, `{}`},
		{`{ "a":1 , "joulemux":{} }`, `{ "a":1 }`, `{}`},
		{`{"joulemux":1,"joulemux":2,"a":3}`, `{"a":3}`, `2`},
		{`{"a":{"joulemux":1}}`, `{"a":{"joulemux":1}}`, ""},
		{`{"a":1e400,"b":"\u00e9\ud800"}`, `{"a":1e400,"b":"\u00e9\ud800"}`, ""},
	} {
		rest, own, err := job.TakeOwn([]byte(c.body))
		if err != nil || string(rest) != c.rest || string(own) != c.own {
			t.Errorf("%s: got %s and %s, %v; want %s and %s", c.body, rest, own, err, c.rest, c.own)
		}
	}
}

func TestSplice(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"{\"done\":true}\n", "{\"done\":true,\"joulemux\":{\"n\":1}}\n"},
		{`{}`, `{"joulemux":{"n":1}}`},
		{`{ "a" : {} } `, `{ "a" : {} ,"joulemux":{"n":1}} `},
	} {
		got, err := job.Splice([]byte(c.line), map[string]int{"n": 1})
		if err != nil || string(got) != c.want {
			t.Errorf("%q: got %q, %v; want %q", c.line, got, err, c.want)
		}
	}
	if _, err := job.Splice([]byte("no object"), 1); err == nil {
		t.Error("spliced into what is no object")
	}
}

// FuzzKeepAlive holds keep_alive to what Ollama's own decoder makes of it,
// before the edit and after.
func FuzzKeepAlive(f *testing.F) {
	f.Add([]byte(`{"model":"m","keep_alive":"5m"}`), int64(7))
	f.Add([]byte(`{"keep_alive":-1,"Keep_Alive":null , "\u212aeep_alive":3e1}`), int64(0))
	f.Add([]byte(` {"options":{"keep_alive":1}} `), int64(300))
	f.Fuzz(func(t *testing.T, body []byte, seconds int64) {
		var before, after map[string]json.RawMessage
		var asked struct {
			KeepAlive json.RawMessage `json:"keep_alive"`
		}
		if json.Unmarshal(body, &before) != nil || before == nil || json.Unmarshal(body, &asked) != nil {
			return
		}
		var request api.GenerateRequest
		if err := json.Unmarshal(body, &request); err == nil {
			got, err := job.ParseKeepAlive(asked.KeepAlive)
			switch want := request.KeepAlive; {
			case err != nil:
				t.Fatalf("%q: Ollama reads %v, we %v", body, want, err)
			case (got == nil) != (want == nil):
				t.Fatalf("%q: Ollama reads %v, we %v", body, want, got)
			case got != nil && *got != job.Forever && *got != want.Duration:
				t.Fatalf("%q: Ollama reads %v, we %v", body, want, got)
			}
		}
		keep := time.Duration(seconds%(1<<30)) * time.Second
		set, err := job.SetKeepAlive(body, keep)
		if err != nil {
			t.Fatalf("SetKeepAlive of %q: %v", body, err)
		}
		var edited struct {
			KeepAlive *api.Duration `json:"keep_alive"`
		}
		if err := json.Unmarshal(set, &edited); err != nil || edited.KeepAlive == nil || edited.KeepAlive.Duration != max(keep, 0) {
			t.Fatalf("SetKeepAlive of %q: %q, %v", body, set, err)
		}
		if err := json.Unmarshal(set, &after); err != nil {
			t.Fatal(err)
		}
		isKeep := func(key string, _ json.RawMessage) bool { return strings.EqualFold(key, "keep_alive") }
		maps.DeleteFunc(before, isKeep)
		maps.DeleteFunc(after, isKeep)
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("SetKeepAlive of %q changes more: %q", body, set)
		}
	})
}

// FuzzEdits holds the edits to what a JSON decoder makes of their outcome.
func FuzzEdits(f *testing.F) {
	f.Add([]byte(`{"a":1,"joulemux":{"x":[1,2]},"model":"m"}`))
	f.Add([]byte(` {"joulemux":0 , "joulemux":1}`))
	f.Add([]byte(`{"":"","\"":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var before map[string]any
		if json.Unmarshal(body, &before) != nil || before == nil {
			return
		}
		rest, own, err := job.TakeOwn(body)
		if err != nil {
			t.Fatalf("TakeOwn of %q: %v", body, err)
		}
		var after map[string]any
		if err := json.Unmarshal(rest, &after); err != nil {
			t.Fatalf("TakeOwn of %q leaves %q: %v", body, rest, err)
		}
		_, had := before[job.OwnMember]
		if had != (own != nil) {
			t.Fatalf("TakeOwn of %q: own is %q", body, own)
		}
		delete(before, job.OwnMember)
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("TakeOwn of %q leaves %q", body, rest)
		}
		named, err := job.SetModel(rest, "x")
		if err != nil {
			t.Fatal(err)
		}
		var request struct{ Model string }
		if err := json.Unmarshal(named, &request); err != nil || request.Model != "x" {
			t.Fatalf("SetModel of %q: %q, %v", rest, named, err)
		}
		spliced, err := job.Splice(bytes.Clone(rest), "own")
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(spliced, &after); err != nil || after[job.OwnMember] != "own" {
			t.Fatalf("Splice of %q: %q, %v", rest, spliced, err)
		}
	})
}

func TestSet(t *testing.T) {
	var j job.Job
	for key, value := range map[string]any{
		"model": "m", "target": "npu", "class": "background", "latency_critical": true,
		"prefer_power_efficiency": true, "cache_enabled": true, "max_latency_ms": int32(500),
		"deadline_ms": uint64(24000), "max_power_watts": 15.5, "custom": map[string]any{"a": "b"},
		"max_tokens": 7.0, "temperature": 0.5, "top_p": float32(0.25), "top_k": byte(40),
		"context_length": int64(4096), "stop": []any{"a", "b"}, "system": "be brief",
	} {
		if err := j.Set(key, value); err != nil {
			t.Errorf("%s = %v: %v", key, value, err)
		}
	}
	want := job.Annotations{
		Target: "npu", Class: job.Background, LatencyCritical: true, PreferPowerEfficiency: true,
		CacheEnabled: true, MaxLatency: 500 * time.Millisecond, Deadline: 24 * time.Second,
		MaxPower: power.Watts(15.5), Custom: map[string]string{"a": "b"},
	}
	if !reflect.DeepEqual(j.Annotations, want) {
		t.Errorf("annotations are %+v", j.Annotations)
	}
	s := j.Content.Sampling
	if j.MaxTokens != 7 || *s.Temperature != 0.5 || *s.TopP != 0.25 || *s.TopK != 40 || *s.ContextLength != 4096 || len(s.Stop) != 2 {
		t.Errorf("job is %+v", j)
	}
}

func TestErrorsEchoNoMoreThanIsNeeded(t *testing.T) {
	huge := strings.Repeat("ü", 1<<20)
	var j job.Job
	_, keep := job.ParseKeepAlive([]byte(`"` + huge + `"`))
	for what, err := range map[string]error{"a time": keep, "an option": j.Set(huge, 1), "an annotation": j.Annotate(huge, 1), "a class": j.Set("class", huge)} {
		if text := err.Error(); len(text) > 1000 || !strings.Contains(text, "üüü…") || !utf8.ValidString(text) {
			t.Errorf("of %s there are %d bytes: %.200s", what, len(text), text)
		}
	}
}

func TestSetRefuses(t *testing.T) {
	for _, c := range []struct {
		key   string
		value any
		says  string
	}{
		{"max_tokens", "12", "want a number, got string"},
		{"temperature", math.NaN(), "want a number, got NaN"},
		{"max_power_watts", math.Inf(1), "want a number, got +Inf"},
		{"max_tokens", 1.5, "want a whole number"},
		{"max_tokens", -1, "from 0 to"},
		{"max_tokens", 1e12, "from 0 to"},
		{"max_power_watts", -3, "from 0 to"},
		{"latency_critical", 1, "want a boolean, got int"},
		{"class", "urgent", "neither interactive nor background"},
		{"stop", []any{"a", 1}, "want a string"},
		{"stop", "a", "want a list of strings"},
		{"custom", map[string]any{"k": 1}, "k: want a string"},
		{"max_token", 1, `did you mean "max_tokens"?`},
		{"zzzzzzzzzz", 1, "there are cache_enabled"},
		{"model", nil, "want a string, got <nil>"},
	} {
		var j job.Job
		err := j.Set(c.key, c.value)
		var e *job.Error
		if !errors.As(err, &e) || e.Code != job.Invalid || e.Field != c.key || !strings.Contains(e.Detail, c.says) {
			t.Errorf("%s = %v: %v, want it to say %q", c.key, c.value, err, c.says)
		}
		if !reflect.DeepEqual(j, job.Job{}) {
			t.Errorf("%s = %v: refused, and yet changed the job", c.key, c.value)
		}
	}
	var j job.Job
	if err := j.Annotate("max_tokens", 1); err == nil {
		t.Error("max_tokens is no annotation")
	}
}

func TestHugeKeyIsRefusedAtOnce(t *testing.T) {
	key := strings.Repeat("x", 64<<20)
	start := time.Now()
	var j job.Job
	if err := j.Annotate(key, 1); err == nil {
		t.Error("it is taken")
	}
	if took := time.Since(start); took > 5*time.Second { // compared byte by byte, it is minutes
		t.Errorf("it took %v", took)
	}
}
