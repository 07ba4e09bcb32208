package dialect

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// ollamaRequest is a request of Ollama's API, of any of its kinds.
type ollamaRequest struct {
	Model       string                     `json:"model"`
	Prompt      string                     `json:"prompt,omitempty"`
	Suffix      string                     `json:"suffix,omitempty"`
	System      string                     `json:"system,omitempty"`
	Template    string                     `json:"template,omitempty"`
	Context     json.RawMessage            `json:"context,omitempty"`
	Raw         bool                       `json:"raw,omitempty"`
	Messages    []ollamaMessage            `json:"messages,omitempty"`
	Images      []string                   `json:"images,omitempty"`
	Stream      *bool                      `json:"stream,omitempty"`
	Format      json.RawMessage            `json:"format,omitempty"`
	KeepAlive   json.RawMessage            `json:"keep_alive,omitempty"`
	Tools       json.RawMessage            `json:"tools,omitempty"`
	Options     map[string]json.RawMessage `json:"options,omitempty"`
	Think       json.RawMessage            `json:"think,omitempty"`
	Truncate    *bool                      `json:"truncate,omitempty"`
	Shift       *bool                      `json:"shift,omitempty"`
	Logprobs    bool                       `json:"logprobs,omitempty"`
	TopLogprobs int                        `json:"top_logprobs,omitempty"`
	Input       json.RawMessage            `json:"input,omitempty"`
	Dimensions  int                        `json:"dimensions,omitempty"`
	Render      bool                       `json:"_debug_render_only,omitempty"`
	Width       int                        `json:"width,omitempty"`
	Height      int                        `json:"height,omitempty"`
	Steps       int                        `json:"steps,omitempty"`
}

// ollamaMembers are the members of a request by its kind.
var ollamaMembers = map[job.Kind]string{
	job.Chat:     "model messages stream format keep_alive tools options think truncate shift logprobs top_logprobs _debug_render_only",
	job.Generate: "model prompt suffix system template context raw images stream format keep_alive options think truncate shift logprobs top_logprobs _debug_render_only width height steps",
	job.Embed:    "model input prompt keep_alive truncate dimensions options",
}

// ollamaMessage is a turn of a conversation.
type ollamaMessage struct {
	Role       string       `json:"role"`
	Content    string       `json:"content"`
	Thinking   string       `json:"thinking,omitempty"`
	Images     []string     `json:"images,omitempty"`
	ToolCalls  []ollamaCall `json:"tool_calls,omitempty"`
	ToolName   string       `json:"tool_name,omitempty"`
	ToolCallID string       `json:"tool_call_id,omitempty"`
}

const messageMembers = "role content thinking images tool_calls tool_name tool_call_id"

// ollamaCall is a call of a tool.
type ollamaCall struct {
	ID       string         `json:"id,omitempty"`
	Function ollamaFunction `json:"function"`
}

type ollamaFunction struct {
	Index     int             `json:"index"`
	Name      string          `json:"name"`
	Arguments json.RawMessage `json:"arguments"`
}

// ollamaAnswer is a line of a stream, or an undivided answer.
type ollamaAnswer struct {
	Model     string         `json:"model"`
	CreatedAt time.Time      `json:"created_at"`
	Message   *ollamaMessage `json:"message,omitempty"`
	Response  *string        `json:"response,omitempty"`
	Thinking  string         `json:"thinking,omitempty"`
	Logprobs  []logprob      `json:"logprobs,omitempty"`
	Done      bool           `json:"done"`
	Reason    string         `json:"done_reason,omitempty"`
	ollamaMetrics
	Error string `json:"error,omitempty"`
}

// ollamaMetrics tell what an answer took. Durations are in nanoseconds.
type ollamaMetrics struct {
	Total          time.Duration `json:"total_duration,omitempty"`
	Load           time.Duration `json:"load_duration,omitempty"`
	PromptTokens   int           `json:"prompt_eval_count,omitempty"`
	PromptDuration time.Duration `json:"prompt_eval_duration,omitempty"`
	Tokens         int           `json:"eval_count,omitempty"`
	Duration       time.Duration `json:"eval_duration,omitempty"`
}

// line returns a piece as a line of Ollama's.
func (p *piece) line(s Shape, now time.Time) []byte {
	a := ollamaAnswer{Model: s.Model, CreatedAt: now.UTC(), Logprobs: p.logprobs, Done: p.reason != "", Reason: p.reason}
	if s.Kind == job.Chat {
		a.Message = &ollamaMessage{Role: "assistant", Content: p.text, Thinking: p.thinking}
		for i, c := range p.calls {
			a.Message.ToolCalls = append(a.Message.ToolCalls, ollamaCall{c.id, ollamaFunction{i, c.name, c.arguments}})
		}
	} else {
		a.Response, a.Thinking = &p.text, p.thinking
	}
	if a.Done {
		a.Total = p.total
		if u := p.usage; u != nil {
			a.Load, a.PromptTokens, a.PromptDuration, a.Tokens, a.Duration = u.Load, u.PromptTokens, u.Prefill, u.Tokens, u.Decode
		}
	}
	return job.Line(a)
}

// readOllama returns a line of Ollama's, or an undivided answer, as a piece.
func readOllama(line []byte) (piece, error) {
	var a ollamaAnswer
	if err := json.Unmarshal(line, &a); err != nil {
		return piece{}, fmt.Errorf("a line of its answer: %w", err)
	}
	if a.Error != "" {
		return piece{}, failure(a.Error)
	}
	p := piece{thinking: a.Thinking, logprobs: a.Logprobs}
	if a.Response != nil {
		p.text = *a.Response
	}
	if m := a.Message; m != nil {
		p.text += m.Content
		p.thinking += m.Thinking
		for _, c := range m.ToolCalls {
			p.calls = append(p.calls, call{c.ID, c.Function.Name, c.Function.Arguments})
		}
	}
	if !a.Done {
		return p, nil
	}
	p.reason, p.usage = cmp.Or(a.Reason, "stop"), new(job.Usage)
	p.total = a.Total
	*p.usage = job.Usage{PromptTokens: a.PromptTokens, Tokens: a.Tokens, Load: a.Load, Prefill: a.PromptDuration, Decode: a.Duration}
	return p, nil
}

// OllamaError returns an error as Ollama writes it.
func OllamaError(message string) []byte {
	return job.Line(map[string]string{"error": message})
}

// formats are how images begin, by their type.
var formats = []struct{ magic, kind string }{
	{"\x89PNG", "png"}, {"\xff\xd8\xff", "jpeg"}, {"GIF8", "gif"}, {"RIFF", "webp"}, {"BM", "bmp"},
}

// imageURL returns an image of Ollama's, which is in base64, as a URL.
func imageURL(field, image string) (string, error) {
	if strings.HasPrefix(image, "data:") {
		return image, nil
	}
	head, err := base64.StdEncoding.DecodeString(image[:min(len(image), 16)])
	if err != nil {
		return "", job.InvalidField(field, "want an image in base64")
	}
	for _, f := range formats {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return "data:image/" + f.kind + ";base64," + image, nil
		}
	}
	return "", unsupported(field, "the image is none of png, jpeg, gif, webp and bmp")
}
