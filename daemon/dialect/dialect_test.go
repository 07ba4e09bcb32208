package dialect_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ollama/ollama/api"

	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
)

func noon() time.Time { return time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC) }

// same reports whether two JSON texts say the same.
func same(t *testing.T, a []byte, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Fatalf("%v: %s, %s", err, a, b)
	}
	return reflect.DeepEqual(x, y)
}

// llama is a server with as many words of its own as llama-server.
func llama() dialect.Server {
	return dialect.Server{
		Options:   map[string]string{"top_k": "top_k", "repeat_penalty": "repeat_penalty"},
		Templated: true, Thoughts: "reasoning_content", Context: 4096,
	}
}

func plain() dialect.Server { return dialect.Server{Infill: true, Bounded: true} }

const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

func TestOllamaRequestsInOpenAIsWords(t *testing.T) {
	const asked = `"stream":true,"stream_options":{"include_usage":true}`
	for _, c := range []struct {
		name, body string
		kind       job.Kind
		server     dialect.Server
		path, want string
		warnings   string
	}{
		{
			"a conversation", `{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]}`, job.Chat, plain(),
			"/chat/completions", `{"model":"theirs",` + asked + `,"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]}`, "",
		},
		{
			"a prompt is a conversation", `{"model":"m","prompt":"hi","system":"be brief","stream":false}`, job.Generate, plain(),
			"/chat/completions", `{"model":"theirs","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]}`, "",
		},
		{
			"a raw prompt is none", `{"model":"m","prompt":"[INST]hi","raw":true,"options":{"num_predict":9}}`, job.Generate, plain(),
			"/completions", `{"model":"theirs",` + asked + `,"prompt":"[INST]hi","max_tokens":9}`, "",
		},
		{
			"code to fill in", `{"model":"m","prompt":"def f(","suffix":"return c","options":{"num_predict":9}}`, job.Generate, plain(),
			"/completions", `{"model":"theirs",` + asked + `,"prompt":"def f(","suffix":"return c","max_tokens":9}`, "",
		},
		{
			"options that both have", `{"model":"m","prompt":"x","options":{"temperature":0.5,"top_p":0.9,"seed":7,"stop":["a","b"],"num_predict":3,"presence_penalty":1,"frequency_penalty":2}}`, job.Generate, plain(),
			"/chat/completions", `{"model":"theirs",` + asked + `,"messages":[{"role":"user","content":"x"}],"temperature":0.5,"top_p":0.9,"seed":7,"stop":["a","b"],"max_tokens":3,"presence_penalty":1,"frequency_penalty":2}`, "",
		},
		{
			"options that this server has", `{"model":"m","prompt":"x","options":{"top_k":3,"repeat_penalty":1.1,"num_ctx":2048}}`, job.Generate, llama(),
			"/chat/completions", `{"model":"theirs",` + asked + `,"messages":[{"role":"user","content":"x"}],"top_k":3,"repeat_penalty":1.1}`, "",
		},
		{
			"options that it has not are told of", `{"model":"m","prompt":"x","options":{"top_k":3,"num_ctx":8192,"num_predict":-1},"truncate":true,"novel":1}`, job.Generate, plain(),
			"/chat/completions", `{"model":"theirs",` + asked + `,"messages":[{"role":"user","content":"x"}]}`,
			"novel is no member of such a request\ntruncate: what does not fit is refused there, and not cut off\noptions.num_ctx: the context is the server's own\noptions.top_k has no name there",
		},
		{
			"an image", `{"model":"m","messages":[{"role":"user","content":"what?","images":["` + png + `"]}]}`, job.Chat, plain(),
			"/chat/completions", `{"model":"theirs",` + asked + `,"messages":[{"role":"user","content":[{"type":"text","text":"what?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,` + png + `"}}]}]}`, "",
		},
		{
			"tools, their calls and results",
			`{"model":"m","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"messages":[
				{"role":"user","content":"go"},
				{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}},{"id":"x","function":{"index":1,"name":"g","arguments":{}}}]},
				{"role":"tool","tool_name":"g","content":"G"},{"role":"tool","content":"F"}]}`, job.Chat, plain(),
			"/chat/completions", `{"model":"theirs",` + asked + `,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"messages":[
				{"role":"user","content":"go"},
				{"role":"assistant","content":"","tool_calls":[{"id":"call_1_0","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"x","type":"function","function":{"name":"g","arguments":"{}"}}]},
				{"role":"tool","tool_call_id":"x","content":"G"},{"role":"tool","tool_call_id":"call_1_0","content":"F"}]}`, "",
		},
		{
			"thinking by template", `{"model":"m","think":false,"messages":[{"role":"assistant","content":"a","thinking":"hm"}]}`, job.Chat, llama(),
			"/chat/completions", `{"model":"theirs",` + asked + `,"chat_template_kwargs":{"enable_thinking":false},"messages":[{"role":"assistant","content":"a","reasoning_content":"hm"}]}`, "",
		},
		{
			"thinking by effort", `{"model":"m","think":true,"messages":[{"role":"assistant","content":"a","thinking":"hm"}]}`, job.Chat, plain(),
			"/chat/completions", `{"model":"theirs",` + asked + `,"reasoning_effort":"medium","messages":[{"role":"assistant","content":"a"}]}`,
			"messages[0].thinking: earlier thinking has no place there\nthink: true is \"medium\" there",
		},
		{
			"the form of the answer", `{"model":"m","prompt":"x","format":{"type":"object"},"logprobs":true,"top_logprobs":2}`, job.Generate, plain(),
			"/chat/completions", `{"model":"theirs",` + asked + `,"messages":[{"role":"user","content":"x"}],"logprobs":true,"top_logprobs":2,
				"response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":true,"schema":{"type":"object"}}}}`, "",
		},
		{
			"just JSON", `{"model":"m","prompt":"x","format":"json"}`, job.Generate, plain(),
			"/chat/completions", `{"model":"theirs",` + asked + `,"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_object"}}`, "",
		},
		{
			"texts to embed", `{"model":"m","input":["a","b"],"dimensions":8}`, job.Embed, plain(),
			"/embeddings", `{"model":"theirs","input":["a","b"],"dimensions":8,"encoding_format":"float"}`, "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := dialect.ToOpenAI(c.kind, "", []byte(c.body), "theirs", c.server)
			if err != nil {
				t.Fatal(err)
			}
			if r.Path != c.path || !same(t, r.Body, c.want) {
				t.Errorf("it is %s %s\nwant %s %s", r.Path, r.Body, c.path, c.want)
			}
			if got := strings.Join(r.Warnings, "\n"); got != c.warnings {
				t.Errorf("it warns of %q, want %q", got, c.warnings)
			}
		})
	}
}

