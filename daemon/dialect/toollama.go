package dialect

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/joulemux/joulemux/daemon/job"
)

// openAIRequest is a request of OpenAI's API, of any of its kinds.
type openAIRequest struct {
	Model         string           `json:"model"`
	Messages      []messageOf      `json:"messages"`
	Prompt        json.RawMessage  `json:"prompt"`
	Suffix        string           `json:"suffix"`
	Input         json.RawMessage  `json:"input"`
	Stream        bool             `json:"stream"`
	StreamOptions *streamOptions   `json:"stream_options"`
	Format        *responseFormat  `json:"response_format"`
	Tools         json.RawMessage  `json:"tools"`
	ToolChoice    json.RawMessage  `json:"tool_choice"`
	Parallel      *bool            `json:"parallel_tool_calls"`
	Effort        string           `json:"reasoning_effort"`
	Reasoning     *reasoning       `json:"reasoning"`
	Logprobs      json.RawMessage  `json:"logprobs"` // true in chats, a number in completions
	TopLogprobs   int              `json:"top_logprobs"`
	N             *int             `json:"n"`
	BestOf        *int             `json:"best_of"`
	Echo          bool             `json:"echo"`
	Bias          json.RawMessage  `json:"logit_bias"`
	MaxTokens     *int             `json:"max_tokens"`
	MaxCompletion *int             `json:"max_completion_tokens"`
	Encoding      string           `json:"encoding_format"`
	Dimensions    int              `json:"dimensions"`
	Stop          json.RawMessage  `json:"stop"`
	Temperature   *json.RawMessage `json:"temperature"`
	TopP          *json.RawMessage `json:"top_p"`
}

type streamOptions struct {
	Usage bool `json:"include_usage"`
}

type reasoning struct {
	Effort string `json:"effort"`
}

type responseFormat struct {
	Type   string `json:"type"`
	Schema *struct {
		Schema json.RawMessage `json:"schema"`
	} `json:"json_schema"`
}

type messageOf struct {
	Role             string          `json:"role"`
	Content          json.RawMessage `json:"content"`
	ReasoningContent string          `json:"reasoning_content"`
	Reasoning        string          `json:"reasoning"`
	Name             string          `json:"name"`
	ToolCalls        []openAICall    `json:"tool_calls"`
	ToolCallID       string          `json:"tool_call_id"`
}

const openAIMessageMembers = "role content reasoning_content reasoning name tool_calls tool_call_id refusal"

// openAIMembers are the members of a request, by the end of its path, beside
// those that are options of Ollama's by the same name.
var openAIMembers = map[string]string{
	"/chat/completions": "model messages stream stream_options response_format tools tool_choice parallel_tool_calls reasoning_effort reasoning logprobs top_logprobs n logit_bias max_tokens max_completion_tokens stop temperature top_p",
	"/completions":      "model prompt suffix stream stream_options logprobs n best_of echo logit_bias max_tokens stop temperature top_p",
	"/embeddings":       "model input encoding_format dimensions",
}

// sameOptions are those of Ollama that go by the same name in either dialect, though some
// only with servers that know them.
var sameOptions = []string{
	"seed", "presence_penalty", "frequency_penalty",
	"top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n", "num_ctx",
}

// toOllama is a translation under way.
type toOllama struct {
	ask      *openAIRequest
	out      ollamaRequest
	warnings []string
}

func (t *toOllama) warn(format string, args ...any) {
	t.warnings = append(t.warnings, fmt.Sprintf(format, args...))
}

// ToOllama translates a request of OpenAI's API that came for path. The server
// calls its model by model.
func ToOllama(path string, body []byte, model string) (Request, error) {
	q := new(openAIRequest)
	if err := parse(body, q); err != nil {
		return Request{}, err
	}
	t := &toOllama{ask: q, out: ollamaRequest{Model: model}}
	end := ending(path)
	if end == "" {
		return Request{}, unsupported("", "there is nothing like %s there", path)
	}
	for _, name := range strange(body, openAIMembers[end]+" "+strings.Join(sameOptions, " ")) {
		t.warn("%s has no name there", name)
	}
	r := Request{Shape: Shape{Form: OpenAIForm, Model: q.Model, Stream: q.Stream, Usage: q.StreamOptions != nil && q.StreamOptions.Usage, Top: q.TopLogprobs}}
	var err error
	switch end {
	case "/chat/completions":
		r.Path, r.Shape.Kind = "/api/chat", job.Chat
		if err = t.chat(body); err == nil && len(q.Messages) == 0 { // which there only has the model loaded
			err = job.InvalidField("messages", "[] is too short")
		}
	case "/completions":
		r.Path, r.Shape.Kind = "/api/generate", job.Generate
		err = t.completion(body)
	default:
		r.Path, r.Shape.Kind, r.Shape.Base64 = "/api/embed", job.Embed, strings.EqualFold(q.Encoding, "base64")
		r.Shape.Stream = false
		err = t.embed()
	}
	if err != nil {
		return Request{}, err
	}
	r.Body, r.Warnings = encode(t.out), t.warnings
	return r, nil
}

