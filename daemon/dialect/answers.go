package dialect

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// Lines turns a stream of OpenAI's dialect into Ollama's.
type Lines struct {
	shape Shape
	begun time.Time

	calls  []part
	reason string
	usage  *job.Usage
	first  time.Time // when there was something to read; zero while there is not
	ended  bool
}

// part is what has come of a call.
type part struct {
	index     int
	id, name  string
	arguments []byte
}

// NewLines returns what turns the answer to a request that was sent at begun
// into lines of that shape.
func NewLines(s Shape, begun time.Time) *Lines { return &Lines{shape: s, begun: begun} }

// Event takes the data of an event that came at now, and returns what it says as
// a line, and as text. It has none until there is something to say.
func (l *Lines) Event(data []byte, now time.Time) (line []byte, text string, err error) {
	if string(data) == Done {
		l.ended = true
		return nil, "", nil
	}
	a, err := readOpenAI(data)
	if err != nil {
		return nil, "", err
	}
	if u := a.usage(); u != nil {
		l.usage = u
	}
	if len(a.Choices) == 0 {
		return nil, "", nil
	}
	p, calls, err := a.Choices[0].piece()
	if err != nil {
		return nil, "", err
	}
	if err := l.collect(calls); err != nil {
		return nil, "", err
	}
	if p.reason != "" {
		l.reason, p.reason = p.reason, ""
	}
	p.logprobs = cut(p.logprobs, l.shape.Top)
	said := p.text != "" || p.thinking != "" || len(p.logprobs) > 0
	if l.first.IsZero() && (said || len(calls) > 0) {
		l.first = now
	}
	if !said {
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

// collect puts parts of calls to what there is of them. A part belongs to the
// call with its index, unless it has another id: not all servers count.
func (l *Lines) collect(parts []openAICall) error {
	for _, c := range parts {
		index := max(0, len(l.calls)-1)
		if c.Index != nil {
			index = *c.Index
		}
		at := slices.IndexFunc(l.calls, func(p part) bool { return p.index == index && (c.ID == "" || p.id == "" || p.id == c.ID) })
		if at < 0 {
			at = len(l.calls)
			l.calls = append(l.calls, part{index: index})
		}
		p := &l.calls[at]
		if c.ID != "" {
			p.id = c.ID
		}
		p.name += c.Function.Name
		p.arguments = append(p.arguments, c.Function.Arguments...)
		if len(l.calls) > mostCalls || len(p.arguments) > longestCalls {
			return failure("it calls tools without end")
		}
	}
	return nil
}

// Ended reports whether the stream has said that it is complete, and Complete
// whether nothing of the answer is missing if there comes nothing more.
func (l *Lines) Ended() bool { return l.ended }

// Complete reports whether the answer has come to an end.
func (l *Lines) Complete() bool { return l.ended || l.reason != "" }

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
	if l.usage != nil {
		u = *l.usage
	}
	if u.Prefill == 0 && u.Decode == 0 && !l.first.IsZero() {
		// The server does not tell. From here it looks like this.
		u.Prefill, u.Decode = l.first.Sub(l.begun), now.Sub(l.first)
	}
	end := piece{reason: l.reason, usage: &u, total: now.Sub(l.begun)}
	if end.reason == "" {
		end.reason = "stop"
	}
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

// Whole turns an undivided answer of OpenAI's dialect into Ollama's, and returns
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
	l := Lines{shape: s}
	if err := l.collect(calls); err != nil {
		return nil, "", u, err
	}
	if p.calls, err = finished(l.calls); err != nil {
		return nil, "", u, err
	}
	p.logprobs = cut(p.logprobs, s.Top)
	p.usage, p.total = a.usage(), now.Sub(begun)
	if p.usage == nil {
		p.usage = new(job.Usage)
	}
	if p.reason == "" {
		p.reason = "stop"
	}
	return p.line(s, now), p.text, *p.usage, nil
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
