package daemon_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/shared"

	"github.com/joulemux/joulemux/daemon/daemontest"
)

// openAIClient is OpenAI's own client of a daemon.
func openAIClient(t *testing.T, d *daemontest.Daemon) openai.Client {
	t.Helper()
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	return openai.NewClient(
		option.WithBaseURL("http://"+d.Addr+"/v1"), option.WithAPIKey("none"),
		option.WithHTTPClient(&http.Client{Transport: transport, Timeout: daemontest.Patience}),
	)
}

// before returns a daemon before a real Ollama, or before as much of it as has
// OpenAI's API, or only its own.
func before(t *testing.T, there string, apis ...string) *daemontest.Daemon {
	t.Helper()
	var text strings.Builder
	text.WriteString("backends:\n")
	for _, api := range apis {
		addr, kind := strings.TrimPrefix(there, "http://"), "ollama"
		switch api {
		case "openai":
			addr, kind = openAIOf(t, there), "openai"
		case "own":
			addr = showing(t, there, "/api/")
		}
		fmt.Fprintf(&text, "  - {id: %s, type: %s, hardware: cpu, slots: 4, endpoint: \"http://%s\"}\n", api, kind, addr)
	}
	return daemontest.Start(t, daemontest.Options{Config: text.String()})
}

func TestOpenAIsOwnClientOnEveryEndpoint(t *testing.T) {
	there := realOllama(t)
	offerTools(t, there)
	for _, backend := range []string{"ollama", "openai", "own"} {
		t.Run("before "+backend, func(t *testing.T) {
			client := openAIClient(t, before(t, there, backend))
			t.Run("chat", func(t *testing.T) { chatWhole(t, client, backend) })
			t.Run("a stream", func(t *testing.T) { chatStream(t, client) })
			t.Run("completions", func(t *testing.T) { completions(t, client) })
			t.Run("embeddings", func(t *testing.T) { embeddings(t, client) })
			t.Run("models", func(t *testing.T) { models(t, client) })
			t.Run("errors", func(t *testing.T) { typedErrors(t, client, backend) })
		})
	}
}

// offerTools makes a model whose template has a place for tools. Of one that has
// none for a conversation Ollama tells the tools to nobody.
func offerTools(t *testing.T, there string) {
	t.Helper()
	recipe := `{"model":"skilled","from":"tiny","stream":false,"template":"{{ range .Tools }}{{ .Function }}{{ end }}{{ range .Messages }}{{ .Content }}{{ end }}"}`
	if got := fetch(t, there+"/api/create", recipe); got.status != http.StatusOK {
		t.Fatal(got)
	}
}

