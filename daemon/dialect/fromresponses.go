package dialect

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/joulemux/joulemux/daemon/job"
)

// responsesRequest is a request of OpenAI's Responses
// (https://platform.openai.com/docs/api-reference/responses/create).
type responsesRequest struct {
	kept
	Model             string          `json:"model"`
	Input             json.RawMessage `json:"input"`
	Instructions      string          `json:"instructions"`
	MaxOutputTokens   *int            `json:"max_output_tokens"`
	Temperature       json.RawMessage `json:"temperature"`
	TopP              json.RawMessage `json:"top_p"`
	Stream            bool            `json:"stream"`
	Tools             []responseTool  `json:"tools"`
	ToolChoice        json.RawMessage `json:"tool_choice"`
	ParallelToolCalls *bool           `json:"parallel_tool_calls"`
	Text              struct {
		Format    *textFormat     `json:"format"`
		Verbosity json.RawMessage `json:"verbosity"`
	} `json:"text"`
	Reasoning *struct {
		Effort  *string `json:"effort"`
		Summary *string `json:"summary"`
	} `json:"reasoning"`
	Include     []string        `json:"include"`
	TopLogprobs int             `json:"top_logprobs"`
	Truncation  *string         `json:"truncation"`
	Metadata    json.RawMessage `json:"metadata"`
}

const responsesMembers = "model input instructions max_output_tokens temperature top_p stream tools tool_choice parallel_tool_calls text " +
	"reasoning include top_logprobs truncation metadata store previous_response_id conversation background prompt"

// kept is what asks for something that would have to be kept between requests.
type kept struct {
	Store        *bool           `json:"store"`
	Previous     *string         `json:"previous_response_id"`
	Conversation json.RawMessage `json:"conversation"`
	Background   *bool           `json:"background"`
	Prompt       json.RawMessage `json:"prompt"`
}

// refused returns what of it is asked for, as an error. Whichever server has the
// job, no other one knows what it keeps.
func (k *kept) refused() error {
	const instead = "nothing is kept between requests; send the conversation"
	switch {
	case k.Previous != nil && *k.Previous != "":
		return unsupported("previous_response_id", instead)
	case present(k.Conversation):
		return unsupported("conversation", instead)
	case k.Store != nil && *k.Store:
		return unsupported("store", "nothing is kept between requests")
	case k.Background != nil && *k.Background:
		return unsupported("background", "nothing is kept between requests")
	case present(k.Prompt):
		return unsupported("prompt", "there are no prompts here that could be named")
	default:
		return nil
	}
}

// CheckResponses returns why a request of OpenAI's Responses cannot be answered
// here, whichever server has it. The error's code is Unsupported or Invalid.
func CheckResponses(body []byte) error {
	q := new(responsesRequest)
	if err := parse(body, q); err != nil {
		return err
	}
	if err := q.refused(); err != nil {
		return err
	}
	_, err := q.functions()
	return err
}

type responseTool struct {
	Type        string          `json:"type"`
	Name        string          `json:"name"`
	Description *string         `json:"description"`
	Parameters  json.RawMessage `json:"parameters"`
	Strict      *bool           `json:"strict"`
}

type textFormat struct {
	Type   string          `json:"type"`
	Name   string          `json:"name,omitempty"`
	Schema json.RawMessage `json:"schema,omitempty"`
	Strict *bool           `json:"strict,omitempty"`
}

// inputItem is an item of the input, of any type.
type inputItem struct {
	Type      string          `json:"type"`
	Role      string          `json:"role"`
	Content   json.RawMessage `json:"content"`
	CallID    string          `json:"call_id"`
	Name      string          `json:"name"`
	Arguments string          `json:"arguments"`
	Output    json.RawMessage `json:"output"`
	Summary   []struct {
		Text string `json:"text"`
	} `json:"summary"`
	Encrypted string `json:"encrypted_content"`
}

