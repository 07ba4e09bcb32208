package dialect

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/joulemux/joulemux/daemon/job"
)

// Server is what a server of OpenAI's API understands beyond what all of them
// do.
type Server struct {
	// Options are the names by which it takes those options of Ollama's that
	// OpenAI has not.
	Options map[string]string
	// Templated servers switch thinking by an argument of the model's template.
	// The others have a degree of effort.
	Templated bool
	// Thoughts is the member in which earlier thinking goes back, or "".
	Thoughts string
	// Stops tells that the text at which an answer was to end, and did, is told.
	Stops bool
	// Infill tells that completions take a suffix.
	Infill bool
	// Bounded tells that a completion without a limit is cut off after some
	// tokens.
	Bounded bool
	// Context is how many tokens of context the model has; zero is not told.
	Context int
}

// standard are the options that OpenAI has too, by Ollama's names.
var standard = map[string]string{
	"temperature": "temperature", "top_p": "top_p", "seed": "seed", "stop": "stop",
	"presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty",
}

// asking is a request of OpenAI's API that is being written.
type asking struct {
	server   Server
	body     map[string]any
	warnings []string
}

// warn says what is left out, once.
func (a *asking) warn(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(a.warnings, text) {
		a.warnings = append(a.warnings, text)
	}
}

// effort asks for how hard the model is to think; "none" is not at all.
func (a *asking) effort(level string) {
	switch {
	case !a.server.Templated:
		a.body["reasoning_effort"] = level
	case level == "none":
		a.body["chat_template_kwargs"] = map[string]any{"enable_thinking": false}
	default:
		a.body["chat_template_kwargs"] = map[string]any{"enable_thinking": true, "reasoning_effort": level}
	}
}

// form asks for an answer in JSON that a schema fits.
func (a *asking) form(name string, strict bool, schema json.RawMessage) {
	a.body["response_format"] = map[string]any{
		"type": "json_schema", "json_schema": map[string]any{"name": name, "strict": strict, "schema": schema},
	}
}

// stream asks for the answer in pieces.
func (a *asking) stream() {
	a.body["stream"], a.body["stream_options"] = true, map[string]bool{"include_usage": true}
}

// think goes on with an earlier message's thinking, if the server takes it.
func (a *asking) think(at string, message map[string]any, thinking string) {
	switch {
	case thinking == "":
	case a.server.Thoughts == "":
		a.warn("%s.thinking: earlier thinking has no place there", at)
	default:
		message[a.server.Thoughts] = thinking
	}
}

// toOpenAI is a translation under way.
type toOpenAI struct {
	asking
	ask *ollamaRequest
}

// ToOpenAI translates a request of Ollama's API of that kind, which came for
// path. The server calls its model by model.
func ToOpenAI(kind job.Kind, path string, body []byte, model string, s Server) (Request, error) {
	q := new(ollamaRequest)
	if err := parse(body, q); err != nil {
		return Request{}, err
	}
	t := &toOpenAI{asking: asking{server: s}, ask: q}
	for _, name := range strange(body, ollamaMembers[kind]) {
		t.warn("%s is no member of such a request", name)
	}
	var loose struct{ Messages []json.RawMessage }
	_ = json.Unmarshal(body, &loose) // as it was just now
	for i, m := range loose.Messages {
		for _, name := range strange(m, messageMembers) {
			t.warn("messages[%d].%s is no member of a message", i, name)
		}
	}
	return t.request(kind, path, model)
}

// ContentToOpenAI translates a job that came in no dialect.
func ContentToOpenAI(j job.Job, model string, s Server) (Request, error) {
	q := &ollamaRequest{Model: j.Model, Prompt: j.Content.Prompt, System: j.Content.System, Stream: &j.Stream, Options: options(j)}
	if j.Kind == job.Chat && q.System != "" {
		q.Messages, q.System = []ollamaMessage{{Role: "system", Content: q.System}}, ""
	}
	for _, m := range j.Content.Messages {
		q.Messages = append(q.Messages, ollamaMessage{Role: m.Role, Content: m.Content})
	}
	if j.Kind == job.Embed {
		q.Input = encode(j.Content.Input)
	}
	t := &toOpenAI{asking: asking{server: s}, ask: q}
	return t.request(j.Kind, "", model)
}

// options are those of a job that came in no dialect.
func options(j job.Job) map[string]json.RawMessage {
	o := make(map[string]json.RawMessage)
	s := j.Content.Sampling
	if j.MaxTokens > 0 {
		o["num_predict"] = encode(j.MaxTokens)
	}
	put(o, "temperature", s.Temperature)
	put(o, "top_p", s.TopP)
	put(o, "top_k", s.TopK)
	put(o, "num_ctx", s.ContextLength)
	if len(s.Stop) > 0 {
		o["stop"] = encode(s.Stop)
	}
	return o
}

func put[T any](o map[string]json.RawMessage, name string, value *T) {
	if value != nil {
		o[name] = encode(*value)
	}
}

