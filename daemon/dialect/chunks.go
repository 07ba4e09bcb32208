package dialect

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// Chunks turns a stream of Ollama's dialect into OpenAI's.
type Chunks struct {
	shape   Shape
	id      string
	created time.Time
	begun   bool
	calls   int
	length  int // of the text so far
}

// NewChunks returns what turns lines into events of that shape. The id names the
// answer, which begins at created.
func NewChunks(s Shape, id string, created time.Time) *Chunks {
	return &Chunks{shape: s, id: id, created: created}
}

// completion is what OpenAI's API answers, in pieces or undivided.
type completion struct {
	ID          string       `json:"id"`
	Object      string       `json:"object"`
	Created     int64        `json:"created"`
	Model       string       `json:"model"`
	Fingerprint string       `json:"system_fingerprint"`
	Choices     []choice     `json:"choices"`
	Usage       *openAIUsage `json:"usage,omitempty"`
}

type choice struct {
	Index   int          `json:"index"`
	Delta   *chatMessage `json:"delta,omitempty"`
	Message *chatMessage `json:"message,omitempty"`
	Text    *string      `json:"text,omitempty"`
	// Reasoning is an addition: completions have no place for it, and it is not
	// to be lost.
	Reasoning string  `json:"reasoning,omitempty"`
	Logprobs  any     `json:"logprobs,omitempty"`
	Reason    *string `json:"finish_reason"`
}

type chatMessage struct {
	Role      string       `json:"role,omitempty"`
	Content   *string      `json:"content,omitempty"`
	Reasoning string       `json:"reasoning,omitempty"`
	ToolCalls []openAICall `json:"tool_calls,omitempty"`
}

// Line takes a line, and returns the events that say the same. The last line
// ends the stream.
func (c *Chunks) Line(line []byte) (events []byte, last bool, err error) {
	p, err := readOllama(line)
	if err != nil {
		return nil, false, err
	}
	called := c.calls > 0 || len(p.calls) > 0
	if says := p.text != "" || p.thinking != "" || len(p.calls) > 0 || len(p.logprobs) > 0; says || !c.begun {
		events = append(events, c.event(c.delta(p))...)
	}
	if p.reason == "" {
		return events, false, nil
	}
	reason := finishReason(p.reason, called)
	end := choice{Reason: &reason}
	if c.shape.Kind == job.Chat {
		end.Delta = &chatMessage{}
	} else {
		end.Text = new(string)
	}
	events = append(events, c.event(end)...)
	if c.shape.Usage {
		told := c.envelope()
		told.Choices, told.Usage = []choice{}, usageOf(p.usage)
		events = append(events, event(told)...)
	}
	return append(events, "data: "+Done+"\n\n"...), true, nil
}

// delta returns a piece as a choice of a chunk.
func (c *Chunks) delta(p piece) choice {
	if c.shape.Kind != job.Chat {
		c.begun = true
		at := c.length
		c.length += len(p.text)
		return choice{Text: &p.text, Reasoning: p.thinking, Logprobs: inCompletion(p.logprobs, at)}
	}
	m := &chatMessage{Content: &p.text, Reasoning: p.thinking}
	if !c.begun {
		c.begun, m.Role = true, "assistant"
	}
	m.ToolCalls = c.toolCalls(p.calls, true)
	return choice{Delta: m, Logprobs: inChat(p.logprobs)}
}

// toolCalls returns calls as OpenAI writes them, counted from the first of the
// answer. Each needs an id, for its result to name.
func (c *Chunks) toolCalls(calls []call, indexed bool) (list []openAICall) {
	for _, made := range calls {
		out := openAICall{ID: made.id, Type: "function", Function: openAIFunction{made.name, arguments(made.arguments)}}
		if len(made.arguments) == 0 || string(made.arguments) == "null" {
			out.Function.Arguments = "{}"
		}
		if out.ID == "" {
			out.ID = fmt.Sprintf("call_%s_%d", c.id, c.calls)
		}
		if index := c.calls; indexed {
			out.Index = &index
		}
		c.calls++
		list = append(list, out)
	}
	return list
}

func (c *Chunks) envelope() completion {
	object := "text_completion"
	if c.shape.Kind == job.Chat {
		object = "chat.completion.chunk"
	}
	return completion{ID: c.id, Object: object, Created: c.created.Unix(), Model: c.shape.Model, Fingerprint: "fp_ollama"}
}

func (c *Chunks) event(of choice) []byte {
	e := c.envelope()
	e.Choices = []choice{of}
	return event(e)
}

func usageOf(u *job.Usage) *openAIUsage {
	if u == nil {
		return &openAIUsage{}
	}
	return &openAIUsage{PromptTokens: u.PromptTokens, CompletionTokens: u.Tokens, TotalTokens: u.PromptTokens + u.Tokens}
}

// WholeChunk turns an undivided answer of Ollama's dialect into OpenAI's. What
// is yet to come of it is nothing, so that it needs no end.
func WholeChunk(body []byte, s Shape, id string, created time.Time) ([]byte, error) {
	p, err := readOllama(body)
	if err != nil {
		return nil, err
	}
	c := NewChunks(s, id, created)
	e := c.envelope()
	e.Usage = usageOf(p.usage)
	reason := finishReason(p.reason, len(p.calls) > 0)
	of := choice{Reason: &reason}
	if reason == "" {
		of.Reason = nil
	}
	if s.Kind == job.Chat {
		e.Object = "chat.completion"
		of.Message = &chatMessage{Role: "assistant", Content: &p.text, Reasoning: p.thinking, ToolCalls: c.toolCalls(p.calls, false)}
		of.Logprobs = inChat(p.logprobs)
	} else {
		of.Text, of.Reasoning, of.Logprobs = &p.text, p.thinking, inCompletion(p.logprobs, 0)
	}
	e.Choices = []choice{of}
	return job.Line(e), nil
}

// VectorList turns embeddings of Ollama's dialect into OpenAI's.
func VectorList(body []byte, s Shape) ([]byte, error) {
	var a ollamaVectors
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, fmt.Errorf("its answer: %w", err)
	}
	if a.Error != "" {
		return nil, failure(a.Error)
	}
	type embedding struct {
		Object    string `json:"object"`
		Embedding any    `json:"embedding"`
		Index     int    `json:"index"`
	}
	list := []embedding{}
	for i, v := range a.Embeddings {
		e := embedding{"embedding", v, i}
		if s.Base64 {
			e.Embedding = vector(v).base64()
		}
		list = append(list, e)
	}
	usage := map[string]int{"prompt_tokens": a.PromptTokens, "total_tokens": a.PromptTokens}
	return job.Line(map[string]any{"object": "list", "data": list, "model": s.Model, "usage": usage}), nil
}