func TestWhatOpenAIHasNoWordsForIsRefused(t *testing.T) {
	for _, c := range []struct {
		body, field string
		kind        job.Kind
		code        job.Code
	}{
		{`{"prompt":"x","template":"{{.Prompt}}"}`, "template", job.Generate, job.Unsupported},
		{`{"prompt":"x","context":[1,2]}`, "context", job.Generate, job.Unsupported},
		{`{"prompt":"x","width":64}`, "width", job.Generate, job.Unsupported},
		{`{"prompt":"x","raw":true,"system":"s"}`, "system", job.Generate, job.Unsupported},
		{`{"prompt":"x","raw":true,"format":"json"}`, "format", job.Generate, job.Unsupported},
		{`{"prompt":"x","raw":true,"images":["` + png + `"]}`, "images", job.Generate, job.Unsupported},
		{`{"prompt":"x","suffix":"y"}`, "suffix", job.Generate, job.Unsupported},
		{`{"prompt":"x","_debug_render_only":true}`, "_debug_render_only", job.Generate, job.Unsupported},
		{`{"messages":[{"role":"user","content":"x","images":["AAAAAAAAAAAAAAAA"]}]}`, "messages[0].images[0]", job.Chat, job.Unsupported},
		{`{"messages":[{"role":"user","content":"x","images":["no base64"]}]}`, "messages[0].images[0]", job.Chat, job.Invalid},
		{`{"messages":[{"role":"tool","content":"x"}]}`, "messages[0]", job.Chat, job.Invalid},
		{`{"messages":[{"role":"wizard","content":"x"}]}`, "messages[0].role", job.Chat, job.Invalid},
		{`{"messages":[{"role":"user","content":"x"}],"think":[]}`, "", job.Chat, ""},
		{`{"messages":[{"role":"user","content":"x"}],"think":7}`, "think", job.Chat, job.Invalid},
		{`{"messages":7}`, "", job.Chat, job.Invalid},
		{`{"model":"m"}`, "input", job.Embed, job.Unsupported},
	} {
		_, err := dialect.ToOpenAI(c.kind, "", []byte(c.body), "m", llama())
		var e *job.Error
		errors.As(err, &e)
		if got := (e != nil); got != (c.code != "") || got && (e.Code != c.code || e.Field != c.field) {
			t.Errorf("%s: %v, want %s: %s", c.body, err, c.code, c.field)
		}
	}
}

