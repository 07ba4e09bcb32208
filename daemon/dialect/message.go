package dialect

import (
	"cmp"
	"encoding/json"
	"strconv"

	"github.com/joulemux/joulemux/daemon/job"
)

// message writes an answer in the form of Anthropic's Messages
// (https://platform.claude.com/docs/en/build-with-claude/streaming).
type message struct {
	shape Shape
	begun bool
}

// messageAnswer is an undivided answer, or how a stream begins.
type messageAnswer struct {
	ID           string           `json:"id"`
	Type         string           `json:"type"`
	Role         string           `json:"role"`
	Model        string           `json:"model"`
	Content      []map[string]any `json:"content"`
	StopReason   *string          `json:"stop_reason"`
	StopSequence *string          `json:"stop_sequence"`
	Usage        messageUsage     `json:"usage"`
}

type messageUsage struct {
	InputTokens  int `json:"input_tokens"`
	OutputTokens int `json:"output_tokens"`
}

func newMessageAnswer(s Shape) messageAnswer {
	return messageAnswer{ID: "msg_" + s.ID, Type: "message", Role: "assistant", Model: s.Model, Content: []map[string]any{}}
}

// stopReason returns why an answer ended as Anthropic says it, by Ollama's word
// for it.
func stopReason(reason, stop string, called bool) (word string, sequence *string) {
	switch {
	case called && reason == "stop":
		return "tool_use", nil
	case reason == "length":
		return "max_tokens", nil
	case reason == "content_filter":
		return "refusal", nil
	case stop != "":
		return "stop_sequence", &stop
	default:
		return "end_turn", nil
	}
}

// contentOf returns a block as it is in an undivided answer.
func contentOf(s Shape, b block, text string) map[string]any {
	switch b.kind {
	case thought:
		// Nobody signs here, and who checks a signature looks for one.
		return map[string]any{"type": "thinking", "thinking": text, "signature": ""}
	case toolCall:
		return map[string]any{"type": "tool_use", "id": toolUseID(s, b), "name": b.name, "input": json.RawMessage(text)}
	default:
		return map[string]any{"type": "text", "text": text}
	}
}

// toolUseID returns a call's id, which its result will name.
func toolUseID(s Shape, b block) string {
	return cmp.Or(b.id, "toolu_"+s.ID+"_"+strconv.Itoa(b.number))
}

// opens begins a block, and the message before the first one. What the request
// took is told at the end, and not known yet.
func (m *message) opens(b block) []byte {
	out := m.begin()
	empty := ""
	if b.kind == toolCall {
		empty = "{}"
	}
	return append(out, named("content_block_start", map[string]any{
		"type": "content_block_start", "index": b.number, "content_block": contentOf(m.shape, b, empty),
	})...)
}

func (m *message) begin() []byte {
	if m.begun {
		return nil
	}
	m.begun = true
	return named("message_start", map[string]any{"type": "message_start", "message": newMessageAnswer(m.shape)})
}

// delta is what most events of a stream are.
type delta struct {
	Type  string    `json:"type"`
	Index int       `json:"index"`
	Delta deltaText `json:"delta"`
}

type deltaText struct {
	Type     string `json:"type"`
	Text     string `json:"text,omitempty"`
	Thinking string `json:"thinking,omitempty"`
	Input    string `json:"partial_json,omitempty"`
}

func (m *message) goes(b block, text string) []byte {
	d := delta{Type: "content_block_delta", Index: b.number}
	switch b.kind {
	case thought:
		d.Delta = deltaText{Type: "thinking_delta", Thinking: text}
	case toolCall:
		d.Delta = deltaText{Type: "input_json_delta", Input: text}
	case prose:
		d.Delta = deltaText{Type: "text_delta", Text: text}
	}
	return named(d.Type, d)
}

func (m *message) shuts(b block) []byte {
	return named("content_block_stop", map[string]any{"type": "content_block_stop", "index": b.number})
}

func (m *message) ends(reason, stop string, called bool, u job.Usage) []byte {
	word, sequence := stopReason(reason, stop, called)
	out := append(m.begin(), named("message_delta", map[string]any{
		"type": "message_delta", "delta": map[string]any{"stop_reason": word, "stop_sequence": sequence},
		"usage": messageUsage{u.PromptTokens, u.Tokens},
	})...)
	return append(out, named("message_stop", map[string]string{"type": "message_stop"})...)
}

// message returns an undivided answer in the form of Anthropic's.
func (p *piece) message(s Shape) []byte {
	a := newMessageAnswer(s)
	p.each(func(b block, text string) { a.Content = append(a.Content, contentOf(s, b, text)) })
	word, sequence := stopReason(p.reason, p.stop, len(p.calls) > 0)
	a.StopReason, a.StopSequence, a.Usage = &word, sequence, messageUsage{p.usage.PromptTokens, p.usage.Tokens}
	return job.Line(a)
}

// AnthropicFailure is what an error says in Anthropic's API. Type is a word of it.
type AnthropicFailure struct{ Type, Message string }

// Body returns the error as the body of a response.
func (f AnthropicFailure) Body() []byte { return job.Line(f.object()) }

// Event returns the error as the event that ends a stream.
func (f AnthropicFailure) Event() []byte { return named("error", f.object()) }

func (f AnthropicFailure) object() any {
	return map[string]any{"type": "error", "error": map[string]string{"type": f.Type, "message": f.Message}}
}

// AnthropicError returns an error as Anthropic's API has it, by its status.
func AnthropicError(status int, message string) []byte {
	kind := "api_error"
	switch status {
	case 400:
		kind = "invalid_request_error"
	case 401:
		kind = "authentication_error"
	case 403:
		kind = "permission_error"
	case 404:
		kind = "not_found_error"
	case 413:
		kind = "request_too_large"
	case 429:
		kind = "rate_limit_error"
	case 503, 529:
		kind = "overloaded_error"
	}
	return AnthropicFailure{kind, message}.Body()
}
