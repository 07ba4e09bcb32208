package httpapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/job"
)

const inEvents = "text/event-stream"

// A stream of OpenAI's, whose spacing is nobody's but its own.
const (
	helEvent   = `data: {"choices":[ {"index":0,"delta":{"role":"assistant","content":"Hé<>"},"finish_reason":null}]}` + "\n\n"
	stopEvent  = `data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}] }` + "\n\n"
	usageEvent = `data: {"choices":[],"usage":{"prompt_tokens":5, "completion_tokens":2,"total_tokens":7}}` + "\n\n"
	doneEvent  = "data: [DONE]\n\n"
	wholeChat  = `{"id":"x", "choices":[{"index":0,"message":{"role":"assistant","content":"Hé<>"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}`
)

func TestOpenAIsRequestsAndAnswersPassByteForByte(t *testing.T) {
	for name, c := range map[string]struct {
		path, body, passed, kind string
		pieces                   []string
		want                     string
	}{
		"a chat":           {"/v1/chat/completions", `{ "model":"m" , "messages":[{"role":"user","content":"é\u00e9 <&>"}],"x":1.0}`, "", inJSON, []string{wholeChat}, wholeChat},
		"a completion":     {"/v1/completions", `{"model":"m","prompt":["a","b"],"suffix":"c","stream":false}`, "", inJSON, []string{wholeChat[:9], wholeChat[9:]}, wholeChat},
		"embeddings":       {"/v1/embeddings", `{"model":"m","input":[1,2,3],"encoding_format":"base64"}`, "", inJSON, []string{`{"data":[ ]}`}, `{"data":[ ]}`},
		"a stream":         {"/v1/chat/completions", `{"model":"m","stream":true,"stream_options":{"include_usage":true}}`, "", inEvents, []string{helEvent, stopEvent, usageEvent, doneEvent}, helEvent + stopEvent + usageEvent + doneEvent},
		"one with no use":  {"/v1/chat/completions", `{"model":"m","stream":true}`, `{"stream_options":{"include_usage":true},"model":"m","stream":true}`, inEvents, []string{helEvent, stopEvent, usageEvent, doneEvent}, helEvent + stopEvent + doneEvent},
		"with our member":  {"/v1/chat/completions", `{"joulemux":{"class":"interactive"},"model":"m"}`, `{"model":"m"}`, inJSON, []string{wholeChat}, ""},
		"with it as false": {"/v1/chat/completions", `{"model":"m", "joulemux":false}`, `{"model":"m"}`, inJSON, []string{wholeChat}, wholeChat},
	} {
		t.Run(name, func(t *testing.T) {
			o := with(says(c.kind, c.pieces...))
			r := newRig(t, o)
			for _, client := range []*http.Client{r.overUnix, r.overTCP} {
				got := r.over(client, "POST", c.path, c.body)
				passed := c.passed
				if passed == "" {
					passed = c.body
				}
				if last := jobs(o)[len(jobs(o))-1]; last != (question{"POST", c.path, passed}) {
					t.Errorf("the backend was asked %q", last)
				}
				if got.err != nil || got.status != 200 || c.want != "" && got.body != c.want || got.header.Get("Content-Type") != c.kind || got.header.Get("X-Backend-Used") != "one" {
					t.Errorf("the client got %+v", got)
				}
			}
		})
	}
}

// jobs are the questions of OpenAI's dialect.
func jobs(o *scriptedOllama) (list []question) {
	for _, q := range o.questions() {
		if strings.HasPrefix(q.path, "/v1/") {
			list = append(list, q)
		}
	}
	return list
}