func TestRequestsThatOnlyLoad(t *testing.T) {
	for body, kind := range map[string]job.Kind{`{"model":"m"}`: job.Generate, `{"model":"m","messages":[]}`: job.Chat} {
		if r, err := dialect.ToOpenAI(kind, "", []byte(body), "m", plain()); err != nil || !r.Load {
			t.Errorf("%s: %+v, %v", body, r, err)
		}
	}
}

func TestOpenAIRequestsInOllamasWords(t *testing.T) {
	for _, c := range []struct{ name, path, body, toPath, want, warnings string }{
		{
			"a conversation", "/v1/chat/completions",
			`{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"developer","content":"be brief"},{"role":"user","content":[{"type":"text","text":"what"},{"type":"image_url","image_url":{"url":"data:image/png;base64,` + png + `"}}]}]}`,
			"/api/chat", `{"model":"theirs","stream":true,"options":{"temperature":1,"top_p":1},"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"what","images":["` + png + `"]}]}`, "",
		},
		{
			"options", "/v1/chat/completions",
			`{"messages":[{"role":"user","content":"x"}],"temperature":0,"top_p":0.5,"max_tokens":5,"max_completion_tokens":6,"seed":1,"stop":"x","presence_penalty":1,"frequency_penalty":2,"top_k":3,"user":"u","n":1}`,
			"/api/chat", `{"model":"theirs","stream":false,"messages":[{"role":"user","content":"x"}],"options":{"temperature":0,"top_p":0.5,"num_predict":6,"seed":1,"stop":["x"],"presence_penalty":1,"frequency_penalty":2,"top_k":3}}`, "user has no name there",
		},
		{
			"tools and a result", "/v1/chat/completions",
			`{"tools":[{"type":"function"}],"tool_choice":"auto","parallel_tool_calls":false,"reasoning_effort":"none","logprobs":true,"top_logprobs":2,"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{"type":"object"}}},
				"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},{"role":"tool","tool_call_id":"c","content":"F"}]}`,
			"/api/chat", `{"model":"theirs","stream":false,"think":false,"logprobs":true,"top_logprobs":2,"format":{"type":"object"},"options":{"temperature":1,"top_p":1},"tools":[{"type":"function"}],
				"messages":[{"role":"assistant","content":"","tool_calls":[{"id":"c","function":{"index":0,"name":"f","arguments":{"a":1}}}]},{"role":"tool","tool_name":"f","tool_call_id":"c","content":"F"}]}`,
			"parallel_tool_calls: how many tools are called is the model's choice there",
		},
		{
			"no tool is to be called", "/v1/chat/completions", `{"tools":[{"type":"function"}],"tool_choice":"none","messages":[{"role":"user","content":"x"}]}`,
			"/api/chat", `{"model":"theirs","stream":false,"messages":[{"role":"user","content":"x"}],"options":{"temperature":1,"top_p":1}}`, "",
		},
		{
			"a completion", "/v1/completions", `{"prompt":["x"],"suffix":"y","logprobs":2}`,
			"/api/generate", `{"model":"theirs","stream":false,"prompt":"x","suffix":"y","logprobs":true,"top_logprobs":2,"options":{"temperature":1,"top_p":1}}`, "",
		},
		{"texts to embed", "/v1/embeddings", `{"input":"a","dimensions":3}`, "/api/embed", `{"model":"theirs","input":["a"],"dimensions":3}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := dialect.ToOllama(c.path, []byte(c.body), "theirs")
			if err != nil {
				t.Fatal(err)
			}
			if r.Path != c.toPath || !same(t, r.Body, c.want) {
				t.Errorf("it is %s %s\nwant %s %s", r.Path, r.Body, c.toPath, c.want)
			}
			if got := strings.Join(r.Warnings, "\n"); got != c.warnings {
				t.Errorf("it warns of %q, want %q", got, c.warnings)
			}
		})
	}
}

func TestWhatOllamaHasNoWordsForIsRefused(t *testing.T) {
	for _, c := range []struct{ path, body, field string }{
		{"/v1/chat/completions", `{"messages":[],"n":2}`, "n"},
		{"/v1/chat/completions", `{"messages":[],"logit_bias":{"7":1}}`, "logit_bias"},
		{"/v1/chat/completions", `{"messages":[],"tool_choice":"required"}`, "tool_choice"},
		{"/v1/chat/completions", `{"messages":[],"tool_choice":{"type":"function"}}`, "tool_choice"},
		{"/v1/chat/completions", `{"messages":[],"response_format":{"type":"grammar"}}`, "response_format"},
		{"/v1/chat/completions", `{"messages":[],"reasoning_effort":"extreme"}`, "reasoning_effort"},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]}`, "messages[0].content[0]"},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"input_audio"}]}]}`, "messages[0].content[0]"},
		{"/v1/chat/completions", `{"messages":[{"role":"wizard","content":"x"}]}`, "messages[0].role"},
		{"/v1/completions", `{"prompt":["x","y"]}`, "prompt"},
		{"/v1/completions", `{"prompt":[1,2]}`, "prompt"},
		{"/v1/completions", `{"prompt":"x","echo":true}`, "echo"},
		{"/v1/completions", `{"prompt":"x","best_of":2}`, "best_of"},
		{"/v1/embeddings", `{"input":[1,2]}`, "input"},
		{"/v1/audio/speech", `{}`, ""},
		{"x", `{}`, ""},
	} {
		_, err := dialect.ToOllama(c.path, []byte(c.body), "m")
		var e *job.Error
		if !errors.As(err, &e) || e.Code != job.Unsupported || e.Field != c.field {
			t.Errorf("%s %s: %v, want %s", c.path, c.body, err, c.field)
		}
	}
}

// said is what an answer of Ollama's says.
type said struct {
	text, thinking, reason string
	calls                  []string
	logprobs               []string
	read, written          int
}

// hear reads lines of Ollama's as its own client does.
func hear(t testing.TB, kind job.Kind, lines []byte) (s said) {
	t.Helper()
	for line := range bytes.Lines(lines) {
		var c struct {
			api.ChatResponse
			Response, Thinking string
		}
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		s.text += c.Message.Content + c.Response
		s.thinking += c.Message.Thinking + c.Thinking
		for _, call := range c.Message.ToolCalls {
			s.calls = append(s.calls, call.ID+" "+call.Function.Name+" "+call.Function.Arguments.String())
		}
		for _, l := range c.Logprobs {
			s.logprobs = append(s.logprobs, fmt.Sprintf("%+v", l))
		}
		if (kind == job.Chat) == (c.Message.Role == "") {
			t.Fatalf("not of kind %s: %s", kind, line)
		}
		if c.Done {
			s.reason, s.read, s.written = c.DoneReason, c.PromptEvalCount, c.EvalCount
		}
	}
	return s
}

// anyStream returns lines of Ollama's as they might be.
func anyStream(r *rand.Rand, kind job.Kind) (lines []byte) {
	words := []string{"a", " b", "\n\n", "data: [DONE]", "\"done\":true", "<é🌍>", "", "\u2028", "{}"}
	encode := func(c api.ChatResponse) {
		var v any = c
		if kind == job.Generate {
			v = api.GenerateResponse{Model: c.Model, Response: c.Message.Content, Thinking: c.Message.Thinking, Logprobs: c.Logprobs, Done: c.Done, DoneReason: c.DoneReason, Metrics: c.Metrics}
		}
		line, _ := json.Marshal(v)
		lines = append(append(lines, line...), '\n')
	}
	calls := 0
	for range r.IntN(12) {
		c := api.ChatResponse{Model: "m", Message: api.Message{Role: "assistant"}}
		switch r.IntN(4) {
		case 0:
			c.Message.Thinking = words[r.IntN(len(words))]
		case 1:
			for range 1 + r.IntN(2) {
				args := api.NewToolCallFunctionArguments()
				for range r.IntN(3) {
					args.Set(words[r.IntN(len(words))], words[r.IntN(len(words))])
				}
				c.Message.ToolCalls = append(c.Message.ToolCalls, api.ToolCall{ID: fmt.Sprintf("id%d", calls), Function: api.ToolCallFunction{Name: "f", Arguments: args}})
				calls++
			}
		default:
			c.Message.Content = words[r.IntN(len(words))]
			if kind == job.Chat && r.IntN(2) == 0 {
				c.Logprobs = []api.Logprob{{TokenLogprob: api.TokenLogprob{Token: "t", Logprob: -0.5, Bytes: []int{116}}, TopLogprobs: []api.TokenLogprob{{Token: "u", Logprob: -1}}}}
			}
		}
		encode(c)
	}
	encode(api.ChatResponse{
		Model: "m", Message: api.Message{Role: "assistant", Content: words[r.IntN(len(words))]}, Done: true, DoneReason: []string{"stop", "length"}[r.IntN(2)],
		Metrics: api.Metrics{PromptEvalCount: r.IntN(100), EvalCount: r.IntN(100)},
	})
	return lines
}

// thereAndBack translates a stream of Ollama's into OpenAI's and back.
func thereAndBack(t testing.TB, kind job.Kind, lines []byte) (back []byte) {
	t.Helper()
	shape := dialect.Shape{Kind: kind, Model: "m", Stream: true, Usage: true, Top: 5}
	there, again := dialect.NewChunks(shape, "1", noon()), dialect.NewLines(shape, noon())
	var events dialect.Events
	for line := range bytes.Lines(lines) {
		sse, _, err := there.Line(line)
		if err != nil {
			t.Fatal(err)
		}
		for l := range bytes.Lines(sse) {
			data, ok := events.Line(l)
			if !ok {
				continue
			}
			out, _, err := again.Event(data, noon())
			if err != nil {
				t.Fatal(err)
			}
			back = append(back, out...)
		}
	}
	if !again.Ended() {
		t.Fatal("the stream has no end")
	}
	rest, last, _, err := again.End(noon())
	if err != nil {
		t.Fatal(err)
	}
	return append(append(back, rest...), last...)
}

func TestAnyStreamComesBackAsItWas(t *testing.T) {
	for seed := range uint64(500) {
		for _, kind := range []job.Kind{job.Chat, job.Generate} {
			lines := anyStream(rand.New(rand.NewPCG(seed, 1)), kind)
			want, got := hear(t, kind, lines), hear(t, kind, thereAndBack(t, kind, lines))
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d:\n%s\ncame back as\n%+v, want\n%+v", seed, lines, got, want)
			}
		}
	}
}

func TestCallsComeInParts(t *testing.T) {
	l := dialect.NewLines(dialect.Shape{Kind: job.Chat}, noon())
	for _, data := range []string{
		`{"choices":[{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]}}]}`,
		`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\""}}]}}]}`,
		`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}}]}`,
		`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"b","function":{"name":"g"}}]},"finish_reason":"tool_calls"}]}`,
	} {
		if line, _, err := l.Event([]byte(data), noon()); line != nil || err != nil {
			t.Errorf("a part says %s, %v", line, err)
		}
	}
	if l.Ended() || !l.Complete() {
		t.Error("the answer is not complete with its reason")
	}
	rest, last, _, err := l.End(noon())
	if s := hear(t, job.Chat, slices.Concat(rest, last)); err != nil || fmt.Sprint(s.calls) != `[a f {"x":1} b g {}]` || s.reason != "stop" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestTimesAreTheServersOrAsSeenFromHere(t *testing.T) {
	told := dialect.NewLines(dialect.Shape{Kind: job.Chat}, noon())
	seen := dialect.NewLines(dialect.Shape{Kind: job.Chat}, noon())
	for _, l := range []*dialect.Lines{told, seen} {
		if _, _, err := l.Event([]byte(`{"choices":[{"index":0,"delta":{"content":"a"}}]}`), noon().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := told.Event([]byte(`{"choices":[],"timings":{"prompt_n":3,"cache_n":4,"prompt_ms":30,"predicted_n":2,"predicted_ms":20}}`), noon())
	if err != nil {
		t.Fatal(err)
	}
	_, _, u, _ := told.End(noon().Add(3 * time.Second))
	if u != (job.Usage{PromptTokens: 7, Cached: 4, Tokens: 2, Prefill: 30 * time.Millisecond, Decode: 20 * time.Millisecond}) {
		t.Errorf("told: %+v", u)
	}
	_, last, u, _ := seen.End(noon().Add(3 * time.Second))
	if u != (job.Usage{Prefill: time.Second, Decode: 2 * time.Second}) || !strings.Contains(string(last), `"total_duration":3000000000`) {
		t.Errorf("seen: %+v, %s", u, last)
	}
}

// TestWhatWasReadBeforeIsInResponses translates what llama-server b11669 of Debian
// said of a prompt that it had read just before.
func TestWhatWasReadBeforeIsInResponses(t *testing.T) {
	const body = `{"choices":[{"finish_reason":"length","index":0,"message":{"role":"assistant","content":" His child lifts"}}],` +
		`"object":"chat.completion","usage":{"completion_tokens":3,"prompt_tokens":54,"total_tokens":57,"prompt_tokens_details":{"cached_tokens":53}},` +
		`"timings":{"cache_n":53,"prompt_n":1,"prompt_ms":0.348,"predicted_n":3,"predicted_ms":0.341}}`
	r, err := dialect.FromResponses([]byte(`{"model":"tiny","input":"hi"}`), "tiny", "1", llama())
	if err != nil {
		t.Fatal(err)
	}
	answer, _, u, err := dialect.Whole([]byte(body), r.Shape, noon(), noon())
	if err != nil || u.Cached != 53 || !strings.Contains(string(answer), `"input_tokens_details":{"cached_tokens":53}`) {
		t.Errorf("%v, %+v, %s", err, u, answer)
	}
}

func TestVectors(t *testing.T) {
	const body = `{"data":[{"index":1,"embedding":"AACAPwAAAAA="},{"index":0,"embedding":[3,4]}],"usage":{"prompt_tokens":5}}`
	answer, vectors, u, err := dialect.Vectors([]byte(body), dialect.Shape{Model: "m"}, noon(), noon())
	if err != nil || fmt.Sprint(vectors) != "[[0.6 0.8] [1 0]]" || u.PromptTokens != 5 || !same(t, answer, `{"model":"m","embeddings":[[0.6,0.8],[1,0]],"prompt_eval_count":5}`) {
		t.Errorf("%s, %v, %+v, %v", answer, vectors, u, err)
	}
	list, err := dialect.VectorList(answer, dialect.Shape{Model: "m", Base64: true})
	if err != nil || !same(t, list, `{"object":"list","model":"m","usage":{"prompt_tokens":5,"total_tokens":5},"data":[{"object":"embedding","index":0,"embedding":"mpkZP83MTD8="},{"object":"embedding","index":1,"embedding":"AACAPwAAAAA="}]}`) {
		t.Errorf("%s, %v", list, err)
	}
	for _, bad := range []string{`{"data":[{"index":7,"embedding":[1]}]}`, `{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}`, `{"data":[{"index":0,"embedding":"AAA="}]}`, `{"data":[{"index":0}]}`, `{"error":{"message":"no"}}`} {
		if _, _, _, err := dialect.Vectors([]byte(bad), dialect.Shape{}, noon(), noon()); err == nil {
			t.Errorf("%s passes for vectors", bad)
		}
	}
}

func TestErrorsOfManyServers(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":{"message":"boom","type":"x"}}`:        "boom",
		`{"error":"boom"}`:                               "boom",
		`{"object":"error","message":"boom","code":400}`: "boom",
		`{"detail":"boom"}`:                              "boom",
		`{"detail":[{"loc":["body"],"msg":"boom"}]}`:     `[{"loc":["body"],"msg":"boom"}]`,
		`boom`: "",
		string(dialect.OpenAIError(400, "boom", "model")): "boom",
	} {
		if got := dialect.OpenAIMessage([]byte(body)); got != want {
			t.Errorf("%s says %q, want %q", body, got, want)
		}
	}
}

