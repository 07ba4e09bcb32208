package dialect_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/packaging/rig/rigtest"
)

func fetch(t *testing.T, method, url string, body []byte) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %s, %v", method, url, resp.Status, answer, err)
	}
	return answer
}

// fields lists the members of a JSON object by their paths, and those that differ
// from answer to answer without their values. Where nothing is told, it may be
// left out.
func fields(t *testing.T, object []byte) map[string]string {
	t.Helper()
	var v any
	if err := json.Unmarshal(object, &v); err != nil {
		t.Fatalf("%v: %s", err, object)
	}
	list := make(map[string]string)
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, inner := range v {
				walk(path+"."+name, inner)
			}
		case []any:
			for i, inner := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), inner)
			}
		default:
			list[path] = fmt.Sprint(v)
		}
	}
	walk("", v)
	for _, differs := range []string{".id", ".created", ".created_at"} {
		if list[differs] != "" {
			list[differs] = "there"
		}
	}
	for name := range list {
		if strings.HasSuffix(name, "_duration") || strings.HasPrefix(name, ".context[") {
			delete(list, name) // the one is not told in OpenAI's dialect, and the other means nothing there
		}
	}
	return list
}

// sampled makes the tiny model say the same each time.
const sampled = `"options":{"seed":7,"temperature":0,"top_p":1,"num_predict":12}`

func TestRealAnswersOfBothDialects(t *testing.T) {
	url := rigtest.Ollama(t).URL() // which speaks both dialects
	t.Run("Ollama's are what OpenAI's become", func(t *testing.T) { compareOllamas(t, url) })
	t.Run("OpenAI's are what Ollama's become", func(t *testing.T) { compareOpenAIs(t, url) })
	giveTools(t, url)
	t.Run("Messages are what chats become", func(t *testing.T) { compareMessages(t, url) })
	t.Run("Responses are what chats become", func(t *testing.T) { compareResponses(t, url) })
}

func compareOllamas(t *testing.T, url string) {
	t.Helper()
	var version struct{ Version string }
	if err := json.Unmarshal(fetch(t, "GET", url+"/api/version", nil), &version); err != nil || version.Version != dialect.OllamaVersion {
		t.Errorf("Ollama is %s, and what is translated is of %s", version.Version, dialect.OllamaVersion)
	}
	for _, c := range []struct {
		name, path, body string
		kind             job.Kind
	}{
		{"a chat", "/api/chat", `{"model":"tiny","messages":[{"role":"system","content":"a"},{"role":"user","content":"b c"}],` + sampled + `}`, job.Chat},
		{"a chat with probabilities", "/api/chat", `{"model":"tiny","messages":[{"role":"user","content":"b c"}],"logprobs":true,"top_logprobs":2,` + sampled + `}`, job.Chat},
		{"a prompt", "/api/generate", `{"model":"tiny","system":"a","prompt":"b c",` + sampled + `}`, job.Generate},
		{"a prompt that asks for JSON", "/api/generate", `{"model":"tiny","prompt":"b c","format":"json",` + sampled + `}`, job.Generate},
		{"texts", "/api/embed", `{"model":"tiny","input":["a b","c"]}`, job.Embed},
	} {
		t.Run(c.name, func(t *testing.T) {
			whole := strings.Replace(c.body, "{", `{"stream":false,`, 1)
			if c.kind == job.Embed {
				whole = c.body
			}
			r, err := dialect.ToOpenAI(c.kind, c.path, []byte(whole), "tiny", plain())
			if err != nil || len(r.Warnings) > 0 {
				t.Fatal(r.Warnings, err)
			}
			theirs := fetch(t, "POST", url+"/v1"+r.Path, r.Body)
			direct := fetch(t, "POST", url+c.path, []byte(whole))
			if c.kind == job.Embed {
				ours, _, _, err := dialect.Vectors(theirs, r.Shape, noon(), noon())
				alike(t, direct, ours, err)
				return
			}
			ours, _, _, err := dialect.Whole(theirs, r.Shape, noon(), noon())
			alike(t, direct, ours, err)
			r, err = dialect.ToOpenAI(c.kind, c.path, []byte(c.body), "tiny", plain())
			if err != nil {
				t.Fatal(err)
			}
			back := streamBack(t, fetch(t, "POST", url+"/v1"+r.Path, r.Body), r.Shape)
			want := hear(t, c.kind, fetch(t, "POST", url+c.path, []byte(c.body)))
			if got := hear(t, c.kind, back); !reflect.DeepEqual(got, want) {
				t.Errorf("the stream is\n%+v, and was\n%+v", got, want)
			}
		})
	}
}

