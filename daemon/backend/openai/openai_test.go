package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// serve returns a Server in front of a scripted server.
func serve(t *testing.T, kind Kind, h http.Handler) *Server {
	t.Helper()
	ts := httptest.NewServer(h)
	t.Cleanup(ts.Close)
	u, err := url.Parse(ts.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := New(u, kind)
	t.Cleanup(s.Close)
	return s
}

// canned is a server that answers each path with the same text, as servers of a
// kind do. What it was asked for jobs is kept.
type canned struct {
	answers map[string]string
	status  map[string]int
	job     http.HandlerFunc

	path string
	body []byte
}

func (c *canned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		c.path = r.URL.Path
		c.body, _ = io.ReadAll(r.Body)
		c.job(w, r)
		return
	}
	body, ok := c.answers[r.URL.Path]
	status := c.status[r.URL.Path]
	switch {
	case status != 0:
		w.WriteHeader(status)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	}
	_, _ = io.WriteString(w, body)
}

// Listings as servers of each kind give them, cut down to what is read.
const (
	llamaModels  = `{"object":"list","data":[{"id":"qwen3","object":"model","owned_by":"llamacpp","meta":{"n_ctx":4096,"n_ctx_train":40960,"size":500}}]}`
	llamaProps   = `{"total_slots":4,"build_info":"b6000-abc","default_generation_settings":{"n_ctx":2048},"is_sleeping":false}`
	routerModels = `{"data":[{"id":"a","owned_by":"llamacpp","status":{"value":"loaded"}},{"id":"b","owned_by":"llamacpp","status":{"value":"unloaded"}}]}`
	vllmModels   = `{"object":"list","data":[{"id":"Qwen/Qwen3-8B","object":"model","owned_by":"vllm","max_model_len":8192}]}`
	ovmsModels   = `{"object":"list","data":[{"id":"Qwen3-int4-ov","object":"model","created":1,"owned_by":"OVMS"}]}`
	lemonModels  = `{"data":[{"id":"Llama-FLM","owned_by":"lemonade","downloaded":true},{"id":"Other","owned_by":"lemonade","downloaded":true},{"id":"Far","downloaded":false}]}`
	lemonHealth  = `{"status":"ok","version":"11.8.1","all_models_loaded":[{"model_name":"Llama-FLM","device":"npu","recipe_options":{"ctx_size":4096}}]}`
)

func llamaCpp(h http.HandlerFunc) *canned {
	return &canned{answers: map[string]string{"/v1/models": llamaModels, "/props": llamaProps, "/health": `{"status":"ok"}`}, job: h}
}

func TestProbeFindsOutWhatServerItIs(t *testing.T) {
	type model struct {
		name     string
		resident bool
		context  int
	}
	for _, c := range []struct {
		name    string
		kind    Kind
		answers map[string]string
		server  string
		slots   int
		device  power.DeviceClass
		models  []model
		lacks   string
		prefix  string
	}{
		{"llama-server", "", map[string]string{"/v1/models": llamaModels, "/props": llamaProps}, "llama-server b6000-abc", 4, "", []model{{"qwen3", true, 2048}}, "keep_alive pull unload", "/v1"},
		{"llama-server with its props shut", "", map[string]string{"/v1/models": llamaModels}, "llama-server", 0, "", []model{{"qwen3", true, 4096}}, "keep_alive pull unload", "/v1"},
		{"llama-server with several models", "", map[string]string{"/v1/models": routerModels, "/props": `{"total_slots":9}`}, "llama-server", 0, "", []model{{"a", true, 0}, {"b", false, 0}}, "keep_alive pull", "/v1"},
		{"vLLM", "", map[string]string{"/v1/models": vllmModels, "/version": `{"version":"0.11.0"}`}, "vllm 0.11.0", 0, "", []model{{"Qwen/Qwen3-8B", true, 8192}}, "keep_alive pull unload", "/v1"},
		{"OpenVINO Model Server, which once had another path", "", map[string]string{"/v3/models": ovmsModels}, "ovms", 0, "", []model{{"Qwen3-int4-ov", true, 0}}, "keep_alive pull unload", "/v3"},
		{"Lemonade", "", map[string]string{"/v1/models": lemonModels, "/v1/health": lemonHealth}, "lemonade 11.8.1", 0, power.NPU, []model{{"Llama-FLM", true, 4096}, {"Other", false, 0}}, "keep_alive pull", "/v1"},
		{"some other", "", map[string]string{"/v1/models": `{"data":[{"id":"m","owned_by":"somebody"}]}`}, "openai", 0, "", []model{{"m", true, 0}}, "keep_alive pull unload", "/v1"},
		{"one that is said to be", VLLM, map[string]string{"/v1/models": `{"data":[{"id":"m"}]}`}, "vllm", 0, "", []model{{"m", true, 0}}, "keep_alive pull unload", "/v1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, c.kind, &canned{answers: c.answers})
			facts, err := s.Probe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var models []model
			for _, m := range facts.Models {
				models = append(models, model{m.Name, m.Resident, m.ContextLength})
				if m.VRAM != -1 || len(m.Digest) != 64 {
					t.Errorf("model is %+v", m)
				}
			}
			if facts.Server != c.server || facts.Slots != c.slots || facts.Device != c.device || !reflect.DeepEqual(models, c.models) || strings.Join(facts.Lacks, " ") != c.lacks {
				t.Errorf("got %+v", facts)
			}
			if p := s.known.Load().prefix; p != c.prefix {
				t.Errorf("the API is at %s", p)
			}
		})
	}
}