func TestEvents(t *testing.T) {
	for _, c := range []struct{ stream, want string }{
		{"data: a\n\ndata:b\n\n", "a|b"},
		{"data: a\r\n\r\n: comment\r\nevent: x\r\nid: 1\r\ndata: b\r\n\r\n", "a|b"},
		{"data: a\ndata: b\n\n", "a\nb"},
		{"\n\n\n", ""},
		{"error: {\"message\":\"x\"}\n\n", `{"error":{"message":"x"}}`},
		{"data: a", "a"},
	} {
		var e dialect.Events
		var got []string
		for line := range strings.Lines(c.stream) {
			if data, ok := e.Line([]byte(line)); ok {
				got = append(got, string(data))
			}
		}
		if data, ok := e.End(); ok {
			got = append(got, string(data))
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("%q is %q, want %q", c.stream, s, c.want)
		}
	}
}

// FuzzEvents gives whatever a server might send, and holds that what comes of it
// is lines of JSON.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n"))
	f.Add([]byte("data: {\"choices\":[{\"text\":\"a\",\"logprobs\":{\"tokens\":[\"a\"],\"token_logprobs\":[-1],\"top_logprobs\":[{\"b\":-2}]},\"finish_reason\":\"length\"}]}\n\n"))
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":-1,\"function\":{\"arguments\":{}}}]}}],\"timings\":{\"prompt_ms\":1e300}}\n\n"))
	f.Add([]byte("error: {\"message\":\"x\"}\r\n\r\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		for _, kind := range []job.Kind{job.Chat, job.Generate} {
			l := dialect.NewLines(dialect.Shape{Kind: kind, Model: "m"}, noon())
			var e dialect.Events
			var all []byte
			for line := range bytes.Lines(stream) {
				data, ok := e.Line(line)
				if !ok {
					continue
				}
				out, _, err := l.Event(data, noon())
				if err != nil {
					return
				}
				all = append(all, out...)
			}
			rest, last, _, err := l.End(noon())
			if err == nil {
				hear(t, kind, slices.Concat(all, rest, last))
			}
		}
	})
}

