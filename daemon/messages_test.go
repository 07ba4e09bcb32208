package daemon_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/responses"

	"github.com/joulemux/joulemux/daemon/daemontest"
)

// beforeAll calls do with a daemon before a real Ollama, which speaks Messages and
// Responses, before one that is too old for them, and before a server that has
// only chats.
func beforeAll(t *testing.T, there string, do func(t *testing.T, d *daemontest.Daemon, backend string)) {
	t.Helper()
	chats := []string{"/v1/chat/completions", "/v1/models"}
	for _, c := range []struct{ backend, kind, addr string }{
		{"ollama", "ollama", strings.TrimPrefix(there, "http://")},
		{"older", "ollama", showing(t, there, append(chats, "/api/")...)},
		{"openai", "openai", showing(t, there, chats...)},
	} {
		d := daemontest.Start(t, daemontest.Options{Config: `
backends: [{id: ` + c.backend + `, type: ` + c.kind + `, hardware: cpu, slots: 4, endpoint: "http://` + c.addr + `"}]
`})
		t.Run("before "+c.backend, func(t *testing.T) { do(t, d, c.backend) })
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// makeCaller makes a model that can be offered tools. Its answers are noise, so it
// calls one only if the form of its answer is one of a call.
func makeCaller(t *testing.T, there string) {
	t.Helper()
	recipe, _ := json.Marshal(map[string]any{"model": "caller", "from": "tiny", "stream": false, "template": "{{ .System }}{{ range .Tools }}{{ . }}{{ end }}" +
		"{{ range .Messages }}{{ .Content }}{{ range .ToolCalls }}{{ .Function.Name }}{{ .Function.Arguments }}{{ end }}{{ end }}"})
	if got := fetch(t, there+"/api/create", string(recipe)); got.status != http.StatusOK {
		t.Fatal(got)
	}
}

// callOfF is the form of a call of the tool f, as the model's template has it.
func callOfF() map[string]any {
	one := func(word string) map[string]any { return map[string]any{"enum": []string{word}} }
	object := func(required []string, of map[string]any) map[string]any {
		return map[string]any{"type": "object", "properties": of, "required": required}
	}
	return object([]string{"name", "parameters"}, map[string]any{"name": one("f"), "parameters": object([]string{"x"}, map[string]any{"x": one("y")})})
}

func TestAnthropicsOwnClient(t *testing.T) {
	there := realOllama(t)
	makeCaller(t, there)
	beforeAll(t, there, func(t *testing.T, d *daemontest.Daemon, backend string) {
		transport := new(http.Transport)
		defer transport.CloseIdleConnections()
		client := anthropic.NewClient(
			anthropicoption.WithBaseURL("http://"+d.Addr), anthropicoption.WithAPIKey("none"),
			anthropicoption.WithHTTPClient(&http.Client{Transport: transport, Timeout: daemontest.Patience}),
		)
		said := messageWhole(t, &client, backend)
		messageStream(t, &client, said)
		messageTools(t, &client, backend)
		messageErrors(t, &client)
		messageModels(t, &client)
	})
}

func aMessage(model string) anthropic.MessageNewParams {
	return anthropic.MessageNewParams{
		Model: model, MaxTokens: 6, Temperature: anthropic.Float(0), TopP: anthropic.Float(1),
		System:   []anthropic.TextBlockParam{{Text: "a"}},
		Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("b c"))},
	}
}

func messageWhole(t *testing.T, client *anthropic.Client, backend string) string {
	t.Helper()
	var resp *http.Response
	m, err := client.Messages.New(t.Context(), aMessage("tiny"), anthropicoption.WithResponseInto(&resp), anthropicoption.WithJSONSet("joulemux", map[string]any{"target": "cpu"}))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Content) != 1 || m.Content[0].Text == "" || m.StopReason != anthropic.StopReasonMaxTokens || m.Usage.InputTokens == 0 || m.Usage.OutputTokens != 6 || m.Role != "assistant" || m.Model != "tiny" {
		t.Errorf("got %s", m.RawJSON())
	}
	if own := m.JSON.ExtraFields["joulemux"]; resp.Header.Get("X-Backend-Used") != backend || !strings.Contains(own.Raw(), `"tokens_generated":6`) {
		t.Errorf("the report is %s, the headers %v", own.Raw(), resp.Header)
	}
	return m.Content[0].Text
}