// ending returns which kind of request comes for a path, as openAIMembers has it.
func ending(path string) string {
	for _, end := range []string{"/chat/completions", "/completions", "/embeddings"} {
		if strings.HasSuffix(path, end) {
			return end
		}
	}
	return ""
}

// common translates what all requests for text have.
func (t *toOllama) common(body []byte) error {
	q := t.ask
	switch {
	case q.N != nil && *q.N != 1:
		return unsupported("n", "there is one answer to a request there")
	case q.BestOf != nil && *q.BestOf > 1:
		return unsupported("best_of", "there is one answer to a request there")
	case present(q.Bias):
		return unsupported("logit_bias", "there is nothing like it there")
	}
	t.out.Stream = &q.Stream
	return t.options(body)
}

// options translates how tokens are chosen.
func (t *toOllama) options(body []byte) error {
	q := t.ask
	// What is left out is not left to the model: OpenAI's API says what it is,
	// and so does Ollama when it is asked in that dialect itself.
	o := map[string]json.RawMessage{"temperature": json.RawMessage("1"), "top_p": json.RawMessage("1")}
	if q.Temperature != nil && present(*q.Temperature) {
		o["temperature"] = *q.Temperature
	}
	if q.TopP != nil && present(*q.TopP) {
		o["top_p"] = *q.TopP
	}
	if q.MaxCompletion != nil {
		o["num_predict"] = encode(*q.MaxCompletion)
	} else if q.MaxTokens != nil {
		o["num_predict"] = encode(*q.MaxTokens)
	}
	var all map[string]json.RawMessage
	_ = json.Unmarshal(body, &all) // as it was just now
	for _, name := range sameOptions {
		if value := all[name]; present(value) {
			o[name] = value
		}
	}
	if present(q.Stop) {
		stop, err := texts("stop", q.Stop)
		if err != nil {
			return err
		}
		o["stop"] = encode(stop)
	}
	t.out.Options = o
	return nil
}

// texts reads a text or a list of them. A list of numbers is tokens.
func texts(field string, raw json.RawMessage) ([]string, error) {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, nil
	}
	var many []string
	if json.Unmarshal(raw, &many) == nil {
		return many, nil
	}
	var numbers []any
	if json.Unmarshal(raw, &numbers) == nil {
		return nil, unsupported(field, "tokens are not taken there, only text")
	}
	return nil, job.InvalidField(field, "want a text or a list of texts, got %s", short(raw))
}

// chat translates a conversation.
func (t *toOllama) chat(body []byte) error {
	q := t.ask
	var loose struct{ Messages []json.RawMessage }
	_ = json.Unmarshal(body, &loose) // as it was just now
	for i, m := range q.Messages {
		for _, name := range strange(loose.Messages[i], openAIMessageMembers) {
			t.warn("messages[%d].%s has no name there", i, name)
		}
		if err := t.message(i, m); err != nil {
			return err
		}
	}
	for _, step := range []func() error{t.tools, t.form, t.think, t.logprobs} {
		if err := step(); err != nil {
			return err
		}
	}
	return t.common(body)
}

// message translates a turn of a conversation.
func (t *toOllama) message(i int, m messageOf) (err error) {
	at := fmt.Sprintf("messages[%d]", i)
	out := ollamaMessage{Role: strings.ToLower(m.Role), Thinking: m.ReasoningContent + m.Reasoning, ToolCallID: m.ToolCallID}
	if out.Role == "developer" {
		out.Role = "system"
	}
	if !slices.Contains([]string{"system", "user", "assistant", "tool"}, out.Role) {
		return unsupported(at+".role", "there is no role %q there", m.Role)
	}
	if out.Content, out.Images, err = parts(at, m.Content); err != nil {
		return err
	}
	switch {
	case out.Role == "tool":
		if out.ToolName = m.Name; out.ToolName == "" {
			out.ToolName = t.called(m.ToolCallID)
		}
	case m.Name != "":
		t.warn("%s.name: who speaks has no place there", at)
	}
	for n, c := range m.ToolCalls {
		args := json.RawMessage(c.Function.Arguments)
		var object map[string]json.RawMessage
		if json.Unmarshal(args, &object) != nil || object == nil {
			return job.InvalidField(fmt.Sprintf("%s.tool_calls[%d].function.arguments", at, n), "want a JSON object, got %s", short(args))
		}
		out.ToolCalls = append(out.ToolCalls, ollamaCall{c.ID, ollamaFunction{n, c.Function.Name, args}})
	}
	t.out.Messages = append(t.out.Messages, out)
	return nil
}

// called returns the tool that was called by that id, the last time.
func (t *toOllama) called(id string) string {
	for _, m := range slices.Backward(t.out.Messages) {
		for _, c := range m.ToolCalls {
			if c.ID == id {
				return c.Function.Name
			}
		}
	}
	return ""
}