func TestProbeOfSomethingElse(t *testing.T) {
	for name, c := range map[string]*canned{
		"nothing there":   {},
		"a web page":      {answers: map[string]string{"/v1/models": "<html>"}},
		"a loading model": {answers: map[string]string{"/v1/models": llamaModels}, status: map[string]int{"/props": 503}},
	} {
		if facts, err := serve(t, "", c).Probe(t.Context()); err == nil {
			t.Errorf("%s passes for a server: %+v", name, facts)
		}
	}
	joulemux := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(endpoint.InstanceHeader, "abc")
		_, _ = io.WriteString(w, `{"data":[]}`)
	})
	if facts, err := serve(t, "", joulemux).Probe(t.Context()); err != nil || facts.Instance != "abc" {
		t.Errorf("got %+v, %v", facts, err)
	}
}

func TestDigestsAreLikeNoOtherServers(t *testing.T) {
	a, _ := serve(t, "", llamaCpp(nil)).Probe(t.Context())
	b, _ := serve(t, "", llamaCpp(nil)).Probe(t.Context())
	if a.Models[0].Digest == b.Models[0].Digest {
		t.Error("two servers' models are taken for the same")
	}
}

func TestPathBeforeTheAPIIsTheUsers(t *testing.T) {
	ts := httptest.NewServer(&canned{answers: map[string]string{"/api/v1/models": lemonModels, "/api/v1/health": lemonHealth}})
	defer ts.Close()
	u, _ := url.Parse(ts.URL + "/api/v1")
	s := New(u, "")
	defer s.Close()
	if facts, err := s.Probe(t.Context()); err != nil || facts.Server != "lemonade 11.8.1" {
		t.Errorf("got %+v, %v", facts, err)
	}
}

func TestAnyAnswerIsASignOfLife(t *testing.T) {
	for name, c := range map[string]*canned{
		"a listing":         {answers: map[string]string{"/v1/models": llamaModels}},
		"nothing (vLLM's)":  {answers: map[string]string{"/v1/models": ""}},
		"still loading":     {status: map[string]int{"/v1/models": 503}},
		"not without a key": {status: map[string]int{"/v1/models": 401}},
	} {
		if err := serve(t, "", c).Ping(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := New(&url.URL{Scheme: "unix", Path: filepath.Join(t.TempDir(), "nobody")}, "").Ping(t.Context()); err == nil {
		t.Error("nobody gives a sign of life")
	}
}

func TestUnixEndpoint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: llamaCpp(nil)}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	if facts, err := New(&url.URL{Scheme: "unix", Path: path}, "").Probe(t.Context()); err != nil || facts.Slots != 4 {
		t.Errorf("got %+v, %v", facts, err)
	}
}

// outcome is everything that came of a job.
type outcome struct {
	head  job.Head
	begun int
	raw   string
	text  string
	last  job.Chunk
	err   error
}

