package httpapi_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/job"
)

// Streams of Anthropic's Messages and of OpenAI's Responses, whose spacing is
// nobody's but their own.
const (
	startEvent = "event: message_start\ndata: {\"type\":\"message_start\", \"message\":{\"usage\":{\"input_tokens\":9}}}\n\n"
	heEvent    = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0, \"delta\":{\"type\":\"text_delta\",\"text\":\"Hé<>\"}}\n\n"
	deltaEvent = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}, \"usage\":{\"input_tokens\":5,\"output_tokens\":2}}\n\n"
	overEvent  = "event: message_stop\ndata: {\"type\":\"message_stop\" }\n\n"
	wholeMsg   = `{"id":"x", "type":"message","content":[{"type":"text","text":"Hé<>"}],"usage":{"input_tokens":5,"output_tokens":2}}`

	createdEvent   = "event: response.created\ndata: {\"type\":\"response.created\", \"response\":{\"object\":\"response\",\"error\":null}}\n\n"
	textEvent      = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hé<>\" }\n\n"
	completedEvent = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"object\":\"response\",\"usage\":{\"input_tokens\":5,\"output_tokens\":2}} }\n\n"
	wholeResponse  = `{"id":"x", "object":"response","output":[],"usage":{"input_tokens":5,"output_tokens":2}}`

	aMessage  = `"max_tokens":5,"messages":[{"role":"user","content":"hi"}]`
	aResponse = `"input":"hi"`
)

func TestMessagesAndResponsesPassByteForByte(t *testing.T) {
	for name, c := range map[string]struct {
		path, body, passed, kind string
		pieces                   []string
		want                     string
	}{
		"a message":           {"/v1/messages", `{ "model":"m" , ` + aMessage + `,"x":1.0}`, "", inJSON, []string{wholeMsg}, wholeMsg},
		"a streamed message":  {"/v1/messages", `{"model":"m","stream":true,` + aMessage + `}`, "", inEvents, []string{startEvent, heEvent, deltaEvent, overEvent}, startEvent + heEvent + deltaEvent + overEvent},
		"with our member":     {"/v1/messages", `{"model":"m","joulemux":{"class":"interactive"},` + aMessage + `}`, `{"model":"m",` + aMessage + `}`, inJSON, []string{wholeMsg}, ""},
		"with it in a stream": {"/v1/messages", `{"model":"m","stream":true,` + aMessage + `,"joulemux":true}`, `{"model":"m","stream":true,` + aMessage + `}`, inEvents, []string{startEvent, heEvent, deltaEvent, overEvent}, ""},
		"a response":          {"/v1/responses", `{ "model":"m" , ` + aResponse + `,"x":1.0}`, "", inJSON, []string{wholeResponse[:9], wholeResponse[9:]}, wholeResponse},
		"a streamed response": {"/v1/responses", `{"model":"m","stream":true,"store":false,` + aResponse + `}`, "", inEvents, []string{createdEvent, textEvent, completedEvent}, createdEvent + textEvent + completedEvent},
		"with our own member": {"/v1/responses", `{"model":"m","stream":true,"joulemux":{},` + aResponse + `}`, `{"model":"m","stream":true,` + aResponse + `}`, inEvents, []string{createdEvent, textEvent, completedEvent}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := with(says(c.kind, c.pieces...))
			got := newRig(t, o).ask("POST", c.path, c.body)
			passed := c.passed
			if passed == "" {
				passed = c.body
			}
			if last := jobs(o)[len(jobs(o))-1]; last != (question{"POST", c.path, passed}) {
				t.Errorf("the backend was asked %q", last)
			}
			if got.err != nil || got.status != 200 || got.header.Get("Content-Type") != c.kind || got.header.Get("X-Backend-Used") != "one" {
				t.Errorf("the client got %+v", got)
			}
			if c.want != "" {
				if got.body != c.want {
					t.Errorf("the answer is %q", got.body)
				}
				return
			}
			all := strings.Join(c.pieces, "")
			end := strings.LastIndexByte(all, '}')
			before, after, found := strings.Cut(got.body, `,"joulemux":`)
			var own map[string]any
			if err := json.NewDecoder(strings.NewReader(after)).Decode(&own); !found || err != nil || strings.TrimSpace(before) != strings.TrimSpace(all[:end]) || own["tokens_generated"] != 2.0 {
				t.Errorf("the answer is %q", got.body)
			}
		})
	}
}

