package dialect_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
)

// event is an event with a name.
type event struct {
	name string
	data map[string]any
}

// eventsIn reads events with names, each of which says its name twice.
func eventsIn(t testing.TB, stream []byte) (list []event) {
	t.Helper()
	for text := range strings.SplitSeq(strings.TrimSuffix(string(stream), "\n\n"), "\n\n") {
		if text == "" {
			continue
		}
		name, data, ok := strings.Cut(text, "\ndata: ")
		e := event{name: strings.TrimPrefix(name, "event: ")}
		if err := json.Unmarshal([]byte(data), &e.data); !ok || err != nil || e.data["type"] != e.name {
			t.Fatalf("no event: %q, %v", text, err)
		}
		list = append(list, e)
	}
	return list
}

// number returns a number in JSON.
func number(v any) int { f, _ := v.(float64); return int(f) }

// hearMessage reads a message as Anthropic's clients do, and holds that its blocks
// follow each other.
func hearMessage(t testing.TB, stream []byte) (s said) {
	t.Helper()
	list := eventsIn(t, stream)
	if len(list) < 3 || list[0].name != "message_start" || list[len(list)-2].name != "message_delta" || list[len(list)-1].name != "message_stop" {
		t.Fatalf("not from beginning to end: %s", stream)
	}
	next, open := 0, map[string]any(nil)
	input := ""
	for _, e := range list[1 : len(list)-2] {
		if number(e.data["index"]) != next || (e.name == "content_block_start") != (open == nil) {
			t.Fatalf("%v is not in order in %s", e, stream)
		}
		switch e.name {
		case "content_block_start":
			open, input = e.data["content_block"].(map[string]any), ""
		case "content_block_delta":
			delta := e.data["delta"].(map[string]any)
			of := map[string]string{"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "tool_use"}[delta["type"].(string)]
			if of != open["type"] {
				t.Fatalf("%v is not of %v", delta, open)
			}
			text, _ := delta["text"].(string)
			thinking, _ := delta["thinking"].(string)
			part, _ := delta["partial_json"].(string)
			s.text, s.thinking, input = s.text+text, s.thinking+thinking, input+part
		case "content_block_stop":
			if open["type"] == "tool_use" {
				s.calls = append(s.calls, fmt.Sprint(open["id"], " ", open["name"], " ", compact(t, input)))
			}
			open = nil
			next++
		default:
			t.Fatalf("what is %v?", e)
		}
	}
	if open != nil {
		t.Fatalf("a block has no end in %s", stream)
	}
	last := list[len(list)-2].data
	s.reason = fmt.Sprint(last["delta"].(map[string]any)["stop_reason"])
	if sequence := last["delta"].(map[string]any)["stop_sequence"]; sequence != nil {
		s.reason += fmt.Sprint(" ", sequence)
	}
	usage := last["usage"].(map[string]any)
	s.read, s.written = number(usage["input_tokens"]), number(usage["output_tokens"])
	return s
}

func compact(t testing.TB, text string) string {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	b, _ := json.Marshal(v)
	return string(b)
}

// ofMessage reads an undivided message.
func ofMessage(t testing.TB, body []byte) (s said) {
	t.Helper()
	var m struct {
		Content []struct {
			Type, Text, Thinking, ID, Name string
			Input                          json.RawMessage
		}
		Reason   string  `json:"stop_reason"`
		Sequence *string `json:"stop_sequence"`
		Usage    struct {
			Input  int `json:"input_tokens"`
			Output int `json:"output_tokens"`
		}
	}
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	for _, b := range m.Content {
		s.text, s.thinking = s.text+b.Text, s.thinking+b.Thinking
		if b.Type == "tool_use" {
			s.calls = append(s.calls, b.ID+" "+b.Name+" "+compact(t, string(b.Input)))
		}
	}
	if s.reason = m.Reason; m.Sequence != nil {
		s.reason += " " + *m.Sequence
	}
	s.read, s.written = m.Usage.Input, m.Usage.Output
	return s
}

// hearResponse reads a stream of OpenAI's Responses as its clients do, and holds
// that it is numbered and that its parts, items and end say the same.
func hearResponse(t testing.TB, stream []byte) (s said) {
	t.Helper()
	list := eventsIn(t, stream)
	if len(list) < 3 || list[0].name != "response.created" || list[1].name != "response.in_progress" {
		t.Fatalf("not from the beginning: %s", stream)
	}
	told := make(map[string]string)
	var done []any
	for i, e := range list {
		if number(e.data["sequence_number"]) != i {
			t.Fatalf("%v is event %d", e, i)
		}
		id, _ := e.data["item_id"].(string)
		switch e.name {
		case "response.output_text.delta", "response.reasoning_summary_text.delta", "response.function_call_arguments.delta":
			told[id] += e.data["delta"].(string)
		case "response.output_text.done", "response.reasoning_summary_text.done":
			if e.data["text"] != told[id] {
				t.Fatalf("%v, and told was %q", e, told[id])
			}
		case "response.function_call_arguments.done":
			if e.data["arguments"] != told[id] {
				t.Fatalf("%v, and told was %q", e, told[id])
			}
		case "response.output_item.added", "response.output_item.done":
			if number(e.data["output_index"]) != len(done) {
				t.Fatalf("%v is item %d", e, len(done))
			}
			if e.name == "response.output_item.done" {
				done = append(done, e.data["item"])
			}
		}
	}
	last := list[len(list)-1]
	whole, _ := json.Marshal(last.data["response"])
	if output := last.data["response"].(map[string]any)["output"].([]any); len(output)+len(done) > 0 && !reflect.DeepEqual(output, done) {
		t.Fatalf("the items were\n%v and are\n%v", done, output)
	}
	s = ofResponse(t, whole)
	if last.name != "response."+s.reason && !strings.HasPrefix(s.reason, "incomplete ") {
		t.Fatalf("it is %s by %s", s.reason, last.name)
	}
	return s
}

// ofResponse reads an undivided answer of OpenAI's Responses.
func ofResponse(t testing.TB, body []byte) (s said) {
	t.Helper()
	var r struct {
		Status     string
		Incomplete *struct{ Reason string } `json:"incomplete_details"`
		Output     []struct {
			Type, Name, Arguments string
			CallID                string `json:"call_id"`
			Content, Summary      []struct{ Text string }
		}
		Usage struct {
			Input  int `json:"input_tokens"`
			Output int `json:"output_tokens"`
		}
	}
	if err := json.Unmarshal(body, &r); err != nil {
		t.Fatal(err)
	}
	for _, item := range r.Output {
		for _, c := range item.Content {
			s.text += c.Text
		}
		for _, c := range item.Summary {
			s.thinking += c.Text
		}
		if item.Type == "function_call" {
			s.calls = append(s.calls, item.CallID+" "+item.Name+" "+compact(t, item.Arguments))
		}
	}
	if s.reason = r.Status; r.Incomplete != nil {
		s.reason += " " + r.Incomplete.Reason
	}
	s.read, s.written = r.Usage.Input, r.Usage.Output
	return s
}

// anyChat returns a stream of OpenAI's as it might be, with calls that come in
// parts and beside each other, and what it says.
func anyChat(r *rand.Rand) (events [][]byte, s said) {
	words := []string{"a", " b", "\n\n", "data: [DONE]", `"type":"error"`, "<é🌍>", "\u2028", "{}"}
	put := func(v any) {
		data, _ := json.Marshal(v)
		events = append(events, data)
	}
	delta := func(d map[string]any) {
		put(map[string]any{"choices": []any{map[string]any{"index": 0, "delta": d, "finish_reason": nil}}})
	}
	delta(map[string]any{"role": "assistant", "content": nil})
	rests := make([]string, r.IntN(4))
	for i := range rests {
		args, _ := json.Marshal(map[string]string{words[r.IntN(len(words))]: words[r.IntN(len(words))]})
		if rests[i] = string(args); r.IntN(4) == 0 {
			rests[i] = ""
		}
		s.calls = append(s.calls, fmt.Sprintf("id%d f%d %s", i, i, orEmpty(rests[i])))
	}
	part := func(i int, call map[string]any) {
		call["index"] = i
		delta(map[string]any{"tool_calls": []any{call}})
	}
	named := 0
	for range r.IntN(30) {
		switch word := words[r.IntN(len(words))]; r.IntN(5) {
		case 0:
			delta(map[string]any{"reasoning_content": word})
			s.thinking += word
		case 1, 2:
			delta(map[string]any{"content": word})
			s.text += word
		default:
			if named < len(rests) && r.IntN(2) == 0 {
				part(named, map[string]any{"id": fmt.Sprintf("id%d", named), "type": "function", "function": map[string]any{"name": fmt.Sprintf("f%d", named), "arguments": ""}})
				named++
			} else if named > 0 {
				i := r.IntN(named)
				n := min(len(rests[i]), 1+r.IntN(5))
				if head, rest := rests[i][:n], rests[i][n:]; json.Valid([]byte(`"`+strings.ReplaceAll(strings.ReplaceAll(head, `\`, `\\`), `"`, `\"`)+`"`)) && strings.ToValidUTF8(head, "") == head {
					part(i, map[string]any{"function": map[string]any{"arguments": head}})
					rests[i] = rest
				}
			}
		}
	}
	for i, rest := range rests {
		call := map[string]any{"function": map[string]any{"arguments": rest}}
		if i >= named {
			call = map[string]any{"id": fmt.Sprintf("id%d", i), "type": "function", "function": map[string]any{"name": fmt.Sprintf("f%d", i), "arguments": rest}}
		}
		part(i, call)
	}
	s.reason = []string{"stop", "length"}[r.IntN(2)]
	finish := s.reason
	if finish == "stop" && len(rests) > 0 {
		finish = "tool_calls"
	}
	put(map[string]any{"choices": []any{map[string]any{"index": 0, "delta": map[string]any{}, "finish_reason": finish}}})
	s.read, s.written = r.IntN(100), r.IntN(100)
	put(map[string]any{"choices": []any{}, "usage": map[string]int{"prompt_tokens": s.read, "completion_tokens": s.written}})
	return append(events, []byte(dialect.Done)), s
}

func orEmpty(args string) string {
	if args == "" {
		return "{}"
	}
	return args
}

// become turns a stream of OpenAI's into another form.
func become(t testing.TB, shape dialect.Shape, events [][]byte) []byte {
	t.Helper()
	stream := dialect.NewStream(shape, noon())
	var out []byte
	for _, data := range events {
		more, _, err := stream.Event(data, noon())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, more...)
	}
	rest, last, u, err := stream.End(noon())
	if err != nil || !stream.Ended() || !stream.Complete() {
		t.Fatal("it has no end: ", err)
	}
	if strings.Count(string(last), "event: ") > 3 || u.Tokens < 0 {
		t.Fatalf("the end is %s", last)
	}
	return slices.Concat(out, rest, last)
}

func TestAnyStreamSaysTheSameInAnyForm(t *testing.T) {
	for seed := range uint64(2000) {
		events, want := anyChat(rand.New(rand.NewPCG(seed, 2)))
		message, response := want, want
		switch {
		case want.reason == "length":
			message.reason, response.reason = "max_tokens", "incomplete max_output_tokens"
		case len(want.calls) > 0:
			message.reason, response.reason = "tool_use", "completed"
		default:
			message.reason, response.reason = "end_turn", "completed"
		}
		shape := dialect.Shape{Kind: job.Chat, Form: dialect.MessageForm, ID: "1", Model: "m"}
		if got := hearMessage(t, become(t, shape, events)); !reflect.DeepEqual(got, message) {
			t.Fatalf("seed %d: the message is\n%+v, want\n%+v\n%s", seed, got, message, events)
		}
		shape.Form = dialect.ResponsesForm
		if got := hearResponse(t, become(t, shape, events)); !reflect.DeepEqual(got, response) {
			t.Fatalf("seed %d: the response is\n%+v, want\n%+v\n%s", seed, got, response, events)
		}
	}
}

// TestTheFirstCallIsToldAsItComes: its arguments may be a whole file.
func TestTheFirstCallIsToldAsItComes(t *testing.T) {
	stream := dialect.NewStream(dialect.Shape{Kind: job.Chat, Form: dialect.MessageForm, ID: "1"}, noon())
	for _, c := range []struct{ data, want string }{
		{`{"choices":[{"index":0,"delta":{"role":"assistant","content":null}}]}`, ""},
		{`{"choices":[{"index":0,"delta":{"content":"hm"}}]}`, "message_start content_block_start content_block_delta"},
		{`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}}]}`, ""},
		{`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":" {"}}]}}]}`, "content_block_stop content_block_start content_block_delta"},
		{`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"x\":1"}}]}}]}`, "content_block_delta"},
		{`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"g","arguments":"{}"}}]}}]}`, ""},
		{`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}}]}`, "content_block_delta"},
		{`{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}`, ""},
	} {
		out, _, err := stream.Event([]byte(c.data), noon())
		var names []string
		for _, e := range eventsIn(t, out) {
			names = append(names, e.name)
		}
		if got := strings.Join(names, " "); err != nil || got != c.want {
			t.Errorf("%s becomes %q, %v; want %q", c.data, got, err, c.want)
		}
	}
	if rest, _, _, err := stream.End(noon()); err != nil || len(eventsIn(t, rest)) != 4 {
		t.Errorf("the rest is %s, %v", rest, err)
	}
}

func TestStreamsThatCannotBeTold(t *testing.T) {
	for name, events := range map[string][]string{
		"arguments that are no object":  {`{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{\"x\":"}}]}}]}`},
		"arguments that are something":  {`{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"7"}}]}}]}`},
		"a name that comes too late":    {`{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}}]}`, `{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"g"}}]}}]}`},
		"an error of the server's":      {`{"error":{"message":"boom"}}`},
		"several answers, not just one": {`{"choices":[{"index":1,"delta":{"content":"x"}}]}`},
	} {
		for _, form := range []dialect.Form{dialect.MessageForm, dialect.ResponsesForm} {
			stream := dialect.NewStream(dialect.Shape{Kind: job.Chat, Form: form}, noon())
			var failed error
			for _, data := range events {
				_, _, err := stream.Event([]byte(data), noon())
				failed = errors.Join(failed, err)
			}
			if _, _, _, err := stream.End(noon()); errors.Join(failed, err) == nil {
				t.Errorf("%s: there is no error", name)
			}
		}
	}
}

func TestUndividedAnswersInAnyForm(t *testing.T) {
	const answer = `{"choices":[{"index":0,"message":{"role":"assistant","content":"so","reasoning_content":"hm","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}`
	const stopped = `{"choices":[{"index":0,"message":{"content":"so"},"finish_reason":"stop","stop_reason":"END"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}`
	want := said{text: "so", thinking: "hm", calls: []string{`a f {"x":1}`}, reason: "tool_use", read: 3, written: 4}
	shape := dialect.Shape{Kind: job.Chat, Form: dialect.MessageForm, ID: "1", Model: "m"}
	body, text, u, err := dialect.Whole([]byte(answer), shape, noon(), noon())
	if got := ofMessage(t, body); err != nil || !reflect.DeepEqual(got, want) || text != "so" || u.Tokens != 4 {
		t.Errorf("%s is %+v, %v", body, got, err)
	}
	if body, _, _, err = dialect.Whole([]byte(stopped), shape, noon(), noon()); err != nil || ofMessage(t, body).reason != "stop_sequence END" {
		t.Errorf("%s, %v", body, err)
	}
	shape.Form, want.reason = dialect.ResponsesForm, "completed"
	body, _, _, err = dialect.Whole([]byte(answer), shape, noon(), noon())
	if got := ofResponse(t, body); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s is %+v, %v", body, got, err)
	}
}

func TestMessagesInChatsWords(t *testing.T) {
	const asked = `"stream":true,"stream_options":{"include_usage":true}`
	for _, c := range []struct {
		name, body, want string
		server           dialect.Server
		warnings         string
	}{
		{
			"a question", `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`,
			`{"model":"theirs","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`, plain(), "",
		},
		{
			"a conversation with a system prompt in blocks",
			`{"model":"m","max_tokens":9,"stream":true,"temperature":0.5,"top_p":0.9,"top_k":3,"stop_sequences":["END"],"system":[{"type":"text","text":"be","cache_control":{"type":"ephemeral"}},{"type":"text","text":"brief"}],
				"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"x"},{"type":"text","text":"c"}]},{"role":"user","content":"d"}]}`,
			`{"model":"theirs","max_tokens":9,` + asked + `,"temperature":0.5,"top_p":0.9,"top_k":3,"stop":["END"],"messages":[{"role":"system","content":"be\nbrief"},{"role":"user","content":"a\nb"},
				{"role":"assistant","content":"c","reasoning_content":"hm"},{"role":"user","content":"d"}]}`, llama(),
			"stop_sequences: that one has ended an answer is not told there\ncache_control: what is kept of a prompt is the server's own choice",
		},
		{
			"an image, and a document that is text",
			`{"max_tokens":1,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"` + png + `"}},{"type":"document","source":{"type":"text","media_type":"text/plain","data":"long"}}]}]}`,
			`{"model":"theirs","max_tokens":1,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + png + `"}},{"type":"text","text":"long"}]}]}`, plain(), "",
		},
		{
			"tools, their calls and results",
			`{"max_tokens":1,"tools":[{"name":"f","description":"does","input_schema":{"type":"object"}}],"tool_choice":{"type":"any","disable_parallel_tool_use":true},"messages":[
				{"role":"user","content":"go"},
				{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{"x":1}},{"type":"tool_use","id":"b","name":"f","input":{}}]},
				{"role":"user","content":[{"type":"tool_result","tool_use_id":"b","content":"B"},{"type":"tool_result","tool_use_id":"a","is_error":true,"content":[{"type":"text","text":"A"}]},{"type":"text","text":"and?"}]}]}`,
			`{"model":"theirs","max_tokens":1,"tool_choice":"required","parallel_tool_calls":false,"tools":[{"type":"function","function":{"name":"f","description":"does","parameters":{"type":"object"}}}],"messages":[
				{"role":"user","content":"go"},
				{"role":"assistant","content":"","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},{"id":"b","type":"function","function":{"name":"f","arguments":"{}"}}]},
				{"role":"tool","tool_call_id":"b","content":"B"},{"role":"tool","tool_call_id":"a","content":"A"},{"role":"user","content":"and?"}]}`, plain(),
			"messages[2].content[1].is_error has no place there",
		},
		{
			"what blocks and tools say beyond that",
			`{"max_tokens":1,"tools":[{"name":"f","input_schema":{"type":"object"},"input_examples":[{}]}],"messages":[
				{"role":"user","content":[{"type":"document","title":"T","context":"C","citations":{"enabled":true},"source":{"type":"text","data":"long"}}]},
				{"role":"assistant","content":[{"type":"text","text":"a","citations":null}]},{"role":"user","content":"b"}]}`,
			`{"model":"theirs","max_tokens":1,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"messages":[
				{"role":"user","content":"long"},{"role":"assistant","content":"a"},{"role":"user","content":"b"}]}`, plain(),
			"citations of a block has no place there\ncontext of a block has no place there\ntitle of a block has no place there\ninput_examples of a tool has no name there",
		},
		{
			"one tool", `{"max_tokens":1,"tool_choice":{"type":"tool","name":"f"},"messages":[{"role":"user","content":"x"}]}`,
			`{"model":"theirs","max_tokens":1,"tool_choice":{"type":"function","function":{"name":"f"}},"messages":[{"role":"user","content":"x"}]}`, plain(), "",
		},
		{
			"thinking, by template", `{"max_tokens":1,"thinking":{"type":"enabled","budget_tokens":1024},"messages":[{"role":"user","content":"x"}]}`,
			`{"model":"theirs","max_tokens":1,"chat_template_kwargs":{"enable_thinking":true},"messages":[{"role":"user","content":"x"}]}`, llama(),
			"thinking.budget_tokens: how much is thought is the model's own choice there",
		},
		{
			"no thinking, by template", `{"max_tokens":1,"thinking":{"type":"disabled"},"messages":[{"role":"user","content":"x"}]}`,
			`{"model":"theirs","max_tokens":1,"chat_template_kwargs":{"enable_thinking":false},"messages":[{"role":"user","content":"x"}]}`, llama(), "",
		},
		{
			"thinking, by effort, and a form", `{"max_tokens":1,"thinking":{"type":"adaptive"},"output_config":{"effort":"max","format":{"type":"json_schema","schema":{"type":"object"}}},"metadata":{"user_id":"u"},"messages":[{"role":"user","content":"x"}]}`,
			`{"model":"theirs","max_tokens":1,"reasoning_effort":"high","response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":true,"schema":{"type":"object"}}},"messages":[{"role":"user","content":"x"}]}`, plain(),
			"metadata has no name there\noutput_config.effort: \"max\" is \"high\" there",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := dialect.FromMessages([]byte(c.body), "theirs", "1", c.server)
			if err != nil {
				t.Fatal(err)
			}
			if r.Path != "/chat/completions" || !same(t, r.Body, c.want) {
				t.Errorf("it is %s %s\nwant %s", r.Path, r.Body, c.want)
			}
			if got := strings.Join(r.Warnings, "\n"); got != c.warnings {
				t.Errorf("it warns of %q, want %q", got, c.warnings)
			}
		})
	}
}

func TestMessagesThatChatsHaveNoWordsFor(t *testing.T) {
	const user = `"max_tokens":1,"messages":[{"role":"user","content":"x"}]`
	content := func(role, block string) string {
		return `{"max_tokens":1,"messages":[{"role":"` + role + `","content":[` + block + `]},{"role":"user","content":"x"}]}`
	}
	for _, c := range []struct {
		body, field string
		code        job.Code
	}{
		{`{"messages":[{"role":"user","content":"x"}]}`, "max_tokens", job.Invalid},
		{`{"max_tokens":0,"messages":[{"role":"user","content":"x"}]}`, "max_tokens", job.Invalid},
		{`{"max_tokens":1,"messages":[]}`, "messages", job.Invalid},
		{`{"max_tokens":1,"messages":[{"role":"user"}]}`, "messages[0].content", job.Invalid},
		{`{"max_tokens":1,"messages":[{"role":"user","content":7}]}`, "messages[0].content", job.Invalid},
		{`{"max_tokens":1,"messages":[{"role":"wizard","content":"x"}]}`, "messages[0].role", job.Invalid},
		{`{"max_tokens":1,"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"so it"}]}`, "messages[1]", job.Unsupported},
		{`{` + user + `,"system":[{"type":"image"}]}`, "system[0]", job.Unsupported},
		{`{` + user + `,"mcp_servers":[{"url":"x"}]}`, "mcp_servers", job.Unsupported},
		{`{` + user + `,"container":"x"}`, "container", job.Unsupported},
		{`{` + user + `,"tools":[{"type":"web_search_20250305","name":"web_search"}]}`, "tools[0]", job.Unsupported},
		{`{` + user + `,"tools":[{"name":"f"}]}`, "tools[0]", job.Invalid},
		{`{` + user + `,"tools":[7]}`, "tools[0]", job.Invalid},
		{`{` + user + `,"tool_choice":{"type":"perhaps"}}`, "tool_choice.type", job.Invalid},
		{`{` + user + `,"thinking":{"type":"deep"}}`, "thinking.type", job.Invalid},
		{`{` + user + `,"output_format":{"type":"grammar"}}`, "output_format", job.Unsupported},
		{`{` + user + `,"system":7}`, "system", job.Invalid},
		{`{"max_tokens":"1"}`, "", job.Invalid},
		{content("user", `{"type":"image","source":{"type":"url","url":"https://x/y.png"}}`), "messages[0].content[0]", job.Unsupported},
		{content("user", `{"type":"image","source":{"type":"base64","media_type":"image/png","data":"no base64"}}`), "messages[0].content[0].source", job.Invalid},
		{content("user", `{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":""}}`), "messages[0].content[0]", job.Unsupported},
		{content("user", `{"type":"search_result"}`), "messages[0].content[0]", job.Unsupported},
		{content("user", `{"type":"tool_result","tool_use_id":"a","content":"x"}`), "messages[0].content[0].tool_use_id", job.Invalid},
		{content("assistant", `{"type":"server_tool_use"}`), "messages[0].content[0]", job.Unsupported},
		{content("assistant", `{"type":"tool_use","id":"a","name":"f","input":7}`), "messages[0].content[0]", job.Invalid},
		{`{"max_tokens":1,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":[{"type":"image"}]}]}]}`, "messages[1].content[0].content[0]", job.Unsupported},
	} {
		_, err := dialect.FromMessages([]byte(c.body), "m", "1", llama())
		var e *job.Error
		if !errors.As(err, &e) || e.Code != c.code || e.Field != c.field {
			t.Errorf("%s: %v, want %s: %s", c.body, err, c.code, c.field)
		}
	}
}

func TestResponsesInChatsWords(t *testing.T) {
	for _, c := range []struct {
		name, body, want string
		server           dialect.Server
		warnings         string
	}{
		{
			"a question", `{"model":"m","input":"hi","instructions":"be brief","max_output_tokens":9,"temperature":0,"top_p":0.9,"store":false,"stream":true}`,
			`{"model":"theirs","stream":true,"stream_options":{"include_usage":true},"max_tokens":9,"temperature":0,"top_p":0.9,"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]}`, plain(), "",
		},
		{
			"a conversation with tools, images and thoughts",
			`{"input":[{"role":"developer","content":"be brief"},{"type":"message","role":"user","content":[{"type":"input_text","text":"what?"},{"type":"input_image","image_url":"data:image/png;base64,` + png + `","detail":"low"}]},
				{"type":"reasoning","summary":[],"encrypted_content":"hm"},{"type":"function_call","call_id":"a","name":"f","arguments":"{\"x\":1}"},{"type":"function_call","call_id":"b","name":"g","arguments":"{}"},
				{"type":"function_call_output","call_id":"b","output":[{"type":"input_text","text":"B"}]},{"type":"function_call_output","call_id":"a","output":"A"},
				{"type":"message","role":"assistant","content":[{"type":"output_text","text":"so"},{"type":"refusal","refusal":"not"}]}],
			"tools":[{"type":"function","name":"f","description":null,"parameters":{},"strict":true}],"tool_choice":{"type":"function","name":"f"},"parallel_tool_calls":false,"prompt_cache_key":"k"}`,
			`{"model":"theirs","tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":false,"tools":[{"type":"function","function":{"name":"f","parameters":{},"strict":true}}],"messages":[
				{"role":"system","content":"be brief"},
				{"role":"user","content":[{"type":"text","text":"what?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,` + png + `","detail":"low"}}]},
				{"role":"assistant","content":"","reasoning_content":"hm","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},{"id":"b","type":"function","function":{"name":"g","arguments":"{}"}}]},
				{"role":"tool","tool_call_id":"b","content":"B"},{"role":"tool","tool_call_id":"a","content":"A"},{"role":"assistant","content":"so\nnot"}]}`, llama(), "prompt_cache_key has no name there",
		},
		{
			"a form, and effort", `{"input":"x","text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"},"strict":false},"verbosity":"low"},"reasoning":{"effort":"minimal","summary":"auto"},"truncation":"auto"}`,
			`{"model":"theirs","reasoning_effort":"low","response_format":{"type":"json_schema","json_schema":{"name":"n","strict":false,"schema":{"type":"object"}}},"messages":[{"role":"user","content":"x"}]}`, plain(),
			"text.verbosity has no name there\nreasoning.effort: \"minimal\" is \"low\" there\ntruncation: what does not fit is refused there, and not cut off",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := dialect.FromResponses([]byte(c.body), "theirs", "1", c.server)
			if err != nil {
				t.Fatal(err)
			}
			if r.Path != "/chat/completions" || !same(t, r.Body, c.want) {
				t.Errorf("it is %s %s\nwant %s", r.Path, r.Body, c.want)
			}
			if got := strings.Join(r.Warnings, "\n"); got != c.warnings {
				t.Errorf("it warns of %q, want %q", got, c.warnings)
			}
		})
	}
}

func TestResponsesThatChatsHaveNoWordsFor(t *testing.T) {
	for _, c := range []struct {
		body, field string
		code        job.Code
		everywhere  bool
	}{
		{`{"input":"x","previous_response_id":"resp_1"}`, "previous_response_id", job.Unsupported, true},
		{`{"input":"x","conversation":"conv_1"}`, "conversation", job.Unsupported, true},
		{`{"input":"x","store":true}`, "store", job.Unsupported, true},
		{`{"input":"x","background":true}`, "background", job.Unsupported, true},
		{`{"prompt":{"id":"p"}}`, "prompt", job.Unsupported, true},
		{`{"input":"x","tools":[{"type":"web_search"}]}`, "tools[0]", job.Unsupported, true},
		{`{"input":"x","tools":[{"type":"function"}]}`, "tools[0].name", job.Invalid, true},
		{`{"input":"x","max_output_tokens":"9"}`, "", job.Invalid, true},
		{`{}`, "input", job.Invalid, false},
		{`{"input":7}`, "input", job.Invalid, false},
		{`{"input":"x","max_output_tokens":0}`, "max_output_tokens", job.Invalid, false},
		{`{"input":"x","tool_choice":"perhaps"}`, "tool_choice", job.Invalid, false},
		{`{"input":"x","tool_choice":{"type":"allowed_tools"}}`, "tool_choice", job.Unsupported, false},
		{`{"input":"x","text":{"format":{"type":"grammar"}}}`, "text.format", job.Unsupported, false},
		{`{"input":"x","reasoning":{"effort":"extreme"}}`, "reasoning.effort", job.Invalid, false},
		{`{"input":"x","top_logprobs":2}`, "top_logprobs", job.Unsupported, false},
		{`{"input":"x","include":["message.output_text.logprobs"]}`, "top_logprobs", job.Unsupported, false},
		{`{"input":[{"type":"item_reference","id":"x"}]}`, "input[0]", job.Unsupported, false},
		{`{"input":[{"role":"wizard","content":"x"}]}`, "input[0].role", job.Invalid, false},
		{`{"input":[{"role":"user"}]}`, "input[0].content", job.Invalid, false},
		{`{"input":[{"role":"user","content":[{"type":"input_file"}]}]}`, "input[0].content[0]", job.Unsupported, false},
		{`{"input":[{"role":"user","content":[{"type":"input_image","image_url":"https://x/y.png"}]}]}`, "input[0].content[0]", job.Unsupported, false},
		{`{"input":[{"type":"function_call","call_id":"a","name":"f","arguments":"7"}]}`, "input[0]", job.Invalid, false},
		{`{"input":[{"type":"function_call_output","call_id":"a","output":"x"}]}`, "input[0].call_id", job.Invalid, false},
		{`{"input":[{"type":"reasoning","content":7}]}`, "input[0].content", job.Invalid, false},
	} {
		_, err := dialect.FromResponses([]byte(c.body), "m", "1", llama())
		var e *job.Error
		if !errors.As(err, &e) || e.Code != c.code || e.Field != c.field {
			t.Errorf("%s: %v, want %s: %s", c.body, err, c.code, c.field)
		}
		if err := dialect.CheckResponses([]byte(c.body)); (err != nil) != c.everywhere {
			t.Errorf("%s, whoever has it: %v", c.body, err)
		}
	}
}

func TestWhatOllamaLeavesOutIsTold(t *testing.T) {
	for _, c := range []struct {
		dialect          job.Dialect
		path, body, want string
	}{
		{job.Anthropic, "/v1/messages", `{"tool_choice":{"type":"auto"},"thinking":{"type":"enabled"},"output_config":{}}`, ""},
		{job.Anthropic, "/v1/messages", `{"tool_choice":{"type":"any"},"thinking":{"type":"disabled"},"output_config":{"effort":"low"},"output_format":{"type":"x"},"mcp_servers":[1],"container":"x"}`, "tool_choice output_config output_format mcp_servers container thinking.type: disabled"},
		{job.OpenAI, "/v1/responses", `{"tool_choice":"auto","parallel_tool_calls":true,"text":{"format":{"type":"json_schema"}}}`, ""},
		{job.OpenAI, "/v1/responses", `{"tool_choice":"required","parallel_tool_calls":false,"reasoning":{"effort":"low"},"text":{"format":{"type":"json_object"}},"top_logprobs":2}`, "tool_choice parallel_tool_calls reasoning.effort text.format top_logprobs"},
		{job.OpenAI, "/v1/chat/completions", `{"tool_choice":"auto","parallel_tool_calls":true,"n":1}`, ""},
		{job.OpenAI, "/v1/chat/completions", `{"tool_choice":"required","parallel_tool_calls":false,"n":2,"logit_bias":{"7":1}}`, "tool_choice parallel_tool_calls logit_bias n"},
		{job.OpenAI, "/v1/completions", `{"best_of":2,"echo":true}`, "best_of echo"},
		{job.OpenAI, "/v1/completions", `{"best_of":"2"}`, ""},
		{job.Anthropic, "/v1/messages", `{"tool_choice":7}`, ""},
	} {
		var names []string
		for _, w := range dialect.LeftOut(&job.Original{Dialect: c.dialect, Path: c.path, Body: []byte(c.body)}) {
			names = append(names, strings.TrimSuffix(w, " has no effect on Ollama's answers"))
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.body, got, c.want)
		}
	}
}