func stream(t *testing.T, s *Server, j job.Job) (o outcome) {
	t.Helper()
	o.err = s.Stream(t.Context(), j,
		func(h job.Head) error { o.head, o.begun = h, o.begun+1; return nil },
		func(c job.Chunk) error {
			if o.last.Last {
				t.Error("a chunk follows the last")
			}
			o.raw, o.text = o.raw+string(c.Raw), o.text+c.Text
			c.Raw = bytes.Clone(c.Raw)
			o.last = c
			return nil
		})
	if o.last.Last != (o.err == nil) {
		t.Errorf("last chunk seen: %v, and yet the error is %v", o.last.Last, o.err)
	}
	return o
}

// chat is a job of Ollama's dialect.
func chat(body string) job.Job {
	return job.Job{
		Kind: job.Chat, Model: "qwen3:latest", Stream: !strings.Contains(body, `"stream":false`),
		Original: &job.Original{Dialect: job.Ollama, Path: "/api/chat", Body: []byte(body)},
	}
}

// openAI is a job of OpenAI's.
func openAI(body string) job.Job {
	return job.Job{
		Kind: job.Chat, Model: "qwen3", Stream: strings.Contains(body, `"stream":true`),
		Original: &job.Original{Dialect: job.OpenAI, Path: "/v1/chat/completions", Body: []byte(body)},
	}
}

const hi = `{"model":"qwen3:latest","messages":[{"role":"user","content":"hi"}]}`

// A stream as llama-server gives it.
const (
	firstEvent = `data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"id":"x","model":"qwen3"}` + "\n\n"
	nextEvent  = `data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Hel"}}]}` + "\n\n"
	moreEvent  = `data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"lo"}}]}` + "\n\n"
	reason     = `data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}]}` + "\n\n"
	usage      = `data: {"choices":[],"usage":{"completion_tokens":3,"prompt_tokens":5,"total_tokens":8},"timings":{"prompt_n":5,"prompt_ms":50,"predicted_n":3,"predicted_ms":30}}` + "\n\n"
	done       = "data: [DONE]\n\n"
)