// request translates a request that has been parsed.
func (t *toOpenAI) request(kind job.Kind, path, model string) (r Request, err error) {
	q := t.ask
	t.body = map[string]any{"model": model}
	r.Shape = Shape{Kind: kind, Model: q.Model, Stream: kind != job.Embed && (q.Stream == nil || *q.Stream), Top: q.TopLogprobs}
	switch {
	case kind == job.Embed:
		r.Path, r.Shape.Old = "/embeddings", path == "/api/embeddings"
		err = t.embed(r.Shape.Old)
	case q.loads(kind):
		r.Load = true
		return r, nil
	case kind == job.Generate && (q.Raw || q.Suffix != ""):
		r.Path = "/completions"
		err = t.completion()
	case kind == job.Generate:
		r.Path = "/chat/completions"
		err = t.generate()
	default:
		r.Path = "/chat/completions"
		err = t.chat()
	}
	if err != nil {
		return Request{}, err
	}
	if r.Shape.Stream {
		t.stream()
	}
	r.Body, r.Warnings = encode(t.body), t.warnings
	return r, nil
}

// loads reports whether a request only has the model loaded.
func (q *ollamaRequest) loads(kind job.Kind) bool {
	if kind == job.Chat {
		return len(q.Messages) == 0
	}
	return q.Prompt == "" && q.Suffix == "" && len(q.Images) == 0
}

// common translates what all requests for text have.
func (t *toOpenAI) common() error {
	q := t.ask
	switch {
	case q.Render:
		return unsupported("_debug_render_only", "there the server alone knows its template")
	case q.Template != "":
		return unsupported("template", "models there have the template that they were made with")
	case present(q.Context):
		return unsupported("context", "tokens of another server mean nothing there; send the conversation")
	case q.Width != 0 || q.Height != 0 || q.Steps != 0:
		return unsupported("width", "images are not made there")
	}
	if q.Truncate != nil && *q.Truncate {
		t.warn("truncate: what does not fit is refused there, and not cut off")
	}
	if q.Shift != nil && *q.Shift {
		t.warn("shift: an answer ends there where the context does")
	}
	return t.options()
}

// options translates the options.
func (t *toOpenAI) options() error {
	for _, name := range slices.Sorted(maps.Keys(t.ask.Options)) {
		value := t.ask.Options[name]
		theirs, ok := standard[name]
		if !ok {
			theirs, ok = t.server.Options[name]
		}
		switch {
		case string(value) == "null":
		case ok:
			t.body[theirs] = value
		case name == "num_predict":
			n, err := strconv.ParseFloat(string(value), 64)
			if err != nil {
				return job.InvalidField("options.num_predict", "want a number, got %s", short(value))
			}
			if n > 0 { // else there is no limit, as there is none there by default
				t.body["max_tokens"] = int64(min(n, 1<<31))
			}
		case name == "num_ctx":
			if n, err := strconv.ParseFloat(string(value), 64); err != nil || t.server.Context == 0 || n > float64(t.server.Context) {
				t.warn("options.num_ctx: the context is the server's own")
			}
		default:
			t.warn("options.%s has no name there", name)
		}
	}
	return nil
}

// looks translates what the answer has to look like.
func (t *toOpenAI) looks() {
	f := t.ask.Format
	switch {
	case !present(f):
	case string(f) == `"json"`:
		t.body["response_format"] = map[string]string{"type": "json_object"}
	default:
		t.form("answer", true, f)
	}
}

// thinks translates whether, and how hard, the model is to think before it
// answers.
func (t *toOpenAI) thinks() error {
	var level string
	var on bool
	switch think := t.ask.Think; {
	case !present(think):
		return nil
	case json.Unmarshal(think, &level) == nil:
		t.effort(level)
	case json.Unmarshal(think, &on) != nil:
		return job.InvalidField("think", `want true, false, "high", "medium" or "low", got %s`, short(think))
	case t.server.Templated:
		t.body["chat_template_kwargs"] = map[string]any{"enable_thinking": on}
	case on:
		t.effort("medium")
		t.warn(`think: true is "medium" there`)
	default:
		t.effort("none")
	}
	return nil
}

// generate translates a prompt, which is a conversation with one message.
func (t *toOpenAI) generate() error {
	q := t.ask
	if q.System != "" {
		q.Messages = append(q.Messages, ollamaMessage{Role: "system", Content: q.System})
	}
	q.Messages = append(q.Messages, ollamaMessage{Role: "user", Content: q.Prompt, Images: q.Images})
	return t.chat()
}

// completion translates a prompt to which no template is applied.
func (t *toOpenAI) completion() error {
	q := t.ask
	switch {
	case q.System != "":
		return unsupported("system", "a completion has no place for it")
	case len(q.Images) > 0:
		return unsupported("images", "a completion has no place for them")
	case present(q.Format):
		return unsupported("format", "a completion has none")
	case q.Suffix != "" && !t.server.Infill:
		return unsupported("suffix", "completions take none there")
	case present(q.Think) && string(q.Think) != "false":
		return unsupported("think", "a completion has no place for it")
	}
	t.body["prompt"] = q.Prompt
	if q.Suffix != "" {
		t.body["suffix"] = q.Suffix
	}
	if q.Logprobs {
		t.body["logprobs"] = max(1, q.TopLogprobs) // of none there would be nothing at all
	}
	if err := t.common(); err != nil {
		return err
	}
	if _, limited := t.body["max_tokens"]; !limited && t.server.Bounded {
		t.warn("options.num_predict: without it the server itself limits how long a completion is")
	}
	return nil
}