// fetch posts to whoever is at a URL.
func fetch(t *testing.T, url, body string) answer {
	t.Helper()
	a, err := request(t, briefly(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func chat(model string) openai.ChatCompletionNewParams {
	return bounded(openai.ChatCompletionNewParams{
		Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.SystemMessage("a"), openai.UserMessage("b c")},
		Seed: param.NewOpt[int64](7), Temperature: param.NewOpt(0.0),
	}, 5)
}

// bounded limits an answer by both names that a limit has: not every server knows
// the newer.
func bounded(p openai.ChatCompletionNewParams, tokens int64) openai.ChatCompletionNewParams {
	p.MaxTokens, p.MaxCompletionTokens = param.NewOpt(tokens), param.NewOpt(tokens)
	return p
}

func chatWhole(t *testing.T, client openai.Client, backend string) {
	t.Helper()
	var resp *http.Response
	got, err := client.Chat.Completions.New(t.Context(), chat("tiny"), option.WithResponseInto(&resp),
		option.WithJSONSet("joulemux", map[string]any{"target": "cpu"}))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices) != 1 || got.Choices[0].Message.Content == "" || got.Choices[0].FinishReason != "length" || got.Usage.PromptTokens == 0 || got.Usage.CompletionTokens != 5 {
		t.Errorf("got %s", got.RawJSON())
	}
	var own map[string]any
	if err := json.Unmarshal([]byte(got.JSON.ExtraFields["joulemux"].Raw()), &own); err != nil || own["backend_used"] != backend && own["backend"] != backend {
		t.Errorf("the report is %v, %v", own, err)
	}
	if h := resp.Header; h.Get("X-Backend-Used") != backend || h.Get("X-Energy-Quality") == "" {
		t.Errorf("the headers are %v", h)
	}

	likely := chat("tiny")
	likely.Logprobs, likely.TopLogprobs = param.NewOpt(true), param.NewOpt[int64](2)
	got, err = client.Chat.Completions.New(t.Context(), likely)
	if err != nil || len(got.Choices[0].Logprobs.Content) == 0 || len(got.Choices[0].Logprobs.Content[0].TopLogprobs) != 2 {
		t.Errorf("probabilities: %v, %v", got, err)
	}

	formed := chat("tiny")
	formed.ResponseFormat.OfJSONSchema = &shared.ResponseFormatJSONSchemaParam{JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{
		Name: "size", Strict: param.NewOpt(true),
		Schema: map[string]any{"type": "object", "properties": map[string]any{"big": map[string]any{"type": "boolean"}}, "required": []string{"big"}},
	}}
	got, err = client.Chat.Completions.New(t.Context(), bounded(formed, 200))
	var size struct{ Big *bool }
	if err != nil || got.Choices[0].FinishReason == "stop" && (json.Unmarshal([]byte(got.Choices[0].Message.Content), &size) != nil || size.Big == nil) || !strings.HasPrefix(strings.TrimSpace(got.Choices[0].Message.Content), "{") {
		t.Errorf("a form: %v, %v", got, err)
	}

	if backend != "openai" { // of which nobody knows what it knows
		newer := chat("tiny")
		newer.MaxTokens = param.Opt[int64]{}
		got, err = client.Chat.Completions.New(t.Context(), newer)
		if err != nil || got.Usage.CompletionTokens != 5 {
			t.Errorf("a limit by its newer name: %v, %v", got, err)
		}
	}

	able := chat("skilled")
	able.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: "weather", Description: param.NewOpt("What it is like outside.")})}
	alone, err := client.Chat.Completions.New(t.Context(), chat("skilled"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err = client.Chat.Completions.New(t.Context(), able); err != nil || got.Usage.PromptTokens <= alone.Usage.PromptTokens {
		t.Errorf("the tool is not read: %v, %v", got, err)
	}
}

func chatStream(t *testing.T, client openai.Client) {
	t.Helper()
	for _, asks := range []bool{true, false} {
		p := chat("tiny")
		if asks {
			p.StreamOptions.IncludeUsage = param.NewOpt(true)
		}
		stream := client.Chat.Completions.NewStreaming(t.Context(), p, option.WithJSONSet("joulemux", true))
		var all openai.ChatCompletionAccumulator
		reports, chunks := 0, 0
		for stream.Next() {
			c := stream.Current()
			chunks++
			if !all.AddChunk(c) {
				t.Errorf("a chunk that does not belong there: %s", c.RawJSON())
			}
			if _, told := c.JSON.ExtraFields["joulemux"]; told {
				reports++
			}
		}
		if err := stream.Err(); err != nil {
			t.Fatal(err)
		}
		if len(all.Choices) != 1 || all.Choices[0].Message.Content == "" || all.Choices[0].FinishReason != "length" || (all.Usage.CompletionTokens == 5) != asks || reports != 1 || chunks < 3 {
			t.Errorf("%d chunks, %d reports: %+v", chunks, reports, all)
		}
	}
}

func completions(t *testing.T, client openai.Client) {
	t.Helper()
	p := openai.CompletionNewParams{
		Model: "tiny", Prompt: openai.CompletionNewParamsPromptUnion{OfString: param.NewOpt("b c")},
		Seed: param.NewOpt[int64](7), Temperature: param.NewOpt(0.0), MaxTokens: param.NewOpt[int64](5),
	}
	whole, err := client.Completions.New(t.Context(), p)
	if err != nil || len(whole.Choices) != 1 || whole.Choices[0].Text == "" || whole.Usage.CompletionTokens == 0 {
		t.Fatalf("got %v, %v", whole, err)
	}
	var text strings.Builder
	stream := client.Completions.NewStreaming(t.Context(), p)
	for stream.Next() {
		c := stream.Current()
		if c.JSON.Usage.Valid() {
			t.Errorf("what was not asked for is told: %s", c.RawJSON())
		}
		for _, choice := range c.Choices {
			text.WriteString(choice.Text)
		}
	}
	if err := stream.Err(); err != nil || text.String() != whole.Choices[0].Text {
		t.Errorf("in pieces it is %q and else %q, %v", text.String(), whole.Choices[0].Text, err)
	}
}

func embeddings(t *testing.T, client openai.Client) {
	t.Helper()
	p := openai.EmbeddingNewParams{Model: "tiny", Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"a b", "c"}}}
	got, err := client.Embeddings.New(t.Context(), p)
	if err != nil || len(got.Data) != 2 || len(got.Data[0].Embedding) == 0 || got.Usage.PromptTokens == 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