// sends answers with events, each sent by itself.
func sends(events ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for _, e := range events {
			_, _ = io.WriteString(w, e)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestStreamBecomesOllamas(t *testing.T) {
	server := llamaCpp(sends(firstEvent, nextEvent, moreEvent, reason, usage, done))
	o := stream(t, serve(t, "", server), chat(hi))
	if o.err != nil || o.begun != 1 || o.text != "Hello" || o.head.ContentType != "application/x-ndjson" || o.head.Length != -1 {
		t.Errorf("got %+v", o)
	}
	if want := (job.Usage{PromptTokens: 5, Tokens: 3, Prefill: 50 * time.Millisecond, Decode: 30 * time.Millisecond}); o.last.Usage != want {
		t.Errorf("usage is %+v", o.last.Usage)
	}
	if n := strings.Count(o.raw, "\n"); n != 3 || !strings.Contains(string(o.last.Raw), `"model":"qwen3:latest"`) || !strings.Contains(string(o.last.Raw), `"done":true,"done_reason":"stop"`) {
		t.Errorf("%d lines: %s", n, o.raw)
	}
	var sent struct{ Model string }
	if err := json.Unmarshal(server.body, &sent); err != nil || sent.Model != "qwen3" || server.path != "/v1/chat/completions" {
		t.Errorf("the server got %s %s", server.path, server.body)
	}
}

func TestUndividedAnswerBecomesOllamas(t *testing.T) {
	s := serve(t, "", llamaCpp(answers(200, `{"choices":[{"index":0,"finish_reason":"length","message":{"role":"assistant","content":"Hello","reasoning_content":"hm"}}],"usage":{"prompt_tokens":5,"completion_tokens":3}}`)))
	o := stream(t, s, chat(`{"model":"qwen3","stream":false,"keep_alive":"5m","messages":[{"role":"user","content":"hi"}]}`))
	if o.err != nil || o.text != "Hello" || o.head.Length != int64(len(o.raw)) || o.last.Usage.Tokens != 3 ||
		!strings.Contains(o.raw, `"message":{"role":"assistant","content":"Hello","thinking":"hm"}`) || !strings.Contains(o.raw, `"done_reason":"length"`) {
		t.Errorf("got %+v", o)
	}
}

func TestUndividedAnswerToWhoWantedAStreamIsOne(t *testing.T) {
	s := serve(t, "", llamaCpp(answers(200, `{"choices":[{"index":0,"finish_reason":"stop","message":{"content":"Hello"}}]}`)))
	if o := stream(t, s, chat(hi)); o.err != nil || o.head.ContentType != "application/x-ndjson" || strings.Count(o.raw, "\n") != 1 || o.text != "Hello" {
		t.Errorf("got %+v", o)
	}
}

func TestJobsWithoutADialect(t *testing.T) {
	server := llamaCpp(sends(nextEvent, reason, done))
	j := job.Job{Kind: job.Chat, Model: "qwen3", Stream: true, MaxTokens: 9, Content: job.Content{System: "be brief", Messages: []job.Message{{Role: "user", Content: "hi"}}}}
	if o := stream(t, serve(t, "", server), j); o.err != nil || o.text != "Hel" {
		t.Errorf("got %+v", o)
	}
	const want = `{"max_tokens":9,"messages":[{"content":"be brief","role":"system"},{"content":"hi","role":"user"}],"model":"qwen3","stream":true,"stream_options":{"include_usage":true}}`
	if string(server.body) != want {
		t.Errorf("the server got %s", server.body)
	}
	s := serve(t, "", llamaCpp(answers(200, `{"data":[{"index":0,"embedding":[0,1]}],"usage":{"prompt_tokens":4}}`)))
	o := stream(t, s, job.Job{Kind: job.Embed, Model: "qwen3", Content: job.Content{Input: []string{"a"}}})
	if o.err != nil || fmt.Sprint(o.last.Vectors) != "[[0 1]]" || o.last.Usage.PromptTokens != 4 {
		t.Errorf("got %+v", o)
	}
}

func TestWhatCannotBeSaidIsTold(t *testing.T) {
	s := serve(t, "", llamaCpp(sends(reason, done)))
	j := chat(`{"model":"qwen3","messages":[{"role":"user","content":"hi"}],"options":{"num_gpu":1},"keep_alive":60}`)
	minute := time.Minute
	j.KeepAsked = &minute
	if o := stream(t, s, j); o.head.Warning != "options.num_gpu has no name there; keep_alive: for how long a model stays is the server's own choice" {
		t.Errorf("it warns of %q", o.head.Warning)
	}
	j = job.Job{Kind: job.Generate, Model: "qwen3", Original: &job.Original{Dialect: job.Ollama, Path: "/api/generate", Body: []byte(`{"prompt":"x","template":"y"}`)}}
	if o := stream(t, s, j); !errors.Is(o.err, job.Unsupported) || o.begun != 0 {
		t.Errorf("got %+v", o)
	}
}

func TestWhoOnlyLoadsIsAnsweredWhereTheModelIsInMemory(t *testing.T) {
	s := serve(t, "", &canned{answers: map[string]string{"/v1/models": routerModels}})
	j := chat(`{"model":"a","messages":[]}`)
	j.Model = "a"
	if o := stream(t, s, j); o.err != nil || !strings.Contains(o.raw, `"done":true,"done_reason":"load"`) {
		t.Errorf("got %+v", o)
	}
	j.Model = "b"
	if o := stream(t, s, j); !errors.Is(o.err, job.Unsupported) {
		t.Errorf("got %+v", o)
	}
}

func TestStreamOfItsOwnDialectPassesEveryByte(t *testing.T) {
	whole := firstEvent + ": a comment\n\n" + nextEvent + reason
	for _, c := range []struct{ body, sent, want string }{
		{`{"model":"qwen3","stream":true,"x":1}`, `{"stream_options":{"include_usage":true},"model":"qwen3","stream":true,"x":1}`, whole + done},
		{`{"model":"qwen3","stream":true,"stream_options":{"include_usage":true}}`, `{"model":"qwen3","stream":true,"stream_options":{"include_usage":true}}`, whole + usage + done},
		{`{"model":"qwen3","stream":true,"stream_options":{"y":2}}`, `{"model":"qwen3","stream":true,"stream_options":{"include_usage":true,"y":2}}`, whole + done},
	} {
		server := llamaCpp(sends(firstEvent, ": a comment\n\n", nextEvent, reason, usage, done))
		o := stream(t, serve(t, "", server), openAI(c.body))
		if o.err != nil || o.raw != c.want || !strings.HasSuffix(string(o.last.Raw), done) || o.last.Usage.Tokens != 3 {
			t.Errorf("%s: got %+v", c.body, o)
		}
		if string(server.body) != c.sent {
			t.Errorf("the server got %s, want %s", server.body, c.sent)
		}
	}
}

func TestALimitIsToldByTheNameThatTheServerKnows(t *testing.T) {
	const newer, older = `{"model":"m", "max_completion_tokens": 5 }`, `{"model":"m", "max_tokens":5}`
	const both = `{"max_tokens":5,"model":"m", "max_completion_tokens": 5 }`
	for _, c := range []struct {
		kind       Kind
		body, sent string
	}{
		{LlamaServer, newer, both},
		{Lemonade, newer, both},
		{Plain, newer, both},
		{VLLM, newer, newer},
		{OVMS, newer, newer},
		{LlamaServer, older, older},
		{VLLM, older, older},
		{Plain, `{"model":"m","x":1.0}`, `{"model":"m","x":1.0}`},
	} {
		server := &canned{answers: map[string]string{"/v1/models": `{"data":[{"id":"m"}]}`}, job: answers(200, `{"choices":[]}`)}
		j := openAI(c.body)
		j.Model = "m"
		if o := stream(t, serve(t, c.kind, server), j); o.err != nil || string(server.body) != c.sent {
			t.Errorf("%s got %s for %s, want %s: %v", c.kind, server.body, c.body, c.sent, o.err)
		}
	}
}

func TestWhoRefusesALimitByBothNamesIsToldItAsItCame(t *testing.T) {
	const newer = `{"model":"m","max_completion_tokens":5}`
	refusing := true // whatever is asked by the newer name, too
	var asked []string
	server := &canned{answers: map[string]string{"/v1/models": `{"data":[{"id":"m"}]}`}}
	server.job = func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, string(server.body))
		switch {
		case strings.Contains(string(server.body), `"max_tokens"`):
			answers(400, `{"error":{"message":"not both","param":"max_tokens"}}`)(w, r)
		case refusing:
			answers(400, `{"error":{"message":"no such thing","param":"messages"}}`)(w, r)
		default:
			answers(200, `{"choices":[]}`)(w, r)
		}
	}
	s := serve(t, "", server)
	j := openAI(newer)
	j.Model = "m"
	if o := stream(t, s, j); o.err != nil || o.head.Status != 400 || !strings.Contains(o.raw, "no such thing") {
		t.Errorf("the client is told %+v", o)
	}
	refusing = false
	for range 2 {
		if o := stream(t, s, j); o.err != nil || o.head.Status != 200 {
			t.Errorf("got %+v", o)
		}
	}
	server.answers = llamaCpp(nil).answers // comes in its place
	if _, err := s.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = stream(t, s, j)
	both := `{"max_tokens":5,"model":"m","max_completion_tokens":5}`
	if want := []string{both, newer, both, newer, newer, both}; len(asked) < len(want) || !slices.Equal(asked[:len(want)], want) {
		t.Errorf("the server got %q", asked)
	}
}