func TestErrorsInAnthropicsWords(t *testing.T) {
	for status, kind := range map[int]string{400: "invalid_request_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 502: "api_error", 503: "overloaded_error"} {
		if got := dialect.AnthropicError(status, "boom"); !same(t, got, `{"type":"error","error":{"type":"`+kind+`","message":"boom"}}`) {
			t.Errorf("%d is %s", status, got)
		}
	}
	if list := eventsIn(t, slices.Concat(dialect.AnthropicFailure{Type: "api_error", Message: "boom"}.Event(), dialect.ResponsesErrorEvent("x", "boom", "model"))); len(list) != 2 || list[1].data["message"] != "boom" {
		t.Errorf("events are %v", list)
	}
}

// FuzzBlocks gives whatever a server might send, and holds that what comes of it
// is in order, or an error.
func FuzzBlocks(f *testing.F) {
	f.Add([]byte(`{"choices":[{"index":0,"delta":{"content":"a","reasoning":"b"}}]}` + "\n" + `{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"x","function":{"name":"f","arguments":"{"}},{"index":-1,"function":{"arguments":"}"}}]}}]}`))
	f.Add([]byte(`{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{}"}},{"id":"y","function":{"arguments":{}}}]},"finish_reason":"stop","stop_reason":7}]}` + "\n[DONE]"))
	f.Add([]byte(`{"choices":[{"text":"a","finish_reason":"content_filter","stop_reason":"x"}],"usage":{"prompt_tokens":-1}}`))
	f.Fuzz(func(t *testing.T, lines []byte) {
		for _, form := range []dialect.Form{dialect.MessageForm, dialect.ResponsesForm} {
			shape := dialect.Shape{Kind: job.Chat, Form: form, ID: "1", Model: "m"}
			stream := dialect.NewStream(shape, noon())
			var all []byte
			for line := range strings.SplitSeq(string(lines), "\n") {
				out, _, err := stream.Event([]byte(line), noon().Add(time.Second))
				if err != nil {
					return
				}
				all = append(all, out...)
			}
			rest, last, _, err := stream.End(noon().Add(time.Minute))
			if err != nil {
				return
			}
			if all = slices.Concat(all, rest, last); form == dialect.MessageForm {
				hearMessage(t, all)
			} else {
				hearResponse(t, all)
			}
		}
	})
}