// chat translates a conversation.
func (t *toOpenAI) chat() error {
	q := t.ask
	messages, err := t.messages()
	if err != nil {
		return err
	}
	t.body["messages"] = messages
	if present(q.Tools) {
		t.body["tools"] = q.Tools // of which OpenAI's form is Ollama's, too
	}
	if q.Logprobs {
		t.body["logprobs"] = true
		if q.TopLogprobs > 0 {
			t.body["top_logprobs"] = q.TopLogprobs
		}
	}
	t.looks()
	if err := t.thinks(); err != nil {
		return err
	}
	return t.common()
}

// messages translates the turns of a conversation.
func (t *toOpenAI) messages() (list []map[string]any, err error) {
	var open []ollamaCall // whose results are yet to come
	for i, m := range t.ask.Messages {
		at := "messages[" + strconv.Itoa(i) + "]"
		role := strings.ToLower(m.Role)
		out := map[string]any{"role": role}
		if out["content"], err = content(at, m); err != nil {
			return nil, err
		}
		switch role {
		case "system", "user":
		case "assistant":
			if out["tool_calls"], open, err = calls(at, i, m.ToolCalls, open); err != nil {
				return nil, err
			}
			if len(m.ToolCalls) == 0 {
				delete(out, "tool_calls")
			}
		case "tool":
			id, rest, ok := result(m, open)
			if !ok {
				return nil, job.InvalidField(at, "the result is of no call before it")
			}
			out["tool_call_id"], open = id, rest
		default:
			return nil, job.InvalidField(at+".role", "%q is none of system, user, assistant, tool", m.Role)
		}
		t.think(at, out, m.Thinking)
		list = append(list, out)
	}
	return list, nil
}

// content returns what a message says, and shows.
func content(at string, m ollamaMessage) (any, error) {
	if len(m.Images) == 0 {
		return m.Content, nil
	}
	var parts []map[string]any
	if m.Content != "" {
		parts = append(parts, map[string]any{"type": "text", "text": m.Content})
	}
	for i, image := range m.Images {
		url, err := imageURL(fmt.Sprintf("%s.images[%d]", at, i), image)
		if err != nil {
			return nil, err
		}
		parts = append(parts, map[string]any{"type": "image_url", "image_url": map[string]string{"url": url}})
	}
	return parts, nil
}

// calls translates the calls of tools in the message i. Those without an id are
// given one, for their results to name.
func calls(at string, i int, made, open []ollamaCall) (list []openAICall, still []ollamaCall, err error) {
	for n, c := range made {
		if c.ID == "" {
			c.ID = fmt.Sprintf("call_%d_%d", i, n)
		}
		args := c.Function.Arguments
		if len(args) == 0 || string(args) == "null" {
			args = json.RawMessage("{}")
		}
		if args[0] != '{' {
			return nil, nil, job.InvalidField(fmt.Sprintf("%s.tool_calls[%d].function.arguments", at, n), "want a JSON object, got %s", short(args))
		}
		list = append(list, openAICall{ID: c.ID, Type: "function", Function: openAIFunction{Name: c.Function.Name, Arguments: arguments(args)}})
		open = append(open, c)
	}
	return list, open, nil
}

// result returns the call that a result is of: the one it names, or the first of
// its tool, or just the first. The other calls are still open.
func result(m ollamaMessage, open []ollamaCall) (id string, rest []ollamaCall, ok bool) {
	at := slices.IndexFunc(open, func(c ollamaCall) bool {
		if m.ToolCallID != "" {
			return c.ID == m.ToolCallID
		}
		return m.ToolName == "" || c.Function.Name == m.ToolName
	})
	if at < 0 {
		return "", open, false
	}
	return open[at].ID, slices.Delete(slices.Clone(open), at, at+1), true
}

// embed translates a request for vectors.
func (t *toOpenAI) embed(old bool) error {
	q := t.ask
	t.body["input"] = q.Input
	if old {
		t.body["input"] = q.Prompt
		t.warn("the length of the vector is as the server has it, most often 1, and with Ollama the model's")
	}
	if !old && !present(q.Input) {
		return unsupported("input", "there is none")
	}
	t.body["encoding_format"] = "float"
	if q.Dimensions > 0 {
		t.body["dimensions"] = q.Dimensions
	}
	if q.Truncate != nil && *q.Truncate {
		t.warn("truncate: what does not fit is refused there, and not cut off")
	}
	for _, name := range slices.Sorted(maps.Keys(q.Options)) {
		// They are of how answers are sampled, which vectors are not, and of how
		// the runner works.
		t.warn("options.%s has no meaning there", name)
	}
	return nil
}