func TestTheReportStandsInAnAnswerOfOpenAIsOnlyIfItIsAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		body, kind string
		pieces     []string
		in         string // what the report is at the end of, or ""
	}{
		"undivided":              {`{"model":"m"}`, inJSON, []string{wholeChat}, ""},
		"undivided, asked for":   {`{"model":"m","joulemux":true}`, inJSON, []string{wholeChat}, wholeChat},
		"a stream":               {`{"model":"m","stream":true}`, inEvents, []string{helEvent, stopEvent, usageEvent, doneEvent}, ""},
		"a stream, asked for":    {`{"model":"m","stream":true,"joulemux":{}}`, inEvents, []string{helEvent, stopEvent, usageEvent, doneEvent}, stopEvent},
		"in the use, if told":    {`{"model":"m","stream":true,"stream_options":{"include_usage":true},"joulemux":{}}`, inEvents, []string{helEvent + stopEvent + usageEvent + doneEvent}, usageEvent},
		"where there is no last": {`{"model":"m","stream":true,"joulemux":{}}`, inEvents, []string{helEvent, stopEvent}, stopEvent},
	} {
		t.Run(name, func(t *testing.T) {
			got := newRig(t, with(says(c.kind, c.pieces...))).ask("POST", "/v1/chat/completions", c.body)
			if got.err != nil || got.status != 200 {
				t.Fatalf("got %+v", got)
			}
			if c.kind == inJSON && (got.header.Get("X-Energy-Quality") != "estimated" || got.header.Get("X-Energy-Joules") == "") {
				t.Errorf("the headers are %v", got.header)
			}
			before, after, found := strings.Cut(got.body, `,"joulemux":`)
			if found != (c.in != "") {
				t.Fatalf("the answer is %q", got.body)
			}
			if !found {
				return
			}
			end := strings.LastIndexByte(c.in, '}')
			if !strings.HasSuffix(before, c.in[:end]) {
				t.Errorf("the report is behind %q", before)
			}
			var own map[string]any
			if err := json.NewDecoder(strings.NewReader(after)).Decode(&own); err != nil || own["model"] != "m" || own["energy_quality"] != "estimated" || own["tokens_generated"] == 0.0 && c.pieces[len(c.pieces)-1] != stopEvent {
				t.Errorf("the report is %v, %v", own, err)
			}
		})
	}
}

// failure is an error as OpenAI's API has it. What a client reads by type is
// there even if it is null.
type failure struct {
	Error struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	} `json:"error"`
}

func (f failure) is(kind, code, param, text string) bool {
	e := f.Error
	return e.Type == kind && e.Code != nil && *e.Code == code && (param == "" || e.Param != nil && *e.Param == param) && e.Message != "" && strings.Contains(e.Message, text)
}

