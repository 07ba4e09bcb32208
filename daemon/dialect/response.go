package dialect

import (
	"cmp"
	"maps"
	"strconv"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// response writes an answer in the form of OpenAI's Responses
// (https://platform.openai.com/docs/api-reference/responses-streaming).
type response struct {
	shape   Shape
	created time.Time

	sequence int
	begun    bool
	output   []any
	text     []byte // of the block that is told
}

func newResponse(s Shape, created time.Time) *response { return &response{shape: s, created: created} }

// object returns an answer, with nothing in it yet.
func (r *response) object() map[string]any {
	o := map[string]any{
		"id": "resp_" + r.shape.ID, "object": "response", "created_at": r.created.Unix(), "completed_at": nil,
		"status": "in_progress", "error": nil, "incomplete_details": nil, "model": r.shape.Model, "output": []any{}, "usage": nil,
		"previous_response_id": nil, "store": false, "background": false, "service_tier": "default",
		"presence_penalty": 0, "frequency_penalty": 0, "top_logprobs": 0, "max_tool_calls": nil,
		"safety_identifier": nil, "prompt_cache_key": nil,
	}
	maps.Copy(o, r.shape.echo)
	return o
}

// ended returns an answer that is complete. One that its limit of tokens ended is
// not.
func (r *response) ended(reason string, u job.Usage) map[string]any {
	o := r.object()
	o["status"], o["completed_at"], o["output"] = "completed", r.created.Add(u.Load+u.Prefill+u.Decode).Unix(), r.output
	if r.output == nil {
		o["output"] = []any{}
	}
	if why := incomplete(reason); why != "" {
		o["status"], o["incomplete_details"] = "incomplete", map[string]string{"reason": why}
	}
	o["usage"] = map[string]any{
		"input_tokens": u.PromptTokens, "output_tokens": u.Tokens, "total_tokens": u.PromptTokens + u.Tokens,
		"input_tokens_details":  map[string]int{"cached_tokens": u.Cached},
		"output_tokens_details": map[string]int{"reasoning_tokens": 0},
	}
	return o
}

func incomplete(reason string) string {
	switch reason {
	case "length":
		return "max_output_tokens"
	case "content_filter":
		return "content_filter"
	default:
		return ""
	}
}

// item returns a block as an item of the output.
func (r *response) item(b block, status, text string) map[string]any {
	switch b.kind {
	case thought:
		// What is thought is open here. Who keeps nothing can send it back.
		item := map[string]any{"id": r.id(b), "type": "reasoning", "summary": []any{}}
		if text != "" {
			item["summary"], item["encrypted_content"] = []any{map[string]string{"type": "summary_text", "text": text}}, text
		}
		return item
	case toolCall:
		return map[string]any{
			"id": r.id(b), "type": "function_call", "status": status, "name": b.name, "arguments": text,
			"call_id": cmp.Or(b.id, "call_"+r.shape.ID+"_"+strconv.Itoa(b.number)),
		}
	default:
		content := []any{}
		if status == "completed" {
			content = append(content, textPart(text))
		}
		return map[string]any{"id": r.id(b), "type": "message", "status": status, "role": "assistant", "content": content}
	}
}

// id names a block.
func (r *response) id(b block) string {
	return [...]string{thought: "rs_", prose: "msg_", toolCall: "fc_"}[b.kind] + r.shape.ID + "_" + strconv.Itoa(b.number)
}

func textPart(text string) map[string]any {
	return map[string]any{"type": "output_text", "text": text, "annotations": []any{}, "logprobs": []any{}}
}

// event returns an event with its number in the stream.
func (r *response) event(kind string, members map[string]any) []byte {
	members["type"], members["sequence_number"] = kind, r.sequence
	r.sequence++
	return named(kind, members)
}

func (r *response) begin() []byte {
	if r.begun {
		return nil
	}
	r.begun = true
	out := r.event("response.created", map[string]any{"response": r.object()})
	return append(out, r.event("response.in_progress", map[string]any{"response": r.object()})...)
}

// of returns what events about a block have in common.
func (r *response) of(b block, members map[string]any) map[string]any {
	members["item_id"], members["output_index"] = r.id(b), b.number
	switch b.kind {
	case thought:
		members["summary_index"] = 0
	case prose:
		members["content_index"] = 0
	case toolCall:
	}
	return members
}

func (r *response) opens(b block) []byte {
	out := append(r.begin(), r.event("response.output_item.added", map[string]any{"output_index": b.number, "item": r.item(b, "in_progress", "")})...)
	r.text = r.text[:0]
	switch b.kind {
	case thought:
		part := map[string]string{"type": "summary_text", "text": ""}
		out = append(out, r.event("response.reasoning_summary_part.added", r.of(b, map[string]any{"part": part}))...)
	case prose:
		out = append(out, r.event("response.content_part.added", r.of(b, map[string]any{"part": textPart("")}))...)
	case toolCall:
	}
	return out
}

// responseDelta is what most events of a stream are.
type responseDelta struct {
	Type     string    `json:"type"`
	Sequence int       `json:"sequence_number"`
	Item     string    `json:"item_id"`
	Output   int       `json:"output_index"`
	Content  *int      `json:"content_index,omitempty"`
	Summary  *int      `json:"summary_index,omitempty"`
	Delta    string    `json:"delta"`
	Logprobs *[]string `json:"logprobs,omitempty"`
}

func (r *response) goes(b block, text string) []byte {
	r.text = append(r.text, text...)
	d := responseDelta{Sequence: r.sequence, Item: r.id(b), Output: b.number, Delta: text}
	r.sequence++
	switch b.kind {
	case thought:
		d.Type, d.Summary = "response.reasoning_summary_text.delta", new(int)
	case toolCall:
		d.Type = "response.function_call_arguments.delta"
	case prose:
		d.Type, d.Content, d.Logprobs = "response.output_text.delta", new(int), &[]string{}
	}
	return named(d.Type, d)
}

func (r *response) shuts(b block) (out []byte) {
	text := string(r.text)
	switch b.kind {
	case thought:
		out = r.event("response.reasoning_summary_text.done", r.of(b, map[string]any{"text": text}))
		part := map[string]string{"type": "summary_text", "text": text}
		out = append(out, r.event("response.reasoning_summary_part.done", r.of(b, map[string]any{"part": part}))...)
	case toolCall:
		out = r.event("response.function_call_arguments.done", r.of(b, map[string]any{"name": b.name, "arguments": text}))
	case prose:
		out = r.event("response.output_text.done", r.of(b, map[string]any{"text": text, "logprobs": []any{}}))
		out = append(out, r.event("response.content_part.done", r.of(b, map[string]any{"part": textPart(text)}))...)
	}
	item := r.item(b, "completed", text)
	r.output = append(r.output, item)
	return append(out, r.event("response.output_item.done", map[string]any{"output_index": b.number, "item": item})...)
}

func (r *response) ends(reason, _ string, _ bool, u job.Usage) []byte {
	out, kind := r.begin(), "response.completed"
	if incomplete(reason) != "" {
		kind = "response.incomplete"
	}
	return append(out, r.event(kind, map[string]any{"response": r.ended(reason, u)})...)
}

// response returns an undivided answer in the form of OpenAI's Responses.
func (p *piece) response(s Shape, created time.Time) []byte {
	r := newResponse(s, created)
	p.each(func(b block, text string) { r.output = append(r.output, r.item(b, "completed", text)) })
	return job.Line(r.ended(p.reason, *p.usage))
}

// ResponsesErrorEvent returns an error that ends a stream of OpenAI's Responses.
// What is at fault is named by param, if one member is.
func ResponsesErrorEvent(code, message, param string) []byte {
	return named("error", map[string]any{"type": "error", "code": code, "message": message, "param": orNull(param), "sequence_number": 0})
}

// orNull returns a text, or nothing if it is empty.
func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}