func messageStream(t *testing.T, client *anthropic.Client, said string) {
	t.Helper()
	stream := client.Messages.NewStreaming(t.Context(), aMessage("tiny"), anthropicoption.WithJSONSet("joulemux", true))
	var all anthropic.Message
	events, report := 0, ""
	var used anthropic.MessageDeltaUsage
	for stream.Next() {
		e := stream.Current()
		events++
		if err := all.Accumulate(e); err != nil {
			t.Error(err)
		}
		switch e := e.AsAny().(type) {
		case anthropic.MessageDeltaEvent:
			used = e.Usage
		case anthropic.MessageStopEvent:
			report = e.JSON.ExtraFields["joulemux"].Raw()
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if len(all.Content) != 1 || all.Content[0].Text != said || all.StopReason != anthropic.StopReasonMaxTokens || used.OutputTokens != 6 || used.InputTokens == 0 || events < 6 {
		t.Errorf("%d events, %+v: %+v, and undivided %q", events, used, all, said)
	}
	if !strings.Contains(report, `"tokens_generated":6`) {
		t.Errorf("the report is %s", report)
	}
}

// messageTools has a tool called and tells what came of it. Only translated can a
// request have its answer's form.
func messageTools(t *testing.T, client *anthropic.Client, backend string) {
	t.Helper()
	p := aMessage("caller")
	p.Tools = []anthropic.ToolUnionParam{{OfTool: &anthropic.ToolParam{Name: "f", Description: anthropic.String("does"), InputSchema: anthropic.ToolInputSchemaParam{Properties: map[string]any{"x": map[string]string{"type": "string"}}}}}}
	p.MaxTokens, p.OutputConfig.Format.Schema = 200, callOfF()
	called := anthropic.NewToolUseBlock("toolu_1", map[string]string{"x": "y"}, "f")
	if backend != "ollama" {
		whole, err := client.Messages.New(t.Context(), p)
		if err != nil || len(whole.Content) != 1 || whole.StopReason != anthropic.StopReasonToolUse || whole.Content[0].Name != "f" || string(whole.Content[0].Input) != `{"x":"y"}` {
			t.Fatalf("a call: %v, %v", whole, err)
		}
		stream := client.Messages.NewStreaming(t.Context(), p)
		var all anthropic.Message
		for stream.Next() {
			if err := all.Accumulate(stream.Current()); err != nil {
				t.Error(err)
			}
		}
		if err := stream.Err(); err != nil || len(all.Content) != 1 || all.StopReason != anthropic.StopReasonToolUse || all.Content[0].Name != "f" || string(all.Content[0].Input) != `{"x":"y"}` || all.Content[0].ID == "" {
			t.Fatalf("a call in a stream: %+v, %v", all, err)
		}
		called = all.Content[0].ToParam()
	}
	p.MaxTokens, p.OutputConfig = 4, anthropic.OutputConfigParam{}
	p.Messages = append(p.Messages, anthropic.NewAssistantMessage(called), anthropic.NewUserMessage(anthropic.NewToolResultBlock(called.OfToolUse.ID, "z", false)))
	if m, err := client.Messages.New(t.Context(), p); err != nil || len(m.Content) != 1 || m.Content[0].Text == "" {
		t.Errorf("with its result: %v, %v", m, err)
	}
}

func messageErrors(t *testing.T, client *anthropic.Client) {
	t.Helper()
	for name, c := range map[string]struct {
		change func(p *anthropic.MessageNewParams)
		status int
		kind   string
	}{
		"a model that is not there": {func(p *anthropic.MessageNewParams) { p.Model = "claude" }, 404, "not_found_error"},
		"no limit":                  {func(p *anthropic.MessageNewParams) { p.MaxTokens = 0 }, 400, "invalid_request_error"},
		"an image that is fetched": {func(p *anthropic.MessageNewParams) {
			p.Messages = []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewImageBlock(anthropic.URLImageSourceParam{URL: "https://x.example/y.png"}))}
		}, 400, "invalid_request_error"},
	} {
		p := aMessage("tiny")
		c.change(&p)
		_, err := client.Messages.New(t.Context(), p)
		var e *anthropic.Error
		if !errors.As(err, &e) || e.StatusCode != c.status || !strings.Contains(e.RawJSON(), `"type":"`+c.kind+`"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := client.Messages.CountTokens(t.Context(), anthropic.MessageCountTokensParams{Model: "tiny", Messages: aMessage("tiny").Messages})
	var e *anthropic.Error
	if !errors.As(err, &e) || e.StatusCode != 404 || !strings.Contains(e.RawJSON(), `"type":"not_found_error"`) {
		t.Errorf("counting: %v", err)
	}
}

func messageModels(t *testing.T, client *anthropic.Client) {
	t.Helper()
	pages := client.Models.ListAutoPaging(t.Context(), anthropic.ModelListParams{Limit: anthropic.Int(1000)})
	var ids []string
	for pages.Next() {
		m := pages.Current()
		ids = append(ids, m.ID)
		found, err := client.Models.Get(t.Context(), m.ID, anthropic.ModelGetParams{})
		if m.Type != "model" || m.DisplayName != m.ID || m.CreatedAt.Year() < 2026 || err != nil || found.RawJSON() != m.RawJSON() {
			t.Errorf("a model is %s, and asked for by name %v, %v", m.RawJSON(), found, err)
		}
	}
	if err := pages.Err(); err != nil || len(ids) != 2 {
		t.Errorf("the models are %v, %v", ids, err)
	}
	var e *anthropic.Error
	if _, err := client.Models.Get(t.Context(), "claude", anthropic.ModelGetParams{}); !errors.As(err, &e) || e.StatusCode != 404 || !strings.Contains(e.RawJSON(), `"type":"not_found_error"`) {
		t.Errorf("one that is not there: %v", err)
	}
}

func TestOpenAIsOwnClientAsksForResponses(t *testing.T) {
	there := realOllama(t)
	makeCaller(t, there)
	beforeAll(t, there, func(t *testing.T, d *daemontest.Daemon, backend string) {
		client := openAIClient(t, d)
		p := responses.ResponseNewParams{
			Model: "tiny", Instructions: param.NewOpt("a"), Input: responses.ResponseNewParamsInputUnion{OfString: param.NewOpt("b c")},
			Temperature: param.NewOpt(0.0), TopP: param.NewOpt(1.0), MaxOutputTokens: param.NewOpt[int64](6), Store: param.NewOpt(false),
		}
		whole, err := client.Responses.New(t.Context(), p)
		if err != nil || whole.OutputText() == "" || whole.Usage.InputTokens == 0 || whole.Usage.OutputTokens != 6 || whole.Model != "tiny" || whole.Instructions.OfString != "a" {
			t.Fatalf("got %v, %v", whole, err)
		}
		if cut := whole.Status == "incomplete" && whole.IncompleteDetails.Reason == "max_output_tokens"; cut != (backend != "ollama") {
			t.Errorf("it is %s", whole.RawJSON())
		}
		text, last := responseStream(t, client, p)
		if text != whole.OutputText() || last.OutputText() != text || last.Usage.OutputTokens != 6 || last.Usage.InputTokens != whole.Usage.InputTokens {
			t.Errorf("in pieces it is %q, and else %q: %s", text, whole.OutputText(), last.RawJSON())
		}
		responseTools(t, client, p)
		p.PreviousResponseID = param.NewOpt(whole.ID)
		var e *openai.Error
		if _, err := client.Responses.New(t.Context(), p); !errors.As(err, &e) || e.StatusCode != 400 || e.Code != "unsupported" || e.Param != "previous_response_id" {
			t.Errorf("what would have to be kept: %v", err)
		}
	})
}

// responseStream returns what comes in a stream, and how that ends.
func responseStream(t *testing.T, client openai.Client, p responses.ResponseNewParams) (text string, last responses.Response) {
	t.Helper()
	stream := client.Responses.NewStreaming(t.Context(), p)
	for n := int64(0); stream.Next(); n++ {
		e := stream.Current()
		if e.SequenceNumber != n {
			t.Errorf("event %d is %s", n, e.RawJSON())
		}
		switch e := e.AsAny().(type) {
		case responses.ResponseTextDeltaEvent:
			text += e.Delta
		case responses.ResponseCompletedEvent:
			last = e.Response
		case responses.ResponseIncompleteEvent:
			last = e.Response
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	return text, last
}

// responseTools has a tool called, and tells what came of it.
func responseTools(t *testing.T, client openai.Client, p responses.ResponseNewParams) {
	t.Helper()
	p.Model, p.MaxOutputTokens = "caller", param.NewOpt[int64](200)
	p.Tools = []responses.ToolUnionParam{responses.ToolParamOfFunction("f", map[string]any{"type": "object", "properties": map[string]any{"x": map[string]any{"type": "string"}}}, true)}
	p.Text.Format = responses.ResponseFormatTextConfigParamOfJSONSchema("call", callOfF())
	whole, err := client.Responses.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	_, streamed := responseStream(t, client, p)
	for _, r := range []*responses.Response{whole, &streamed} {
		if len(r.Output) != 1 || r.Output[0].Type != "function_call" || r.Output[0].Name != "f" || r.Output[0].Arguments.OfString != `{"x":"y"}` {
			t.Fatalf("a call: %s", r.RawJSON())
		}
	}
	call := streamed.Output[0]
	p.Text = responses.ResponseTextConfigParam{}
	p.MaxOutputTokens = param.NewOpt[int64](4)
	p.Input = responses.ResponseNewParamsInputUnion{OfInputItemList: responses.ResponseInputParam{
		responses.ResponseInputItemParamOfMessage("b c", responses.EasyInputMessageRoleUser),
		responses.ResponseInputItemParamOfFunctionCall(call.Arguments.OfString, call.CallID, call.Name),
		responses.ResponseInputItemParamOfFunctionCallOutput("z"),
	}}
	p.Input.OfInputItemList[2].OfFunctionCallOutput.CallID = param.NewOpt(call.CallID)
	if r, err := client.Responses.New(t.Context(), p); err != nil || r.OutputText() == "" {
		t.Errorf("with its result: %v, %v", r, err)
	}
}

// Ollama itself answers in both dialects, and through us its answers are the same.
func TestMessagesAndResponsesAreThoseThatOllamaGives(t *testing.T) {
	there := realOllama(t)
	d := daemontest.Start(t, daemontest.Options{Config: `
backends: [{id: ollama, type: ollama, hardware: cpu, slots: 4, endpoint: "` + there + `"}]
`})
	const message = `{"model":"tiny","max_tokens":6,"temperature":0,"top_p":1,"messages":[{"role":"user","content":"b c"}]`
	const response = `{"model":"tiny","max_output_tokens":6,"temperature":0,"top_p":1,"input":"b c"`
	for name, c := range map[string]struct{ path, body string }{
		"a message":              {"/v1/messages", message + `}`},
		"a message in a stream":  {"/v1/messages", message + `,"stream":true}`},
		"a message of no model":  {"/v1/messages", `{"model":"tiny","max_tokens":6,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url"}}]}]}`},
		"a response":             {"/v1/responses", response + `}`},
		"a response in a stream": {"/v1/responses", response + `,"stream":true}`},
		"an item of no type":     {"/v1/responses", `{"model":"tiny","input":[{"type":"nothing"}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			want, got := fetch(t, there+c.path, c.body), ask(t, d, http.MethodPost, c.path, c.body)
			if got.status != want.status || got.header.Get("Content-Type") != want.header.Get("Content-Type") || !reflect.DeepEqual(namesGone(t, got.body), namesGone(t, want.body)) {
				t.Errorf("got %d %q\n%s\nwant %d %q\n%s", got.status, got.header.Get("Content-Type"), got.body, want.status, want.header.Get("Content-Type"), want.body)
			}
		})
	}
}

// namesGone returns what an answer says in its events, or undivided, but for names
// and times, in which two answers differ.
func namesGone(t *testing.T, body string) (list []any) {
	t.Helper()
	for line := range strings.Lines(body) {
		data, ok := strings.CutPrefix(line, "data: ")
		var v any
		if err := json.Unmarshal([]byte(data), &v); err != nil {
			if !ok && !strings.HasPrefix(strings.TrimSpace(line), "{") {
				list = append(list, line)
				continue
			}
			t.Fatalf("%v: %s", err, line)
		}
		list = append(list, withoutNames(v))
	}
	return list
}

func withoutNames(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			if slices.Contains([]string{"id", "item_id", "request_id", "created_at", "completed_at"}, name) {
				inner = nil
			}
			v[name] = withoutNames(inner)
		}
	case []any:
		for i := range v {
			v[i] = withoutNames(v[i])
		}
	}
	return v
}