func TestABadRequestOfOpenAIsIsToldWhatIsWrongInItsWords(t *testing.T) {
	r := newRig(t, with(says(inJSON, wholeChat)))
	r.Configure(httpapi.Settings{MaxBody: 2000})
	settings := dispatch.DefaultSettings()
	settings.MaxPrompt = 500
	r.dispatch.Configure(settings)
	const invalid = "invalid_request_error"
	for name, c := range map[string]struct {
		method, path, body, header string
		status                     int
		kind, code, param, text    string
	}{
		"broken JSON":               {"POST", "/v1/chat/completions", `{"model":"m",}`, "", 400, invalid, "invalid", "", "byte 14"},
		"nothing":                   {"POST", "/v1/embeddings", ``, "", 400, invalid, "invalid", "", "empty"},
		"a list":                    {"POST", "/v1/completions", `[]`, "", 400, invalid, "invalid", "", "want a JSON object"},
		"no UTF-8":                  {"POST", "/v1/completions", "{\"model\":\"m\xff\"}", "", 400, invalid, "invalid", "", "byte 11"},
		"a member of another kind":  {"POST", "/v1/chat/completions", `{"model":"m","stream":"yes"}`, "", 400, invalid, "invalid", "stream", "want true or false"},
		"a message of another kind": {"POST", "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":5}]}`, "", 400, invalid, "invalid", "messages.content", "want a string"},
		"messages that are none":    {"POST", "/v1/chat/completions", `{"model":"m","messages":"hi"}`, "", 400, invalid, "invalid", "messages", "want a list"},
		"stream options":            {"POST", "/v1/chat/completions", `{"model":"m","stream":true,"stream_options":5}`, "", 400, invalid, "invalid", "stream_options", ""},
		"an unknown annotation":     {"POST", "/v1/chat/completions", `{"model":"m","joulemux":{"tarmet":"one"}}`, "", 400, invalid, "invalid", "joulemux.tarmet", `did you mean "target"?`},
		"our member is no object":   {"POST", "/v1/embeddings", `{"model":"m","joulemux":[]}`, "", 400, invalid, "invalid", "joulemux", "want a JSON object"},
		"an unknown target":         {"POST", "/v1/chat/completions", `{"model":"m","joulemux":{"target":"mars"}}`, "", 404, invalid, "backend_not_found", "", "mars"},
		"an unknown model":          {"POST", "/v1/chat/completions", `{"model":"nobody"}`, "", 404, invalid, "model_not_found", "", "nobody"},
		"a header":                  {"POST", "/v1/chat/completions", `{"model":"m"}`, "X-Deadline-Ms: soon", 400, invalid, "invalid", "X-Deadline-Ms", "soon"},
		"a prompt that is too long": {"POST", "/v1/completions", `{"model":"m","prompt":["` + strings.Repeat("x", 501) + `"]}`, "", 413, invalid, "prompt_too_large", "", "501 bytes"},
		"tokens that are too many":  {"POST", "/v1/completions", `{"model":"m","prompt":[` + strings.Repeat("1,", 200) + `1]}`, "", 413, invalid, "prompt_too_large", "", "804 bytes"},
		"a body that is too long":   {"POST", "/v1/chat/completions", `{"x":"` + strings.Repeat("x", 2000) + `"}`, "", 413, invalid, "prompt_too_large", "", "2000 bytes"},
		"a body that is packed":     {"POST", "/v1/responses", "\x28\xb5\x2f\xfd", "Content-Encoding: zstd", 400, invalid, "invalid", "Content-Encoding", "zstd"},
		"a limit below all draws":   {"POST", "/v1/chat/completions", `{"model":"m"}`, "X-Max-Power-Watts: 1", 503, "server_error", "no_backend", "", "max_power_watts"},
		"the wrong method":          {"GET", "/v1/chat/completions", "", "", 405, invalid, "invalid", "method", "POST"},
		"a path that is not there":  {"POST", "/v1/audio/speech", "{}", "", 404, invalid, "invalid", "", "/v1/audio/speech"},
		"a model that is not there": {"GET", "/v1/models/some/where:7b", "", "", 404, invalid, "model_not_found", "", "some/where:7b"},
	} {
		t.Run(name, func(t *testing.T) {
			var headers []string
			if c.header != "" {
				headers = []string{c.header}
			}
			got := r.ask(c.method, c.path, c.body, headers...)
			if f := read[failure](t, got.body); got.status != c.status || !f.is(c.kind, c.code, c.param, c.text) || got.header.Get("Content-Type") != inJSON {
				t.Errorf("got %d %s", got.status, got.body)
			}
			if again := got.header.Get("Retry-After") != ""; again == (got.header.Get("X-Should-Retry") == "false") && c.code != "invalid" {
				t.Errorf("whether to ask again: %v", got.header)
			}
		})
	}
	if got := r.over(r.overTCP, "POST", "/v1/chat/completions", "{}", "Origin: https://evil.example.com"); got.status != 403 || !read[failure](t, got.body).is("permission_error", "forbidden", "Origin", "evil") {
		t.Errorf("a foreign page got %+v", got)
	}
	if got := r.over(r.overTCP, "GET", "/v1/models", "", "Host: evil.example.com"); got.status != 403 || !read[failure](t, got.body).is("permission_error", "forbidden", "Host", "evil") {
		t.Errorf("a foreign name got %+v", got)
	}
}

func TestABodyOfTwoGigabytesIsRefusedUnread(t *testing.T) {
	r := newRig(t, with(says(inJSON, wholeChat)))
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", 2<<30)
	got, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 413 ") || !strings.Contains(string(got), `"type":"invalid_request_error"`) {
		t.Errorf("got %q, %v", got, err)
	}
}

// fails returns a script that refuses.
func fails(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestABackendsErrorReachesAClientOfOpenAIsInItsWords(t *testing.T) {
	const own = `{"error":{"message":"so it is", "type":"their_own","param":null,"code":null}}`
	for _, c := range []struct {
		status int
		body   string
		same   bool
	}{
		{400, own, true},
		{500, own, true},
		{503, own, true},
		{400, `{"error":"so it is"}`, false},
		{500, `{"error":"so it is"}`, false},
		{429, `so it is`, false},
	} {
		got := newRig(t, with(fails(c.status, c.body))).ask("POST", "/v1/chat/completions", `{"model":"m"}`)
		f := read[failure](t, got.body)
		if got.status != c.status || c.same != (got.body == c.body) || f.Error.Message == "" || f.Error.Type == "" || strings.HasPrefix(c.body, "{") && f.Error.Message != "so it is" {
			t.Errorf("%d %s: got %d %s", c.status, c.body, got.status, got.body)
		}
	}
}

func TestAStreamOfOpenAIsThatBreaksEndsInAnErrorOfItsOwn(t *testing.T) {
	dies := func(last string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			says(inEvents, helEvent, last)(w, nil)
			panic(http.ErrAbortHandler)
		}
	}
	for name, c := range map[string]struct {
		script http.HandlerFunc
		kind   string
	}{
		"the backend dies":                      {dies(helEvent), "server_error"},
		"the backend dies in an event":          {dies(`data: {"choi`), "server_error"},
		"a stream ends without a last event":    {says(inEvents, helEvent), "server_error"},
		"one of two answers has no end":         {says(inEvents, helEvent, stopEvent), "server_error"},
		"the backend tells of its error itself": {says(inEvents, helEvent, `data: {"error":{"message":"out of memory","type":"theirs"}}`+"\n\n"), "theirs"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, remembered(c.script))
			got := r.ask("POST", "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"hi"}],"n":2,"stream":true,"joulemux":{"cache_enabled":true}}`)
			if kept := r.cache.Stats().Entries; kept != 0 {
				t.Errorf("%d answers are kept", kept)
			}
			if b := r.backends.Current().Find("one"); b.Healthy && b.Suspect == "" {
				t.Error("the backend is not told to have failed")
			}
			if got.status != 200 || !errors.Is(got.err, io.ErrUnexpectedEOF) || strings.Contains(got.body, "[DONE]") {
				t.Errorf("got %+v", got)
			}
			events := strings.Split(strings.TrimSuffix(got.body, "\n\n"), "\n\n")
			for i, event := range events {
				f := read[failure](t, strings.TrimPrefix(event, "data: "))
				if (f.Error.Message != "") != (i == len(events)-1) || i == len(events)-1 && f.Error.Type != c.kind {
					t.Errorf("event %d is %q", i, event)
				}
			}
		})
	}
}

