package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"strings"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
)

// request is a conversation in Ollama's dialect, which every backend is asked in
// or translates: it has words for the form of an answer and for probabilities.
type request struct {
	Model    string          `json:"model"`
	Messages []job.Message   `json:"messages"`
	Stream   bool            `json:"stream"`
	Format   json.RawMessage `json:"format,omitempty"`
	Think    *bool           `json:"think,omitempty"`
	Logprobs bool            `json:"logprobs,omitempty"`
	Options  sampling        `json:"options"`
}

// sampling is by Ollama's names.
type sampling struct {
	MaxTokens     int      `json:"num_predict,omitempty"`
	Temperature   *float64 `json:"temperature,omitempty"`
	TopP          *float64 `json:"top_p,omitempty"`
	TopK          *int     `json:"top_k,omitempty"`
	ContextLength *int     `json:"num_ctx,omitempty"`
	Stop          []string `json:"stop,omitempty"`
}

// ask makes j, which has a stage's options, the job of answering a conversation.
func ask(j job.Job, s *Stage, messages []job.Message, probabilities bool) job.Job {
	of := j.Content.Sampling
	body := job.Line(request{
		Model: j.Model, Messages: messages, Stream: true, Format: s.format, Think: s.think, Logprobs: probabilities,
		Options: sampling{j.MaxTokens, of.Temperature, of.TopP, of.TopK, of.ContextLength, of.Stop},
	})
	content := job.Content{Messages: messages}
	j.Kind, j.Stream, j.Content = job.Chat, true, job.Content{}
	j.PromptBytes, j.Prompt = content.Bytes(), content.Fingerprint()
	if of.ContextLength != nil {
		j.ContextLength = *of.ContextLength
	}
	j.Original = &job.Original{Dialect: job.Ollama, Path: "/api/chat", Body: bytes.TrimSuffix(body, []byte("\n"))}
	return j
}

// answer takes the answer to a job.
type answer struct {
	// routed and tell are told what comes, as it comes; tell may be nil.
	routed func(route.Decision) error
	tell   func(ctx context.Context, text string) error

	gone     error // from routed
	decision *route.Decision
	report   *dispatch.Report
	text     strings.Builder
	told     bool // some of it
	refusal  []byte
	refused  bool
	tokens   int // of which a probability is known
	logs     float64
}

const (
	// longestAnswer is how much text is kept of an answer, in bytes.
	longestAnswer = 16 << 20
	// longestRefusal is how much is kept of a refusal.
	longestRefusal = 64 << 10
)

// Routed tells where the job goes.
func (a *answer) Routed(d route.Decision) {
	a.decision = &d
	a.gone = a.routed(d)
}

// Begin reports whether who waits is still there.
func (a *answer) Begin(h job.Head) error {
	a.refused = h.Status >= http.StatusBadRequest
	return a.gone
}

// Chunk adds lines of the answer.
func (a *answer) Chunk(ctx context.Context, c job.Chunk, r *dispatch.Report) error {
	if r != nil {
		a.report = r
	}
	if a.refused {
		a.refusal = append(a.refusal, c.Raw[:min(len(c.Raw), longestRefusal-len(a.refusal))]...)
		return nil
	}
	before := a.text.Len()
	for line := range bytes.Lines(c.Raw) {
		a.line(line)
	}
	if a.text.Len() > longestAnswer {
		return job.Errorf(job.Cancelled, "the answer is longer than %d bytes", longestAnswer)
	}
	if piece := a.text.String()[before:]; piece != "" && a.tell != nil {
		a.told = true
		return a.tell(ctx, piece)
	}
	return nil
}

// line adds a line.
func (a *answer) line(line []byte) {
	var l struct {
		Message  struct{ Content string }
		Logprobs []struct{ Logprob float64 }
	}
	if json.Unmarshal(line, &l) != nil {
		return // the backend has ended a stream that is none
	}
	a.text.WriteString(l.Message.Content)
	for _, token := range l.Logprobs {
		a.logs += math.Min(token.Logprob, 0)
		a.tokens++
	}
}

// err returns the refusal that the answer is, or nil.
func (a *answer) err() error {
	if !a.refused {
		return nil
	}
	var said struct{ Error string }
	if json.Unmarshal(a.refusal, &said) != nil || said.Error == "" {
		said.Error = strings.ToValidUTF8(string(a.refusal), "\uFFFD")
	}
	return job.Errorf(job.Invalid, "%s says %s", a.report.Decision.Backend, said.Error)
}

// confidence returns the geometric mean of the probabilities of the tokens, or nil
// if the server told none.
func (a *answer) confidence() *float64 {
	if a.tokens == 0 {
		return nil
	}
	mean := math.Exp(a.logs / float64(a.tokens))
	return &mean
}
