package dialect

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// Stream turns an answer of OpenAI's dialect that comes in events into another
// form.
type Stream interface {
	// Event takes the data of an event that came at now, and returns what it
	// says in that form, and as text. There is none until there is something to
	// say.
	Event(data []byte, now time.Time) (out []byte, text string, err error)
	// Ended reports whether the stream has said that it is complete, and Complete
	// whether nothing of the answer is missing if there comes nothing more.
	Ended() bool
	Complete() bool
	// End returns what was held back until now, if anything was, and what ends
	// the stream, with what the answer took.
	End(now time.Time) (rest, last []byte, u job.Usage, err error)
}

// NewStream returns what turns the answer to a request that was sent at begun
// into that shape.
func NewStream(s Shape, begun time.Time) Stream {
	switch s.Form {
	case MessageForm:
		return newBlocks(begun, &message{shape: s})
	case ResponsesForm:
		return newBlocks(begun, newResponse(s, begun))
	default:
		return NewLines(s, begun)
	}
}

// hearing is what has been heard of an answer of OpenAI's dialect.
type hearing struct {
	begun time.Time

	calls        []part
	reason, stop string
	usage        *job.Usage
	first        time.Time // when there was something to read; zero while there is not
	ended        bool
}

// part is what has come of a call.
type part struct {
	index     int
	id, name  string
	arguments []byte
}

// hear takes the data of an event that came at now, and returns what it says, and
// the parts of calls in it.
func (h *hearing) hear(data []byte, now time.Time) (p piece, calls []openAICall, err error) {
	if string(data) == Done {
		h.ended = true
		return p, nil, nil
	}
	a, err := readOpenAI(data)
	if err != nil {
		return p, nil, err
	}
	if u := a.usage(); u != nil {
		h.usage = u
	}
	if len(a.Choices) == 0 {
		return p, nil, nil
	}
	if p, calls, err = a.Choices[0].piece(); err != nil {
		return p, nil, err
	}
	if p.reason != "" {
		h.reason, h.stop, p.reason = p.reason, p.stop, ""
	}
	if h.first.IsZero() && (p.says() || len(calls) > 0) {
		h.first = now
	}
	return p, calls, nil
}

// Ended reports whether the stream has said that it is complete.
func (h *hearing) Ended() bool { return h.ended }

// Complete reports whether the answer has come to an end.
func (h *hearing) Complete() bool { return h.ended || h.reason != "" }

// took returns what an answer took that has ended at now. Of a server that does
// not tell, times are as they look from here.
func (h *hearing) took(now time.Time) (u job.Usage) {
	if h.usage != nil {
		u = *h.usage
	}
	if u.Prefill == 0 && u.Decode == 0 && !h.first.IsZero() {
		u.Prefill, u.Decode = h.first.Sub(h.begun), now.Sub(h.first)
	}
	return u
}

// Lines turns a stream of OpenAI's dialect into Ollama's. It is a Stream.
type Lines struct {
	hearing
	shape Shape
}

// NewLines returns what turns the answer to a request that was sent at begun
// into lines of that shape.
func NewLines(s Shape, begun time.Time) *Lines {
	return &Lines{hearing: hearing{begun: begun}, shape: s}
}

// Event takes the data of an event that came at now, and returns what it says as
// a line, and as text. It has none until there is something to say.
func (l *Lines) Event(data []byte, now time.Time) (line []byte, text string, err error) {
	p, calls, err := l.hear(data, now)
	if err != nil {
		return nil, "", err
	}
	for _, c := range calls {
		if _, err := l.collect(c); err != nil {
			return nil, "", err
		}
	}
	p.logprobs = cut(p.logprobs, l.shape.Top)
	if !p.says() {
		return nil, "", nil
	}
	return p.line(l.shape, now), p.text, nil
}

// longestCalls bounds what is kept of calls, which are handed on when they are
// complete, and mostCalls how many there are.
const (
	longestCalls = 8 << 20
	mostCalls    = 1 << 10
)

// collect puts a part of a call to what there is of it, and returns which that
// is. A part belongs to the call with its index, unless it has another id: not
// all servers count.
func (h *hearing) collect(c openAICall) (at int, err error) {
	index := max(0, len(h.calls)-1)
	if c.Index != nil {
		index = *c.Index
	}
	at = slices.IndexFunc(h.calls, func(p part) bool { return p.index == index && (c.ID == "" || p.id == "" || p.id == c.ID) })
	if at < 0 {
		at = len(h.calls)
		h.calls = append(h.calls, part{index: index})
	}
	p := &h.calls[at]
	if c.ID != "" {
		p.id = c.ID
	}
	p.name += c.Function.Name
	p.arguments = append(p.arguments, c.Function.Arguments...)
	if len(h.calls) > mostCalls || len(p.arguments) > longestCalls {
		return 0, failure("it calls tools without end")
	}
	return at, nil
}