// fromResponses is a translation under way.
type fromResponses struct {
	asking
	ask *responsesRequest
	// open are the calls whose results are yet to come.
	open []string
	list []map[string]any
	// thinking is what was thought before the model's next message.
	thinking string
}

// FromResponses translates a request of OpenAI's Responses into a chat. The
// server calls its model by model, and the answer is to be called by id.
func FromResponses(body []byte, model, id string, s Server) (Request, error) {
	q := new(responsesRequest)
	if err := parse(body, q); err != nil {
		return Request{}, err
	}
	t := &fromResponses{asking: asking{server: s, body: map[string]any{"model": model}}, ask: q}
	for _, name := range strange(body, responsesMembers) {
		t.warn("%s has no name there", name)
	}
	for _, step := range []func() error{q.refused, t.input, t.tools, t.choice, t.looks, t.thinks, t.rest} {
		if err := step(); err != nil {
			return Request{}, err
		}
	}
	t.body["messages"] = t.list
	if q.Stream {
		t.stream()
	}
	return Request{
		Path: "/chat/completions", Body: encode(t.body), Warnings: t.warnings,
		Shape: Shape{Kind: job.Chat, Form: ResponsesForm, ID: id, Model: q.Model, Stream: q.Stream, echo: q.echo()},
	}, nil
}