// alike holds that two answers have the same members, with the same values.
func alike(t *testing.T, want, got []byte, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if w, g := fields(t, want), fields(t, got); !reflect.DeepEqual(w, g) {
		t.Errorf("the answer is\n%v, and was\n%v", g, w)
	}
}

// streamBack turns a real stream of OpenAI's dialect into Ollama's.
func streamBack(t *testing.T, sse []byte, s dialect.Shape) (back []byte) {
	t.Helper()
	l := dialect.NewLines(s, noon())
	var events dialect.Events
	for line := range bytes.Lines(sse) {
		if data, ok := events.Line(line); ok {
			out, _, err := l.Event(data, noon())
			if err != nil {
				t.Fatal(err)
			}
			back = append(back, out...)
		}
	}
	rest, last, _, err := l.End(noon().Add(time.Second))
	if err != nil || !l.Ended() {
		t.Fatal("the stream has no end: ", err)
	}
	return append(append(back, rest...), last...)
}

func compareOpenAIs(t *testing.T, url string) {
	t.Helper()
	const sampled = `"seed":7,"temperature":0,"max_tokens":12`
	for _, c := range []struct{ name, path, body string }{
		{"a chat", "/v1/chat/completions", `{"model":"tiny","messages":[{"role":"system","content":"a"},{"role":"user","content":"b c"}],` + sampled + `}`},
		{"a chat with probabilities", "/v1/chat/completions", `{"model":"tiny","messages":[{"role":"user","content":"b c"}],"logprobs":true,"top_logprobs":2,` + sampled + `}`},
		{"a completion", "/v1/completions", `{"model":"tiny","prompt":"b c",` + sampled + `}`},
		{"texts", "/v1/embeddings", `{"model":"tiny","input":["a b","c"]}`},
		{"texts, packed", "/v1/embeddings", `{"model":"tiny","input":"a b","encoding_format":"base64"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := dialect.ToOllama(c.path, []byte(c.body), "tiny")
			if err != nil || len(r.Warnings) > 0 {
				t.Fatal(r.Warnings, err)
			}
			theirs := fetch(t, "POST", url+r.Path, r.Body)
			direct := fetch(t, "POST", url+c.path, []byte(c.body))
			if r.Shape.Kind == job.Embed {
				ours, err := dialect.VectorList(theirs, r.Shape)
				alike(t, direct, ours, err)
				return
			}
			ours, err := dialect.WholeChunk(theirs, r.Shape, "1", noon())
			alike(t, direct, ours, err)
			streamed := []byte(strings.Replace(c.body, "{", `{"stream":true,"stream_options":{"include_usage":true},`, 1))
			if r, err = dialect.ToOllama(c.path, streamed, "tiny"); err != nil {
				t.Fatal(err)
			}
			chunks := dialect.NewChunks(r.Shape, "1", noon())
			var events []byte
			for line := range bytes.Lines(fetch(t, "POST", url+r.Path, r.Body)) {
				out, _, err := chunks.Line(line)
				if err != nil {
					t.Fatal(err)
				}
				events = append(events, out...)
			}
			got := hear(t, r.Shape.Kind, streamBack(t, events, r.Shape))
			want := hear(t, r.Shape.Kind, streamBack(t, fetch(t, "POST", url+c.path, streamed), r.Shape))
			if !reflect.DeepEqual(got, want) {
				t.Errorf("the stream is\n%+v, and was\n%+v", got, want)
			}
		})
	}
}

// giveTools makes of the tiny model one that can be offered tools. What it answers
// is noise, so it calls one only if a form leaves it nothing else to say.
func giveTools(t *testing.T, url string) {
	t.Helper()
	const template = "{{ if .System }}{{ .System }} {{ end }}{{ range .Tools }}{{ . }}{{ end }}{{ range .Messages }}{{ .Content }}" +
		"{{ range .ToolCalls }}{{ .Function.Name }}{{ .Function.Arguments }}{{ end }}{{ end }}"
	recipe, _ := json.Marshal(map[string]any{"model": "handy", "from": "tiny", "template": template, "stream": false})
	fetch(t, "POST", url+"/api/create", recipe)
}

// inForm asks for what is, in Ollama's dialect, a call of the tool f.
const inForm = `{"type":"object","properties":{"name":{"enum":["f"]},"parameters":{"type":"object","properties":{"x":{"enum":["y"]}},"required":["x"]}},"required":["name","parameters"]}`

// streamIn turns a real stream of chats into another form.
func streamIn(t *testing.T, sse []byte, s dialect.Shape) []byte {
	t.Helper()
	var events dialect.Events
	var list [][]byte
	for line := range bytes.Lines(sse) {
		if data, ok := events.Line(line); ok {
			list = append(list, bytes.Clone(data))
		}
	}
	return become(t, s, list)
}

// told lists what two answers have in common, if they are as they should be. What
// is not there and what is null are the same.
func told(t *testing.T, object []byte) map[string]string {
	t.Helper()
	list := fields(t, object)
	for name, value := range list {
		switch {
		case value == "<nil>":
			delete(list, name)
		case strings.HasSuffix(name, ".id") || strings.HasSuffix(name, ".call_id") || name == ".completed_at":
			list[name] = "there"
		}
	}
	return list
}

func compareMessages(t *testing.T, url string) {
	t.Helper()
	const limits = `"temperature":0,"top_p":1,"max_tokens":12,`
	for _, c := range []struct{ name, body string }{
		{"a question", `{"model":"tiny",` + limits + `"messages":[{"role":"user","content":"b c"}]}`},
		{"a conversation", `{"model":"tiny",` + limits + `"system":"a","stop_sequences":["zzzz"],"messages":[{"role":"user","content":[{"type":"text","text":"b"}]},{"role":"assistant","content":"c"},{"role":"user","content":"d"}]}`},
		{"tools, and what came of them", `{"model":"handy",` + limits + `"tools":[{"name":"f","description":"does","input_schema":{"type":"object","properties":{"x":{"type":"string"}}}}],"messages":[{"role":"user","content":"b"},
			{"role":"assistant","content":[{"type":"text","text":"c"},{"type":"tool_use","id":"a","name":"f","input":{"x":"y"}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"d"}]}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := dialect.FromMessages([]byte(c.body), modelIn(t, c.body), "1", dialect.Server{Stops: true})
			if err != nil || len(r.Warnings) > 0 {
				t.Fatal(r.Warnings, err)
			}
			ours, _, _, err := dialect.Whole(fetch(t, "POST", url+"/v1"+r.Path, r.Body), r.Shape, noon(), noon())
			if err != nil {
				t.Fatal(err)
			}
			if want, got := told(t, fetch(t, "POST", url+"/v1/messages", []byte(c.body))), told(t, ours); !reflect.DeepEqual(got, want) {
				t.Errorf("the answer is\n%v, and was\n%v", got, want)
			}
			streamed := []byte(strings.Replace(c.body, "{", `{"stream":true,`, 1))
			if r, err = dialect.FromMessages(streamed, modelIn(t, c.body), "1", plain()); err != nil {
				t.Fatal(err)
			}
			got := hearMessage(t, streamIn(t, fetch(t, "POST", url+"/v1"+r.Path, r.Body), r.Shape))
			if want := hearMessage(t, fetch(t, "POST", url+"/v1/messages", streamed)); !reflect.DeepEqual(got, want) {
				t.Errorf("the stream is\n%+v, and was\n%+v", got, want)
			}
		})
	}
}

func modelIn(t *testing.T, body string) string {
	t.Helper()
	var q struct{ Model string }
	if err := json.Unmarshal([]byte(body), &q); err != nil {
		t.Fatal(err)
	}
	return q.Model
}

func compareResponses(t *testing.T, url string) {
	t.Helper()
	const limits = `"temperature":0,"top_p":1,"max_output_tokens":12,`
	const tools = `"tools":[{"type":"function","name":"f","description":"does","strict":null,"parameters":{"type":"object","properties":{"x":{"type":"string"}}}}],`
	for _, c := range []struct{ name, body string }{
		{"a question", `{"model":"tiny",` + limits + `"input":"b c","instructions":"a"}`},
		{"a conversation", `{"model":"tiny",` + limits + `"input":[{"role":"user","content":[{"type":"input_text","text":"b"}]},{"type":"message","role":"assistant","content":[{"type":"output_text","text":"c"}]},{"role":"user","content":"d"}]}`},
		{"what came of a tool", `{"model":"handy",` + limits + tools + `"input":[{"role":"user","content":"b"},{"type":"function_call","call_id":"a","name":"f","arguments":"{\"x\":\"y\"}"},{"type":"function_call_output","call_id":"a","output":"d"}]}`},
		{"a call", `{"model":"handy","temperature":0,"top_p":1,` + tools + `"input":"b","text":{"format":{"type":"json_schema","name":"n","strict":true,"schema":` + inForm + `}}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := dialect.FromResponses([]byte(c.body), modelIn(t, c.body), "1", plain())
			if err != nil || len(r.Warnings) > 0 {
				t.Fatal(r.Warnings, err)
			}
			ours, _, _, err := dialect.Whole(fetch(t, "POST", url+"/v1"+r.Path, r.Body), r.Shape, noon(), noon())
			if err != nil {
				t.Fatal(err)
			}
			want, got := told(t, fetch(t, "POST", url+"/v1/responses", []byte(c.body))), told(t, ours)
			cutOff(t, got)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("the answer is\n%v, and was\n%v", got, want)
			}
			if called := want[".output[0].type"] == "function_call"; called != (c.name == "a call") {
				t.Errorf("it is %v", want)
			}
			streamed := []byte(strings.Replace(c.body, "{", `{"stream":true,`, 1))
			if r, err = dialect.FromResponses(streamed, modelIn(t, c.body), "1", plain()); err != nil {
				t.Fatal(err)
			}
			heard := hearResponse(t, streamIn(t, fetch(t, "POST", url+"/v1"+r.Path, r.Body), r.Shape))
			direct := hearResponse(t, fetch(t, "POST", url+"/v1/responses", streamed))
			heard.reason = strings.Replace(heard.reason, "incomplete max_output_tokens", "completed", 1)
			for _, s := range []*said{&heard, &direct} {
				for i, call := range s.calls {
					_, s.calls[i], _ = strings.Cut(call, " ") // whose ids differ
				}
			}
			if !reflect.DeepEqual(heard, direct) {
				t.Errorf("the stream is\n%+v, and was\n%+v", heard, direct)
			}
		})
	}
}

// cutOff takes out that an answer is incomplete which its limit ended. Ollama says
// that it is complete; OpenAI does not.
func cutOff(t *testing.T, got map[string]string) {
	t.Helper()
	if got[".usage.output_tokens"] == "12" {
		if got[".status"] != "incomplete" || got[".incomplete_details.reason"] != "max_output_tokens" {
			t.Errorf("it is cut off, and says %v", got)
		}
		delete(got, ".incomplete_details.reason")
		got[".status"] = "completed"
	}
}