// parts reads what a message says: a text, or parts of it with images.
func parts(at string, content json.RawMessage) (text string, images []string, err error) {
	if len(content) == 0 || json.Unmarshal(content, &text) == nil {
		return text, nil, nil
	}
	var list []struct {
		Type  string
		Text  string
		Image json.RawMessage `json:"image_url"`
	}
	if json.Unmarshal(content, &list) != nil {
		return "", nil, job.InvalidField(at+".content", "want a text or a list of parts")
	}
	var said []string
	for n, p := range list {
		field := fmt.Sprintf("%s.content[%d]", at, n)
		switch p.Type {
		case "text":
			said = append(said, p.Text)
		case "image_url":
			image, err := imageOf(field, p.Image)
			if err != nil {
				return "", nil, err
			}
			images = append(images, image)
		default:
			return "", nil, unsupported(field, "parts of the type %q are not understood there", p.Type)
		}
	}
	return strings.Join(said, "\n"), images, nil
}

// imageOf returns an image in base64. Nothing is fetched for a client.
func imageOf(field string, raw json.RawMessage) (string, error) {
	var inner struct{ URL string }
	if json.Unmarshal(raw, &inner.URL) != nil && json.Unmarshal(raw, &inner) != nil {
		return "", job.InvalidField(field, "want the URL of an image")
	}
	head, data, ok := strings.Cut(inner.URL, ";base64,")
	if !ok || !strings.HasPrefix(head, "data:") {
		return "", unsupported(field, "an image has to be sent, in base64; it is not fetched")
	}
	return data, nil
}

// tools translates which tools there are, and whether one is to be called.
func (t *toOllama) tools() error {
	q := t.ask
	var choice string
	if present(q.ToolChoice) && json.Unmarshal(q.ToolChoice, &choice) != nil {
		return unsupported("tool_choice", "which tool is called is the model's choice there")
	}
	switch choice {
	case "", "auto":
		if present(q.Tools) {
			t.out.Tools = q.Tools
		}
	case "none":
	default:
		return unsupported("tool_choice", "whether a tool is called is the model's choice there")
	}
	if q.Parallel != nil && !*q.Parallel {
		t.warn("parallel_tool_calls: how many tools are called is the model's choice there")
	}
	return nil
}

// form translates what the answer has to look like.
func (t *toOllama) form() error {
	f := t.ask.Format
	switch {
	case f == nil || f.Type == "" || f.Type == "text":
	case f.Type == "json_object":
		t.out.Format = json.RawMessage(`"json"`)
	case f.Type == "json_schema" && f.Schema != nil && present(f.Schema.Schema):
		t.out.Format = f.Schema.Schema
	default:
		return unsupported("response_format", "there is no form %q there", f.Type)
	}
	return nil
}

// think translates how hard the model is to think before it answers.
func (t *toOllama) think() error {
	effort := t.ask.Effort
	if t.ask.Reasoning != nil {
		effort = t.ask.Reasoning.Effort
	}
	switch effort {
	case "":
	case "none":
		t.out.Think = json.RawMessage("false")
	case "low", "medium", "high":
		t.out.Think = encode(effort)
	default:
		return unsupported("reasoning_effort", "%q is none of none, low, medium, high", effort)
	}
	return nil
}

func (t *toOllama) logprobs() error {
	q := t.ask
	if present(q.Logprobs) && json.Unmarshal(q.Logprobs, &t.out.Logprobs) != nil {
		return job.InvalidField("logprobs", "want true or false, got %s", short(q.Logprobs))
	}
	t.out.TopLogprobs = q.TopLogprobs
	return nil
}

// completion translates a prompt. Ollama itself puts it into the model's
// template, in this dialect too.
func (t *toOllama) completion(body []byte) error {
	q := t.ask
	if q.Echo {
		return unsupported("echo", "the prompt is not repeated there")
	}
	prompts := []string{""}
	if present(q.Prompt) {
		var err error
		if prompts, err = texts("prompt", q.Prompt); err != nil {
			return err
		}
	}
	if len(prompts) != 1 {
		return unsupported("prompt", "there is one prompt to a request there, and here are %d", len(prompts))
	}
	t.out.Prompt, t.out.Suffix = prompts[0], q.Suffix
	if present(q.Logprobs) {
		if json.Unmarshal(q.Logprobs, &t.out.TopLogprobs) != nil {
			return job.InvalidField("logprobs", "want a number, got %s", short(q.Logprobs))
		}
		t.out.Logprobs = t.out.TopLogprobs > 0
	}
	return t.common(body)
}

// embed translates a request for vectors.
func (t *toOllama) embed() error {
	q := t.ask
	switch strings.ToLower(q.Encoding) {
	case "", "float", "base64":
	default:
		return job.InvalidField("encoding_format", "%q is none of float, base64", q.Encoding)
	}
	list, err := texts("input", q.Input)
	if err != nil {
		return err
	}
	t.out.Input, t.out.Dimensions = encode(list), q.Dimensions
	return nil
}