func models(t *testing.T, client openai.Client) {
	t.Helper()
	pages := client.Models.ListAutoPaging(t.Context())
	var ids []string
	for pages.Next() {
		m := pages.Current()
		ids = append(ids, m.ID)
		if m.Created == 0 || m.OwnedBy != "library" || m.Object != "model" {
			t.Errorf("a model is %s", m.RawJSON())
		}
		if found, err := client.Models.Get(t.Context(), m.ID); err != nil || found.ID != m.ID || found.Created != m.Created {
			t.Errorf("asked for by name it is %v, %v", found, err)
		}
	}
	if err := pages.Err(); err != nil || len(ids) != 2 {
		t.Errorf("the models are %v, %v", ids, err)
	}
}

func typedErrors(t *testing.T, client openai.Client, backend string) {
	t.Helper()
	ours := "" // of what no server has been asked for
	if backend == "own" {
		ours = "invalid"
	}
	for name, c := range map[string]struct {
		ask    func() error
		status int
		kind   string
		code   string
		text   string
	}{
		"a model that is not there": {func() error {
			_, err := client.Chat.Completions.New(t.Context(), chat("nobody"))
			return err
		}, 404, "invalid_request_error", "model_not_found", "nobody"},
		"one that is not listed": {func() error {
			_, err := client.Models.Get(t.Context(), "some/body:1b")
			return err
		}, 404, "invalid_request_error", "model_not_found", "some/body:1b"},
		"what the backend refuses": {func() error {
			_, err := client.Chat.Completions.New(t.Context(), openai.ChatCompletionNewParams{Model: "tiny", Messages: []openai.ChatCompletionMessageParamUnion{}})
			return err
		}, 400, "invalid_request_error", ours, "too short"},
		"a target that is not there": {func() error {
			_, err := client.Chat.Completions.New(t.Context(), chat("tiny"), option.WithHeader("X-Target-Backend", "mars"))
			return err
		}, 404, "invalid_request_error", "backend_not_found", "mars"},
		"a deadline": {func() error {
			p := bounded(chat("tiny"), 100_000)
			stream := client.Chat.Completions.NewStreaming(t.Context(), p, option.WithJSONSet("joulemux", map[string]any{"deadline_ms": 1}))
			for stream.Next() {
				continue
			}
			return stream.Err()
		}, 504, "server_error", "deadline_passed", "1 ms"},
	} {
		var e *openai.Error
		if err := c.ask(); !errors.As(err, &e) || e.StatusCode != c.status || e.Type != c.kind || e.Code != c.code || !strings.Contains(e.Message, c.text) {
			t.Errorf("%s, of %s: %v", name, backend, err)
			if e != nil {
				t.Errorf("it is %d %s", e.StatusCode, e.RawJSON())
			}
		}
	}
}

// unlike are what differs from answer to answer.
var unlike = regexp.MustCompile(`"(id|created)":("[^"]*"|[0-9]+)`)

// masked returns an answer without what differs from answer to answer.
func masked(body string) string { return unlike.ReplaceAllString(body, `"$1":0`) }