func TestMistakesAreToldInAnthropicsWords(t *testing.T) {
	r := newRig(t, with(says(inJSON, wholeMsg)))
	r.Configure(httpapi.Settings{MaxBody: 2000})
	for _, c := range []struct {
		method, path, body string
		status             int
		kind, text         string
	}{
		{"POST", "/v1/messages", `{`, 400, "invalid_request_error", "no JSON at byte"},
		{"POST", "/v1/messages", `{"model":7,` + aMessage + `}`, 400, "invalid_request_error", "model"},
		{"POST", "/v1/messages", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`, 400, "invalid_request_error", "max_tokens"},
		{"POST", "/v1/messages", `{"model":"m","max_tokens":1}`, 400, "invalid_request_error", "messages"},
		{"POST", "/v1/messages", `{"model":"m",` + aMessage + `,"tools":[{"name":"f","input_schema":{}},{"Type":"web\u005fsearch_20250305","name":"search"}]}`, 400, "invalid_request_error", "tools[1]"},
		{"POST", "/v1/messages", `{"model":"m",` + aMessage + `,"joulemux":{"novel":1}}`, 400, "invalid_request_error", "joulemux.novel"},
		{"POST", "/v1/messages", `{"model":"absent",` + aMessage + `}`, 404, "not_found_error", "absent"},
		{"POST", "/v1/messages", `{"model":"m",` + aMessage + `,"joulemux":{"target":"nowhere"}}`, 404, "not_found_error", "nowhere"},
		{"POST", "/v1/messages", `{"model":"` + strings.Repeat("x", 2000) + `"}`, 413, "request_too_large", "2000 bytes"},
		{"POST", "/v1/messages/count_tokens", `{}`, 404, "not_found_error", "counted"},
		{"GET", "/v1/messages", ``, 405, "invalid_request_error", "POST"},
	} {
		got := r.ask(c.method, c.path, c.body)
		e := read[struct {
			Type  string
			Error struct{ Type, Message string }
		}](t, got.body)
		if got.status != c.status || e.Type != "error" || e.Error.Type != c.kind || !strings.Contains(e.Error.Message, c.text) {
			t.Errorf("%s %s: %d %s", c.path, c.body, got.status, got.body)
		}
	}
	down := newRig(t)
	if got := down.ask("POST", "/v1/messages", `{"model":"m",`+aMessage+`}`); !strings.Contains(got.body, `"type":"not_found_error"`) && !strings.Contains(got.body, `"type":"overloaded_error"`) {
		t.Errorf("without backends there is %+v", got)
	}
}

func TestResponsesThatCannotBeAreRefusedBeforeAnybodyIsAsked(t *testing.T) {
	o := with(says(inJSON, wholeResponse))
	r := newRig(t, o)
	for _, c := range []struct{ body, code, param string }{
		{`{"model":"m","input":"x","previous_response_id":"resp_1"}`, "unsupported", "previous_response_id"},
		{`{"model":"m","input":"x","store":true}`, "unsupported", "store"},
		{`{"model":"m","input":"x","tools":[{"type":"web_search"}]}`, "unsupported", "tools[0]"},
		{`{"model":"m"}`, "invalid", "input"},
	} {
		got := r.ask("POST", "/v1/responses", c.body)
		if f := read[failure](t, got.body); got.status != 400 || !f.is("invalid_request_error", c.code, c.param, "") {
			t.Errorf("%s: %d %s", c.body, got.status, got.body)
		}
	}
	if asked := jobs(o); len(asked) > 0 {
		t.Errorf("the backend was asked %v", asked)
	}
}

func TestBackendsErrorsReachClientsInTheirOwnWords(t *testing.T) {
	const own = `{"type": "error","error":{"type":"theirs","message":"so it is"}}`
	for _, c := range []struct {
		status     int
		body, want string
	}{
		{400, own, "theirs"},
		{500, own, "theirs"},
		{400, `{"error":"so it is"}`, "invalid_request_error"},
		{503, `{"error":"so it is"}`, "overloaded_error"},
	} {
		got := newRig(t, with(fails(c.status, c.body))).ask("POST", "/v1/messages", `{"model":"m",`+aMessage+`}`)
		e := read[struct {
			Error struct{ Type, Message string }
		}](t, got.body)
		if got.status != c.status || e.Error.Message != "so it is" || e.Error.Type != c.want || c.want == "theirs" && got.body != c.body {
			t.Errorf("%d %s: got %d %s", c.status, c.body, got.status, got.body)
		}
	}
}

func TestStreamsThatBreakEndInErrorsOfTheirDialect(t *testing.T) {
	for name, c := range map[string]struct{ path, body, begun, cut, want string }{
		"a message":  {"/v1/messages", aMessage, startEvent + heEvent, `event: content_block_de`, "event: error\ndata: {\"error\":{\"message\":\"backend failed"},
		"a response": {"/v1/responses", aResponse, createdEvent + textEvent, "event: response.outp", "event: error\ndata: {\"code\":\"backend_failed\""},
	} {
		t.Run(name, func(t *testing.T) {
			script := func(w http.ResponseWriter, _ *http.Request) {
				says(inEvents, c.begun, c.cut)(w, nil)
				panic(http.ErrAbortHandler)
			}
			got := newRig(t, with(script)).ask("POST", c.path, `{"model":"m","stream":true,`+c.body+`}`)
			rest, ok := strings.CutPrefix(got.body, c.begun)
			if !errors.Is(got.err, io.ErrUnexpectedEOF) || !ok || !strings.HasPrefix(rest, c.want) || !strings.HasSuffix(rest, "\n\n") {
				t.Errorf("%v: %q", got.err, got.body)
			}
		})
	}
}

func TestRequestsOfMessagesAndResponsesTellWhatToExpect(t *testing.T) {
	for body, want := range map[string]job.Job{
		`{"model":"m","max_tokens":7,"system":"four","messages":[{"role":"user","content":"x"}],"stream":true,"tools":[{}]}`: {Model: "m", MaxTokens: 7, PromptBytes: 5, Stream: true, Tools: true},
		`{"max_tokens":1,"system":[{"type":"text","text":"four"}],"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"hm"},{"type":"tool_use","input":{}}]},
			{"role":"user","content":[{"type":"tool_result","content":[{"type":"text","text":"abc"}]},{"type":"tool_result","content":"d"}]}]}`: {MaxTokens: 1, PromptBytes: 12},
	} {
		j, _, err := httpapi.MessagesJob("/v1/messages", []byte(body))
		j.Original, want.Kind = nil, job.Chat
		if err != nil || !reflect.DeepEqual(j, want) {
			t.Errorf("%s is %+v, %v", body, j, err)
		}
	}
	for body, want := range map[string]job.Job{
		`{"model":"m","input":"four","instructions":"x","max_output_tokens":5,"stream":true,"tools":[{"type":"function","name":"f"}]}`:                                         {Model: "m", MaxTokens: 5, PromptBytes: 5, Stream: true, Tools: true},
		`{"input":[{"role":"user","content":[{"type":"input_text","text":"four"}]},{"type":"function_call","arguments":"{}"},{"type":"function_call_output","output":"abc"}]}`: {PromptBytes: 9},
	} {
		j, _, err := httpapi.ResponsesJob("/v1/responses", []byte(body))
		j.Original, want.Kind = nil, job.Chat
		if err != nil || !reflect.DeepEqual(j, want) {
			t.Errorf("%s is %+v, %v", body, j, err)
		}
	}
	long := strings.Repeat("x", 2*job.LeastFingerprint)
	theirs, _, _ := httpapi.OllamaJob(job.Chat, "", []byte(`{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"`+long+`"}]}`))
	message, _, _ := httpapi.MessagesJob("", []byte(`{"max_tokens":1,"system":"be brief","messages":[{"role":"user","content":"`+long+`"}]}`))
	response, _, _ := httpapi.ResponsesJob("", []byte(`{"instructions":"be brief","input":"`+long+`"}`))
	if theirs.Prompt == nil || !reflect.DeepEqual(message.Prompt, theirs.Prompt) || !reflect.DeepEqual(response.Prompt, theirs.Prompt) {
		t.Errorf("the same prompt is %v, %v and %v", theirs.Prompt, message.Prompt, response.Prompt)
	}
}

func TestWhatBlocksHoldIsReadOnceHoweverDeepItIs(t *testing.T) {
	// Each level that read all those below again would read gigabytes.
	const deep = 4000
	block := strings.Repeat(`[{"type":"tool_result","content":`, deep) + `"` + strings.Repeat("x", 1<<18) + `"` + strings.Repeat(`}]`, deep)
	began := processorTime(t)
	for what, err := range map[string]error{
		"a message":  failed(httpapi.MessagesJob("/v1/messages", []byte(`{"max_tokens":1,"messages":[{"role":"user","content":`+block+`}]}`))),
		"a response": failed(httpapi.ResponsesJob("/v1/responses", []byte(`{"input":[{"type":"function_call_output","output":`+block+`}]}`))),
	} {
		if took := processorTime(t) - began; err != nil || took > 5*time.Second {
			t.Errorf("%s: %v, after %v", what, err, took)
		}
	}
}

// processorTime is what this process has taken of processors, which is the same on
// a machine that has other work.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func failed[J, R any](_ J, _ R, err error) error { return err }

func FuzzMessagesRequest(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m",` + aMessage + `}`, `{"model":"m",` + aResponse + `,"joulemux":{"target":"one"}}`, `null`, "", "{",
		`{"max_tokens":1,"system":[{"text":"x"}],"messages":[{"content":[{"type":"tool_result","content":[{"text":"x"}]},{"input":{}}]}],"joulemux":true}`,
		`{"input":[{"content":[{"text":"x"}],"arguments":"{}","output":[{"text":"x"}]}],"tools":[{"type":"function","name":"f"}]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if !utf8.ValidString(body) {
			return // no such body is read
		}
		m, _, err := httpapi.MessagesJob("/v1/messages", []byte(body))
		if err != nil && !errors.Is(err, job.Invalid) {
			t.Errorf("%q: %T %v", body, err, err)
		}
		r, _, err := httpapi.ResponsesJob("/v1/responses", []byte(body))
		if err != nil && !errors.Is(err, job.Invalid) && !errors.Is(err, job.Unsupported) {
			t.Errorf("%q: %T %v", body, err, err)
		}
		for _, j := range []job.Job{m, r} {
			if j.Original != nil && !strings.Contains(body, job.OwnMember) && string(j.Original.Body) != body {
				t.Errorf("%q was changed to %q", body, j.Original.Body)
			}
		}
	})
}