// input translates a conversation.
func (t *fromResponses) input() error {
	if t.ask.Instructions != "" {
		t.list = append(t.list, map[string]any{"role": "system", "content": t.ask.Instructions})
	}
	var text string
	var items []inputItem
	switch {
	case !present(t.ask.Input):
		return job.InvalidField("input", "it is needed")
	case json.Unmarshal(t.ask.Input, &text) == nil:
		t.list = append(t.list, map[string]any{"role": "user", "content": text})
		return nil
	case json.Unmarshal(t.ask.Input, &items) != nil:
		return job.InvalidField("input", "want a text or a list of items")
	}
	for i, item := range items {
		at := fmt.Sprintf("input[%d]", i)
		var err error
		switch item.Type {
		case "message", "":
			err = t.message(at, item)
		case "function_call":
			err = t.call(at, item)
		case "function_call_output":
			err = t.result(at, item)
		case "reasoning":
			err = t.reasoning(at, item)
		default:
			err = unsupported(at, "items of the type %q are not understood there", item.Type)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// message translates a turn.
func (t *fromResponses) message(at string, item inputItem) error {
	role := item.Role
	switch role {
	case "developer":
		role = "system"
	case "system", "user", "assistant":
	default:
		return job.InvalidField(at+".role", "%q is none of user, assistant, system, developer", role)
	}
	parts, err := responseParts(at+".content", item.Content)
	if err != nil {
		return err
	}
	message := map[string]any{"role": role, "content": plainly(parts)}
	if role == "assistant" {
		t.thought(at, message)
	}
	t.list = append(t.list, message)
	return nil
}

// thought puts what was thought to what came of it.
func (t *fromResponses) thought(at string, message map[string]any) {
	t.think(at, message, t.thinking)
	t.thinking = ""
}

// responseParts reads what a turn or a result says: a text, or a list of parts.
func responseParts(at string, content json.RawMessage) (parts []map[string]any, err error) {
	var text string
	var list []struct {
		Type    string
		Text    string
		Refusal string
		Image   string `json:"image_url"`
		Detail  string
	}
	switch {
	case len(content) == 0 || string(content) == "null":
		return nil, job.InvalidField(at, "it is needed")
	case json.Unmarshal(content, &text) == nil:
		return []map[string]any{{"type": "text", "text": text}}, nil
	case json.Unmarshal(content, &list) != nil:
		return nil, job.InvalidField(at, "want a text or a list of parts")
	}
	for n, p := range list {
		field := fmt.Sprintf("%s[%d]", at, n)
		switch p.Type {
		case "input_text", "output_text", "text":
			parts = append(parts, map[string]any{"type": "text", "text": p.Text})
		case "refusal":
			parts = append(parts, map[string]any{"type": "text", "text": p.Refusal})
		case "input_image":
			if !strings.HasPrefix(p.Image, "data:") {
				return nil, unsupported(field, "an image has to be sent, in base64; it is not fetched")
			}
			image := map[string]string{"url": p.Image}
			if p.Detail != "" && p.Detail != "auto" {
				image["detail"] = p.Detail
			}
			parts = append(parts, map[string]any{"type": "image_url", "image_url": image})
		default:
			return nil, unsupported(field, "parts of the type %q are not understood there", p.Type)
		}
	}
	return parts, nil
}

// call translates a call of a tool, which belongs to the model's turn before it.
func (t *fromResponses) call(at string, item inputItem) error {
	args := json.RawMessage(item.Arguments)
	var object map[string]json.RawMessage
	if item.CallID == "" || item.Name == "" || json.Unmarshal(args, &object) != nil || object == nil {
		return job.InvalidField(at, "want a call_id, a name and arguments that are a JSON object")
	}
	made := openAICall{ID: item.CallID, Type: "function", Function: openAIFunction{item.Name, arguments(args)}}
	t.open = append(t.open, item.CallID)
	if n := len(t.list); n > 0 && t.list[n-1]["role"] == "assistant" && t.thinking == "" {
		before, _ := t.list[n-1]["tool_calls"].([]openAICall)
		t.list[n-1]["tool_calls"] = append(before, made)
		return nil
	}
	message := map[string]any{"role": "assistant", "content": "", "tool_calls": []openAICall{made}}
	t.thought(at, message)
	t.list = append(t.list, message)
	return nil
}

// result translates the result of a call.
func (t *fromResponses) result(at string, item inputItem) error {
	open := slices.Index(t.open, item.CallID)
	if open < 0 {
		return job.InvalidField(at+".call_id", "the result is of no call before it")
	}
	t.open = slices.Delete(t.open, open, open+1)
	parts, err := responseParts(at+".output", item.Output)
	if err != nil {
		return err
	}
	text, ok := plainly(parts).(string)
	if !ok {
		return unsupported(at+".output", "a result is only text there")
	}
	t.list = append(t.list, map[string]any{"role": "tool", "tool_call_id": item.CallID, "content": text})
	return nil
}

// reasoning keeps what was thought for the turn that came of it. What is here
// under the name of encrypted is what was open when it was told.
func (t *fromResponses) reasoning(at string, item inputItem) error {
	thinking := item.Encrypted
	if thinking == "" {
		for _, s := range item.Summary {
			thinking += s.Text
		}
	}
	if thinking == "" && present(item.Content) {
		var list []struct{ Text string }
		if json.Unmarshal(item.Content, &list) != nil {
			return job.InvalidField(at+".content", "want a list of parts")
		}
		for _, p := range list {
			thinking += p.Text
		}
	}
	t.thinking += thinking
	return nil
}

// functions returns the tools as chats have them.
func (q *responsesRequest) functions() (list []map[string]any, err error) {
	for i, tool := range q.Tools {
		at := fmt.Sprintf("tools[%d]", i)
		switch {
		case tool.Type != "function":
			return nil, unsupported(at, "there is no tool of the type %q here, only functions of the client's", tool.Type)
		case tool.Name == "":
			return nil, job.InvalidField(at+".name", "it is needed")
		}
		description := ""
		if tool.Description != nil {
			description = *tool.Description
		}
		list = append(list, function(tool.Name, description, tool.Parameters, tool.Strict))
	}
	return list, nil
}

func (t *fromResponses) tools() error {
	list, err := t.ask.functions()
	if len(list) > 0 {
		t.body["tools"] = list
	}
	if p := t.ask.ParallelToolCalls; p != nil && len(list) > 0 {
		t.body["parallel_tool_calls"] = *p
	}
	return err
}

// choice translates whether a tool is to be called, and which.
func (t *fromResponses) choice() error {
	raw := t.ask.ToolChoice
	var word string
	var named struct{ Type, Name string }
	switch {
	case !present(raw):
	case json.Unmarshal(raw, &word) == nil:
		if !slices.Contains([]string{"auto", "none", "required"}, word) {
			return job.InvalidField("tool_choice", "%q is none of auto, none, required", word)
		}
		t.body["tool_choice"] = word
	case json.Unmarshal(raw, &named) != nil || named.Type != "function":
		return unsupported("tool_choice", "a choice of the type %q is not understood there", named.Type)
	default:
		t.body["tool_choice"] = theTool(named.Name)
	}
	return nil
}

// looks translates what the answer has to look like.
func (t *fromResponses) looks() error {
	if present(t.ask.Text.Verbosity) {
		t.warn("text.verbosity has no name there")
	}
	f := t.ask.Text.Format
	switch {
	case f == nil || f.Type == "text":
	case f.Type == "json_object":
		t.body["response_format"] = map[string]string{"type": "json_object"}
	case f.Type == "json_schema" && present(f.Schema):
		name := f.Name
		if name == "" {
			name = "answer"
		}
		t.form(name, f.Strict == nil || *f.Strict, f.Schema)
	default:
		return unsupported("text.format", "there is no form %q there", f.Type)
	}
	return nil
}

// thinks translates how hard the model is to think before it answers.
func (t *fromResponses) thinks() error {
	r := t.ask.Reasoning
	if r == nil || r.Effort == nil {
		return nil
	}
	switch level := *r.Effort; level {
	case "none", "low", "medium", "high":
		t.effort(level)
	case "minimal":
		t.effort("low")
		t.warn(`reasoning.effort: "minimal" is "low" there`)
	case "xhigh":
		t.effort("high")
		t.warn(`reasoning.effort: "xhigh" is "high" there`)
	default:
		return job.InvalidField("reasoning.effort", "%q is none of none, minimal, low, medium, high, xhigh", level)
	}
	return nil
}

// rest translates how tokens are chosen, how many, and what else is told of them.
func (t *fromResponses) rest() error {
	q := t.ask
	for name, value := range map[string]json.RawMessage{"temperature": q.Temperature, "top_p": q.TopP} {
		if present(value) {
			t.body[name] = value
		}
	}
	switch n := q.MaxOutputTokens; {
	case n == nil:
	case *n <= 0:
		return job.InvalidField("max_output_tokens", "want more than 0, got %d", *n)
	default:
		t.body["max_tokens"] = *n
	}
	if q.TopLogprobs > 0 || slices.Contains(q.Include, "message.output_text.logprobs") {
		return unsupported("top_logprobs", "how likely tokens were is told in chats")
	}
	if q.Truncation != nil && *q.Truncation == "auto" {
		t.warn("truncation: what does not fit is refused there, and not cut off")
	}
	return nil
}

// echo is what an answer repeats of its request, with what is so by default.
func (q *responsesRequest) echo() map[string]any {
	e := map[string]any{
		"instructions": orNull(q.Instructions), "max_output_tokens": q.MaxOutputTokens, "tools": []any{}, "tool_choice": "auto",
		"parallel_tool_calls": q.ParallelToolCalls == nil || *q.ParallelToolCalls, "temperature": 1, "top_p": 1,
		"text": map[string]any{"format": textFormat{Type: "text"}}, "reasoning": nil, "truncation": "disabled", "metadata": map[string]any{},
	}
	for name, value := range map[string]json.RawMessage{"temperature": q.Temperature, "top_p": q.TopP, "tool_choice": q.ToolChoice, "metadata": q.Metadata} {
		if present(value) {
			e[name] = value
		}
	}
	if len(q.Tools) > 0 {
		e["tools"] = q.Tools
	}
	if f := q.Text.Format; f != nil {
		e["text"] = map[string]any{"format": *f}
	}
	if r := q.Reasoning; r != nil && (r.Effort != nil || r.Summary != nil) {
		e["reasoning"] = map[string]*string{"effort": r.Effort, "summary": r.Summary}
	}
	if q.Truncation != nil {
		e["truncation"] = *q.Truncation
	}
	return e
}