func TestAnswersOfOpenAIsAreThoseThatTheServerGives(t *testing.T) {
	there := realOllama(t)
	const chat = `{"model":"tiny:latest","messages":[{"role":"system","content":"a"},{"role":"user","content":"b c"}],"seed":7,"temperature":0,"max_tokens":6`
	const prompt = `{"model":"tiny:latest","prompt":"b c","seed":7,"temperature":0,"max_tokens":6`
	for _, backend := range []string{"ollama", "openai"} {
		d := before(t, there, backend)
		for name, c := range map[string]struct{ path, body string }{
			"a chat":                        {"/v1/chat/completions", chat + `}`},
			"a stream":                      {"/v1/chat/completions", chat + `,"stream":true}`},
			"a stream with its use":         {"/v1/chat/completions", chat + `,"stream":true,"stream_options":{"include_usage":true}}`},
			"probabilities":                 {"/v1/chat/completions", chat + `,"logprobs":true,"top_logprobs":2}`},
			"probabilities in a stream":     {"/v1/chat/completions", chat + `,"logprobs":true,"stream":true}`},
			"a form":                        {"/v1/chat/completions", chat + `,"response_format":{"type":"json_object"}}`},
			"a stop":                        {"/v1/chat/completions", chat + `,"stop":["e"]}`},
			"a completion":                  {"/v1/completions", prompt + `}`},
			"a completion's stream":         {"/v1/completions", prompt + `,"stream":true}`},
			"a completion's stream and use": {"/v1/completions", prompt + `,"stream":true,"stream_options":{"include_usage":true}}`},
			"vectors":                       {"/v1/embeddings", `{"model":"tiny:latest","input":["a b","c"]}`},
			"vectors, packed":               {"/v1/embeddings", `{"model":"tiny:latest","input":"a b","encoding_format":"base64"}`},
			"no messages":                   {"/v1/chat/completions", `{"model":"tiny:latest","messages":[]}`},
			"an encoding that is none":      {"/v1/embeddings", `{"model":"tiny:latest","input":"x","encoding_format":"morse"}`},
			"an image to who sees none":     {"/v1/chat/completions", `{"model":"tiny:latest","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://a.example/x.png"}}]}]}`},
		} {
			t.Run(name+" of "+backend, func(t *testing.T) {
				want, got := fetch(t, there+c.path, c.body), ask(t, d, http.MethodPost, c.path, c.body)
				if got.status != want.status || got.header.Get("Content-Type") != want.header.Get("Content-Type") || masked(got.body) != masked(want.body) {
					t.Errorf("got %d %q\n%s\nwant %d %q\n%s", got.status, got.header.Get("Content-Type"), got.body, want.status, want.header.Get("Content-Type"), want.body)
				}
				if strings.Contains(c.body, "stream") && strings.Count(got.body, "data: ") < 4 {
					t.Errorf("the stream is %s", got.body)
				}
			})
		}
		want, err := request(t, briefly(), http.MethodGet, there+"/v1/models", nil)
		if got := ask(t, d, http.MethodGet, "/v1/models", ""); err != nil || !sameJSON(t, got.body, want.body) {
			t.Errorf("the models of %s are %s, and were %s, %v", backend, got.body, want.body, err)
		}
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// sameJSON reports whether two texts hold the same.
func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal([]byte(a), &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

// caller is a server of OpenAI's API whose model calls the tool it is offered.
func caller(w http.ResponseWriter, r *http.Request) {
	const call = `{"index":0,"id":"call_1","type":"function","function":{"name":"weather","arguments":`
	body, _ := io.ReadAll(r.Body)
	switch {
	case r.URL.Path == "/v1/models":
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"somebody"}]}`)
	case !bytes.Contains(body, []byte(`"tools"`)):
		http.NotFound(w, r)
	case bytes.Contains(body, []byte(`"stream":true`)):
		w.Header().Set("Content-Type", "text/event-stream")
		for _, choice := range []string{
			`{"index":0,"delta":{"role":"assistant","tool_calls":[` + call + `""}}]},"finish_reason":null}`,
			`{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"where\":"}}]},"finish_reason":null}`,
			`{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"here\"}"}}]},"finish_reason":null}`,
			`{"index":0,"delta":{},"finish_reason":"tool_calls"}`,
		} {
			_, _ = fmt.Fprintf(w, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[%s]}`+"\n\n", choice)
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":null,"tool_calls":[`+call+`"{\"where\":\"here\"}"}}]}}]}`)
	}
}

func TestOpenAIsOwnClientGetsTheCallsOfTools(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: `
backends: [{id: other, hardware: npu, type: openai, endpoint: "http://` + daemontest.Serve(t, http.HandlerFunc(caller)) + `"}]
`})
	client := openAIClient(t, d)
	p := chat("m")
	p.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: "weather"})}
	called := func(m openai.ChatCompletionMessage) bool {
		return len(m.ToolCalls) == 1 && m.ToolCalls[0].ID == "call_1" && m.ToolCalls[0].Function.Name == "weather" && m.ToolCalls[0].Function.Arguments == `{"where":"here"}`
	}
	whole, err := client.Chat.Completions.New(t.Context(), p)
	if err != nil || !called(whole.Choices[0].Message) {
		t.Errorf("undivided: %v, %v", whole, err)
	}
	stream := client.Chat.Completions.NewStreaming(t.Context(), p)
	var all openai.ChatCompletionAccumulator
	for stream.Next() {
		all.AddChunk(stream.Current())
	}
	if err := stream.Err(); err != nil || !called(all.Choices[0].Message) || all.Choices[0].FinishReason != "tool_calls" {
		t.Errorf("in a stream: %+v, %v", all, err)
	}
}