func TestUndividedAnswerOfItsOwnDialectPassesEveryByte(t *testing.T) {
	body := `{"choices": [{"message":{"content":"` + strings.Repeat("x", 3*16<<10) + `"}}],"usage":{"completion_tokens":3}}`
	o := stream(t, serve(t, "", llamaCpp(answers(200, body))), openAI(`{"model":"qwen3"}`))
	if o.err != nil || o.raw != body || o.last.Usage.Tokens != 3 {
		t.Errorf("%d bytes, %+v", len(o.raw), o.last.Usage)
	}
}

func TestRefusals(t *testing.T) {
	native := job.Job{Kind: job.Chat, Model: "qwen3", Stream: true, Content: job.Content{Messages: []job.Message{{Role: "user", Content: "x"}}}}
	for _, c := range []struct {
		status int
		job    job.Job
		code   job.Code
		body   string
	}{
		{500, chat(hi), job.BackendFailed, `{"error":"so it is"}`},
		{503, chat(hi), job.Busy, `{"error":"so it is"}`},
		{429, openAI(`{}`), job.Busy, `{"error":{"message":"so it is"}}`},
		{404, chat(hi), job.ModelNotFound, `{"error":"so it is"}`},
		{501, openAI(`{}`), job.Unsupported, `{"error":{"message":"so it is"}}`}, // embeddings, of one that has none
		{400, native, job.Invalid, `{"error":"so it is"}`},
	} {
		o := stream(t, serve(t, "", llamaCpp(answers(c.status, `{"error":{"message":"so it is"}}`))), c.job)
		var e *job.Error
		if !errors.As(o.err, &e) || e.Code != c.code || e.Detail != "so it is" || strings.TrimSpace(string(e.Answer.Body)) != c.body || o.begun != 0 {
			t.Errorf("%d: %+v", c.status, o)
		}
	}
}