// FuzzMessages gives whatever a client might send, and holds that what comes of it
// is a JSON object.
func FuzzMessages(f *testing.F) {
	f.Add([]byte(`{"max_tokens":1,"system":[{"type":"text","text":"s"}],"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"a"}]}],"tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"tool"},"thinking":{"type":"enabled"},"output_format":{"type":"json_schema","schema":{}}}`))
	f.Add([]byte(`{"input":[{"type":"reasoning","content":[{"text":"x"}]},{"type":"function_call","call_id":"a","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"a","output":"x"},{"role":"user","content":[{"type":"input_image","image_url":"data:x"}]}],"tools":[{"type":"function","name":"f"}],"text":{"format":{"type":"json_object"}},"metadata":{"a":"b"},"reasoning":{"effort":"xhigh"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if !json.Valid(body) {
			return
		}
		for _, ask := range []func([]byte, string, string, dialect.Server) (dialect.Request, error){dialect.FromMessages, dialect.FromResponses} {
			r, err := ask(body, "m", "1", llama())
			if err != nil {
				continue
			}
			var object map[string]any
			if json.Unmarshal(r.Body, &object) != nil {
				t.Errorf("%s became %s", body, r.Body)
			}
			answer, _, _, err := dialect.Whole([]byte(`{"choices":[{"message":{"content":"x"}}]}`), r.Shape, noon(), noon())
			if err != nil || json.Unmarshal(answer, &object) != nil {
				t.Errorf("%s is answered with %s, %v", body, answer, err)
			}
		}
	})
}