func TestWhoSpellsNamesInHisOwnWayBreaksNoBackend(t *testing.T) {
	r := newRig(t, with(says(inJSON, wholeChat)))
	for range 4 {
		got := r.ask("POST", "/v1/chat/completions", `{"model":"m","Stream":true}`)
		if f := read[failure](t, got.body); got.status != 400 || !f.is("invalid_request_error", "unsupported", "", "asked for a stream") {
			t.Errorf("got %+v", got)
		}
	}
	if got := r.ask("POST", "/v1/chat/completions", `{"model":"m"}`); got.status != 200 || got.body != wholeChat {
		t.Errorf("and then %+v", got)
	}
}

func TestModelsAreListedOnceAndFoundByAnyName(t *testing.T) {
	one, two := with(nil), with(nil)
	one.models, two.models = []string{"m:latest", "hf.co/some/where:7b"}, []string{"m", "other:1b"}
	r := newRig(t, one, two)
	type model struct {
		ID, Object string
		Created    int64
		Owner      string `json:"owned_by"`
	}
	list := read[struct {
		Object string
		Data   []model
	}](t, r.ask("GET", "/v1/models", "").body)
	want := []model{{"m:latest", "model", 0, "library"}, {"hf.co/some/where:7b", "model", 0, "some"}, {"other:1b", "model", 0, "library"}}
	if list.Object != "list" || !reflect.DeepEqual(list.Data, want) {
		t.Errorf("the list is %+v", list)
	}
	if got, slashed := r.ask("GET", "/v1/models", ""), r.ask("GET", "/v1/models/", ""); got.body != slashed.body {
		t.Errorf("with a slash there is %+v", slashed)
	}
	for id, owner := range map[string]string{"m": "library", "M:latest": "library", "hf.co/some/where:7b": "some", "hf.co%2Fsome%2Fwhere%3A7b": "some"} {
		got := r.ask("GET", "/v1/models/"+id, "")
		if m := read[model](t, got.body); got.status != 200 || m.Owner != owner || m.Object != "model" || !strings.HasPrefix(strings.ReplaceAll(strings.ReplaceAll(id, "%2F", "/"), "%3A", ":"), m.ID) {
			t.Errorf("%s is %d %s", id, got.status, got.body)
		}
	}
	if got := newRig(t).ask("GET", "/v1/models", ""); got.body != `{"data":[],"object":"list"}`+"\n" {
		t.Errorf("without backends there is %+v", got)
	}
}