func TestRefusalOfAMalformedRequestIsAnAnswer(t *testing.T) {
	const says = `{"error":{"message":"too long"}}`
	if o := stream(t, serve(t, "", llamaCpp(answers(400, says))), chat(hi)); o.err != nil || o.head.Status != 400 || o.raw != `{"error":"too long"}`+"\n" {
		t.Errorf("got %+v", o)
	}
	if o := stream(t, serve(t, "", llamaCpp(answers(400, says))), openAI(`{"stream":true}`)); o.err != nil || o.head.Status != 400 || o.raw != says {
		t.Errorf("got %+v", o)
	}
}

func TestEarlyEnds(t *testing.T) {
	const boom = `data: {"error":{"code":500,"message":"boom"}}` + "\n\n"
	dies := func(w http.ResponseWriter, _ *http.Request) {
		sends(nextEvent)(w, nil)
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
	}
	for _, c := range []struct {
		name  string
		serve http.HandlerFunc
		begun bool
		told  bool // in its own dialect, where bytes pass as they are
		whole bool
	}{
		{"no end", sends(nextEvent), true, false, false},
		{"a reason is an end", sends(nextEvent, reason), true, false, true},
		{"no blank line behind the end", sends(nextEvent, reason, "data: [DONE]"), true, false, true},
		{"nothing at all", sends(), false, false, false},
		{"an error in place of a token", sends(boom), false, false, false},
		{"an error after a token", sends(nextEvent, boom), true, true, false},
		{"death after a token", dies, true, false, false},
		{"no JSON", sends(nextEvent, "data: {\n\n"), true, false, false},
	} {
		for _, j := range []job.Job{chat(hi), openAI(`{"stream":true}`)} {
			if c.name == "no JSON" && j.Original.Dialect == job.OpenAI {
				continue // its bytes are the client's to judge
			}
			o := stream(t, serve(t, "", llamaCpp(c.serve)), j)
			var e *job.Error
			told := c.told && j.Original.Dialect == job.OpenAI
			if errors.As(o.err, &e) == c.whole || e != nil && (e.Code != job.BackendFailed || e.Told != told) || (o.begun == 1) != c.begun {
				t.Errorf("%s, %s: %+v", c.name, j.Original.Dialect, o)
			}
		}
	}
}

func TestErrorsOfTheClientStayTheirs(t *testing.T) {
	gone := errors.New("gone")
	ok := func(job.Chunk) error { return nil }
	for _, j := range []job.Job{chat(hi), openAI(`{"stream":true}`)} {
		s := serve(t, "", llamaCpp(sends(nextEvent, reason, done)))
		if err := s.Stream(t.Context(), j, func(job.Head) error { return gone }, ok); !errors.Is(err, gone) {
			t.Errorf("begin's error became %v", err)
		}
		if err := s.Stream(t.Context(), j, func(job.Head) error { return nil }, func(job.Chunk) error { return gone }); !errors.Is(err, gone) {
			t.Errorf("emit's error became %v", err)
		}
	}
}

func TestCancelReachesTheServer(t *testing.T) {
	arrived, gone := make(chan struct{}), make(chan struct{})
	s := serve(t, "", llamaCpp(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(gone)
	}))
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the client left")
	go func() { <-arrived; cancel(why) }()
	if err := s.Stream(ctx, chat(hi), nil, nil); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	<-gone
}

func TestOllamasQuestionsAreAnsweredForTheServer(t *testing.T) {
	s := serve(t, "", llamaCpp(answers(200, `{}`)))
	for _, c := range []struct {
		method, path, body string
		status             int
		has                string
	}{
		{"GET", "/api/version", "", 200, `{"version":"` + dialect.OllamaVersion + `"}`},
		{"GET", "/api/tags", "", 200, `"name":"qwen3","model":"qwen3"`},
		{"GET", "/api/ps", "", 200, `"context_length":2048`},
		{"POST", "/api/show", `{"name":"qwen3"}`, 200, `"unknown.context_length":2048`},
		{"POST", "/api/show", `{"model":"other"}`, 404, `{"error":"model 'other' not found"}`},
		{"POST", "/api/generate", `{"model":"qwen3","keep_alive":0}`, 501, `llama-server b6000-abc cannot be told`},
		{"POST", "/api/pull", `{"model":"x"}`, 501, `does nothing like /api/pull`},
		{"GET", "/v1/models", "", 200, `"owned_by":"llamacpp"`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.has) {
			t.Errorf("%s %s: %d %s", c.method, c.path, resp.StatusCode, body)
		}
	}
}