// End returns what was held back until now, if anything was, and the last line,
// with what the answer took.
func (l *Lines) End(now time.Time) (rest, last []byte, u job.Usage, err error) {
	calls, err := finished(l.calls)
	if err != nil {
		return nil, nil, job.Usage{}, err
	}
	if len(calls) > 0 {
		rest = (&piece{calls: calls}).line(l.shape, now)
	}
	u = l.took(now)
	end := piece{reason: cmp.Or(l.reason, "stop"), usage: &u, total: now.Sub(l.begun)}
	return rest, end.line(l.shape, now), u, nil
}

// finished returns calls that are complete.
func finished(parts []part) (list []call, err error) {
	for _, p := range parts {
		args := p.arguments
		if len(args) == 0 || string(args) == "null" {
			args = []byte("{}")
		}
		var object map[string]json.RawMessage
		if json.Unmarshal(args, &object) != nil || object == nil {
			return nil, failure(fmt.Sprintf("it calls %q with what is no JSON object: %s", p.name, short(args)))
		}
		list = append(list, call{p.id, p.name, args})
	}
	return list, nil
}

// Whole turns an undivided answer of OpenAI's dialect into that shape, and returns
// its text and what it took.
func Whole(body []byte, s Shape, begun, now time.Time) (answer []byte, text string, u job.Usage, err error) {
	a, err := readOpenAI(body)
	if err != nil {
		return nil, "", u, err
	}
	if len(a.Choices) == 0 {
		return nil, "", u, failure("there is no choice in its answer")
	}
	p, calls, err := a.Choices[0].piece()
	if err != nil {
		return nil, "", u, err
	}
	var h hearing
	for _, c := range calls {
		if _, err := h.collect(c); err != nil {
			return nil, "", u, err
		}
	}
	if p.calls, err = finished(h.calls); err != nil {
		return nil, "", u, err
	}
	p.logprobs = cut(p.logprobs, s.Top)
	p.usage, p.total = a.usage(), now.Sub(begun)
	if p.usage == nil {
		p.usage = new(job.Usage)
	}
	p.reason = cmp.Or(p.reason, "stop")
	switch s.Form {
	case MessageForm:
		answer = p.message(s)
	case ResponsesForm:
		answer = p.response(s, begun)
	default:
		answer = p.line(s, now)
	}
	return answer, p.text, *p.usage, nil
}

// Loaded returns Ollama's answer to who only wants the model to be in memory,
// where it is.
func Loaded(s Shape, now time.Time) []byte {
	return (&piece{reason: "load"}).line(s, now)
}

// Vectors turns embeddings of OpenAI's dialect into Ollama's, whose have a length
// of one but in their old form.
func Vectors(body []byte, s Shape, begun, now time.Time) (answer []byte, vectors [][]float32, u job.Usage, err error) {
	var a struct {
		Data []struct {
			Index     int
			Embedding vector
		}
		Usage *openAIUsage
		Error json.RawMessage
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, nil, u, fmt.Errorf("its answer: %w", err)
	}
	if present(a.Error) {
		return nil, nil, u, failure(OpenAIMessage(body))
	}
	vectors = make([][]float32, len(a.Data))
	for _, d := range a.Data {
		if d.Index < 0 || d.Index >= len(vectors) || vectors[d.Index] != nil || d.Embedding == nil {
			return nil, nil, u, failure("its vectors are not one for each text")
		}
		if !s.Old {
			d.Embedding = d.Embedding.unit()
		}
		vectors[d.Index] = d.Embedding
	}
	if a.Usage != nil {
		u.PromptTokens = max(0, a.Usage.PromptTokens)
	}
	if s.Old {
		if len(vectors) != 1 {
			return nil, nil, u, failure(fmt.Sprintf("it gives %d vectors for one text", len(vectors)))
		}
		return job.Line(map[string]any{"embedding": vectors[0]}), vectors, u, nil
	}
	return job.Line(ollamaVectors{Model: s.Model, Embeddings: vectors, Total: now.Sub(begun), PromptTokens: u.PromptTokens}), vectors, u, nil
}

// ollamaVectors is Ollama's answer with embeddings.
type ollamaVectors struct {
	Model        string        `json:"model"`
	Embeddings   [][]float32   `json:"embeddings"`
	Total        time.Duration `json:"total_duration,omitempty"`
	Load         time.Duration `json:"load_duration,omitempty"`
	PromptTokens int           `json:"prompt_eval_count,omitempty"`
	Error        string        `json:"error,omitempty"`
}