func TestARequestOfOpenAIsTellsWhatToExpect(t *testing.T) {
	for body, want := range map[string]job.Job{
		`{"model":"m","max_tokens":7,"max_completion_tokens":5}`:                                                                 {Model: "m", MaxTokens: 5},
		`{"max_tokens":1e99,"stream":true,"tools":[{}]}`:                                                                         {MaxTokens: 1<<31 - 1, Stream: true, Tools: true},
		`{"prompt":"four","suffix":"x","stream":null,"tools":[],"functions":null}`:                                               {PromptBytes: 5, Completion: true},
		`{"messages":[{"role":"user","content":"four"},{"role":"user","content":null},{"role":"assistant"}]}`:                    {PromptBytes: 4},
		`{"messages":[{"content":[{"type":"text","text":"four"},{"type":"image_url","image_url":{"url":"data:"}}]}]}`:            {PromptBytes: 4},
		`{"input":["a","bc",[1,2]],"functions":[{"name":"f"}],"joulemux":{"class":"background","deadline_ms":5,"target":"cpu"}}`: {PromptBytes: 11, Tools: true, Annotations: job.Annotations{Class: job.Background, Deadline: 5 * time.Millisecond, Target: "cpu"}},
	} {
		j, _, err := httpapi.OpenAIJob(job.Chat, "/v1/chat/completions", []byte(body))
		j.Original, want.Kind = nil, job.Chat
		if err != nil || !reflect.DeepEqual(j, want) {
			t.Errorf("%s is %+v, %v", body, j, err)
		}
	}
	long := strings.Repeat("x", 2*job.LeastFingerprint)
	ours, _, _ := httpapi.OpenAIJob(job.Chat, "", []byte(`{"messages":[{"role":"user","content":[{"type":"text","text":"`+long+`"}]}]}`))
	theirs, _, _ := httpapi.OllamaJob(job.Chat, "", []byte(`{"messages":[{"role":"user","content":"`+long+`"}]}`))
	if ours.Prompt == nil || !reflect.DeepEqual(ours.Prompt, theirs.Prompt) {
		t.Errorf("the same prompt is %v in one dialect and %v in the other", ours.Prompt, theirs.Prompt)
	}
}

func FuzzOpenAIRequest(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","prompt":"p"}`, `{"joulemux":{"target":"one"},"model":"m","input":["a",1,[2]]}`, `{"a":1,"joulemux":{}}`,
		`{"\u006aoulemux":{},"b":"joulemux"}`, `null`, `[]`, "", "{", `{"max_tokens":-1,"stream":true}`,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url"}]}],"tools":[{}]}`, `{"messages":[{"content":{}}]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if !utf8.ValidString(body) {
			return // no such body is read
		}
		j, _, err := httpapi.OpenAIJob(job.Chat, "/v1/chat/completions", []byte(body))
		if takenWhole(t, body, j, err) && (j.MaxTokens < 0 || j.PromptBytes < 0 || j.PromptBytes > 4*len(body)) {
			t.Errorf("%q: %d tokens, %d bytes", body, j.MaxTokens, j.PromptBytes)
		}
	})
}