func TestUnload(t *testing.T) {
	if err := serve(t, "", llamaCpp(nil)).Unload(t.Context(), "qwen3"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	for path, c := range map[string]struct {
		answers    map[string]string
		model, got string
	}{
		"/models/unload": {map[string]string{"/v1/models": routerModels}, "a", `{"model":"a"}`},
		"/v1/unload":     {map[string]string{"/v1/models": lemonModels, "/v1/health": lemonHealth}, "llama-flm", `{"model_name":"Llama-FLM"}`},
	} {
		server := &canned{answers: c.answers, job: answers(200, `{"success":true}`)}
		if err := serve(t, "", server).Unload(t.Context(), c.model); err != nil || server.path != path || strings.TrimSpace(string(server.body)) != c.got {
			t.Errorf("%v, the server got %s %s", err, server.path, server.body)
		}
	}
}

// TestUnloadOfWhatIsNotThere asks what refuses that as llama-server b11669 of Debian
// does.
func TestUnloadOfWhatIsNotThere(t *testing.T) {
	router := &canned{
		answers: map[string]string{"/v1/models": routerModels},
		job:     answers(400, `{"error":{"code":400,"message":"model is not running","type":"invalid_request_error"}}`),
	}
	s := serve(t, "", router)
	if err := s.Unload(t.Context(), "b"); err != nil {
		t.Errorf("of a model that is not loaded: %v", err)
	}
	for _, model := range []string{"a", "c"} {
		if err := s.Unload(t.Context(), model); !errors.Is(err, job.Invalid) {
			t.Errorf("of %s: %v", model, err)
		}
	}
}

func TestMessagesAndResponsesAreAskedForAsChats(t *testing.T) {
	for _, c := range []struct {
		of                  job.Original
		begins, ends, whole string
	}{
		{
			job.Original{Dialect: job.Anthropic, Path: "/v1/messages", Body: []byte(`{"model":"qwen3:latest","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"metadata":{"user_id":"u"}`)},
			"event: message_start\n", "message_stop", `"text":"Hello"`,
		},
		{
			job.Original{Dialect: job.OpenAI, Path: "/v1/responses", Body: []byte(`{"model":"qwen3:latest","input":"hi","metadata":{},"user":"u"`)},
			"event: response.created\n", "response.completed", `"text":"Hello"`,
		},
	} {
		j := chat("")
		of := c.of
		j.ID, j.Original = "J", &of
		j.Original.Body = append(slices.Clone(c.of.Body), `,"stream":true}`...)
		server := llamaCpp(sends(firstEvent, nextEvent, moreEvent, reason, usage, done))
		o := stream(t, serve(t, "", server), j)
		if o.err != nil || o.begun != 1 || !strings.HasPrefix(o.raw, c.begins) || !strings.Contains(string(o.last.Raw), c.ends) || !strings.Contains(o.raw, `_J`) || !strings.Contains(o.raw, `"model":"qwen3:latest"`) {
			t.Errorf("got %+v", o)
		}
		if o.last.Usage.Tokens != 3 || o.last.Usage.Decode != 30*time.Millisecond || !strings.Contains(o.head.Warning, "has no name there") {
			t.Errorf("got %+v, %q", o.last.Usage, o.head.Warning)
		}
		if server.path != "/v1/chat/completions" || !strings.Contains(string(server.body), `"content":"hi"`) || !strings.Contains(string(server.body), `"model":"qwen3"`) {
			t.Errorf("the server got %s %s", server.path, server.body)
		}
		j.Stream, j.Original.Body = false, append(slices.Clone(c.of.Body), '}')
		server = llamaCpp(answers(200, `{"choices":[{"index":0,"message":{"content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3}}`))
		if o := stream(t, serve(t, "", server), j); o.err != nil || !strings.Contains(o.raw, c.whole) || o.last.Usage.Tokens != 3 || o.head.Length != int64(len(o.raw)) {
			t.Errorf("got %+v", o)
		}
	}
}
