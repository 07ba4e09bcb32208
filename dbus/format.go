package dbus

import (
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
)

// format is how an answer is written to a sink.
type format interface {
	// piece returns the bytes for a piece of text, end those for the last one,
	// and failure those for the reason why there is no more.
	piece(text string) []byte
	end(c job.Chunk, r *dispatch.Report) []byte
	failure(err error) []byte
}

// chooseFormat returns the format that options ask for, and the options that
// are the job's.
func chooseFormat(options map[string]godbus.Variant) (newFormat func(job.Job) format, rest map[string]godbus.Variant, err error) {
	name, rest, err := without(options, "format")
	switch {
	case err != nil:
		return nil, nil, err
	case name == nil, *name == "text":
		return newText, rest, nil
	case *name == "ndjson":
		return newLines, rest, nil
	default:
		return nil, nil, job.InvalidField("format", "want text or ndjson, got %q", *name)
	}
}

// The bytes that end an answer in plain text: end of transmission, and cancel.
const (
	endOfText    = '\x04'
	failedToText = '\x18'
)

// plainText is text as it is, but for the two bytes that end it.
type plainText struct{}

func newText(job.Job) format { return plainText{} }

func (plainText) piece(text string) []byte {
	return []byte(strings.Map(func(r rune) rune {
		if r == endOfText || r == failedToText {
			return -1
		}
		return r
	}, text))
}

func (t plainText) end(c job.Chunk, _ *dispatch.Report) []byte {
	return append(t.piece(c.Text), endOfText)
}

func (t plainText) failure(err error) []byte {
	return append([]byte{failedToText}, t.piece(err.Error())...)
}

// lines is a JSON object in each line, as in the stream of Ollama's /api/chat.
type lines struct {
	model   string
	limit   int // of tokens; 0 if there is none
	arrived time.Time
}

func newLines(j job.Job) format { return lines{model: j.Model, limit: j.MaxTokens, arrived: j.Arrived} }

// line is one of them, with the members in the order in which Ollama has them.
// Durations are in nanoseconds.
type line struct {
	Model              string         `json:"model"`
	CreatedAt          time.Time      `json:"created_at"`
	Message            job.Message    `json:"message"`
	Done               bool           `json:"done"`
	DoneReason         string         `json:"done_reason,omitempty"`
	TotalDuration      time.Duration  `json:"total_duration,omitempty"`
	LoadDuration       time.Duration  `json:"load_duration,omitempty"`
	PromptEvalCount    int            `json:"prompt_eval_count,omitempty"`
	PromptEvalDuration time.Duration  `json:"prompt_eval_duration,omitempty"`
	EvalCount          int            `json:"eval_count,omitempty"`
	EvalDuration       time.Duration  `json:"eval_duration,omitempty"`
	Joulemux           map[string]any `json:"joulemux,omitempty"`
}

func (l lines) line(text string) line {
	return line{Model: l.model, CreatedAt: time.Now().UTC(), Message: job.Message{Role: "assistant", Content: text}}
}

func (l lines) piece(text string) []byte { return job.Line(l.line(text)) }

func (l lines) end(c job.Chunk, r *dispatch.Report) []byte {
	last, u := l.line(c.Text), c.Usage
	last.Done, last.DoneReason = true, "stop"
	if l.limit > 0 && u.Tokens >= l.limit {
		last.DoneReason = "length"
	}
	last.TotalDuration, last.LoadDuration = time.Since(l.arrived), u.Load
	last.PromptEvalCount, last.PromptEvalDuration = u.PromptTokens, u.Prefill
	last.EvalCount, last.EvalDuration = u.Tokens, u.Decode
	if r != nil {
		last.Model, last.TotalDuration, last.Joulemux = r.Model, r.Total, r.Fields()
	}
	return job.Line(last)
}

func (lines) failure(err error) []byte {
	return job.Line(struct {
		Error string `json:"error"`
	}{err.Error()})
}