// FuzzRequests gives whatever a client might send, and holds that what comes of
// it is a JSON object.
func FuzzRequests(f *testing.F) {
	f.Add([]byte(`{"model":"m","messages":[{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{}}}]},{"role":"tool","content":"x"}]}`))
	f.Add([]byte(`{"prompt":"x","raw":true,"options":{"num_predict":1e99,"stop":7},"think":"high","logprobs":true}`))
	f.Add([]byte(`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":"data:;base64,AA"}]}],"tools":null,"logprobs":3,"n":1}`))
	f.Add([]byte(`{"input":[["a"]],"Messages":[null]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if !json.Valid(body) {
			return
		}
		var object map[string]any
		for _, kind := range []job.Kind{job.Chat, job.Generate, job.Embed} {
			if r, err := dialect.ToOpenAI(kind, "/api/embeddings", body, "m", llama()); err == nil && !r.Load && json.Unmarshal(r.Body, &object) != nil {
				t.Errorf("%s became %s", body, r.Body)
			}
		}
		for _, path := range []string{"/v1/chat/completions", "/v1/completions", "/v1/embeddings"} {
			if r, err := dialect.ToOllama(path, body, "m"); err == nil && json.Unmarshal(r.Body, &object) != nil {
				t.Errorf("%s became %s", body, r.Body)
			}
		}
	})
}

// FuzzWhole gives whatever a server might answer.
func FuzzWhole(f *testing.F) {
	f.Add([]byte(`{"choices":[{"index":0,"message":{"content":"a","tool_calls":[{"id":"x","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1}}`))
	f.Add([]byte(`{"data":[{"index":0,"embedding":"AACAPw=="}]}`))
	f.Add([]byte(`{"message":{"content":"a","tool_calls":[{"function":{"arguments":null}}]},"done":true}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s := dialect.Shape{Kind: job.Chat, Model: "m", Old: len(body)%2 == 0}
		if answer, _, _, err := dialect.Whole(body, s, noon(), noon()); err == nil {
			hear(t, job.Chat, answer)
		}
		if answer, _, _, err := dialect.Vectors(body, s, noon(), noon()); err == nil && !json.Valid(answer) {
			t.Errorf("%s became %s", body, answer)
		}
		if answer, err := dialect.WholeChunk(body, s, "1", noon()); err == nil && !json.Valid(answer) {
			t.Errorf("%s became %s", body, answer)
		}
		if _, _, err := dialect.NewChunks(s, "1", noon()).Line(body); err == nil && !json.Valid(body) {
			t.Errorf("%s passes for a line", body)
		}
	})
}
