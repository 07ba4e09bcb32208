// Package dialect translates between Ollama's HTTP API and OpenAI's: requests
// and answers, whole or in pieces, in both directions. Requests of Anthropic's
// Messages and of OpenAI's Responses it translates into OpenAI's chats, and the
// answers back.
//
// It does no I/O and reads no clock. What cannot be said in the other dialect is
// an error, with the code Unsupported, where leaving it out would give another
// answer than was asked for; and otherwise a warning. Nothing is dropped without
// a word.
package dialect

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// OllamaVersion is that of the API which is translated: the one to tell clients
// who ask which Ollama they talk to.
const OllamaVersion = "0.17.4"

// Request is a request in the other dialect.
type Request struct {
	// Path is without what comes before it on the server: "/chat/completions"
	// or "/api/chat".
	Path string
	Body []byte
	// Warnings say what was left out.
	Warnings []string
	// Shape is how its client wants the answer.
	Shape Shape
	// Load says that nothing is to be answered: the client only wants the model
	// to be in memory. There is no Path then.
	Load bool
}

// Warning returns all warnings in one line.
func (r *Request) Warning() string { return Warning(r.Warnings) }

// Warning returns warnings in one line.
func Warning(list []string) string { return strings.Join(list, "; ") }

// Form is which API an answer looks like.
type Form int

// The forms.
const (
	OllamaForm    Form = iota // of Ollama's API
	MessageForm               // of Anthropic's /v1/messages
	ResponsesForm             // of OpenAI's /v1/responses
	OpenAIForm                // of the rest of OpenAI's
)

// Shape is how a client wants its answer.
type Shape struct {
	Kind job.Kind
	Form Form
	// ID names the answer, where answers have names.
	ID string
	// Old is the form of embeddings that Ollama had first, with one vector.
	Old bool
	// Stream tells whether it is wanted in pieces, and Usage whether the last
	// of them is to tell what it took.
	Stream, Usage bool
	// Model is the model by the client's name for it.
	Model string
	// Top is how many alternatives a token's probability is wanted with.
	Top int
	// Base64 has vectors come as text.
	Base64 bool
	// echo is what the answer repeats of the request.
	echo map[string]any
}

// unsupported returns the error for what has no words in the other dialect.
func unsupported(field, format string, args ...any) error {
	e := job.InvalidField(field, format, args...)
	e.Code = job.Unsupported
	return e
}

// parse decodes a request. It has been found to be a JSON object.
func parse(body []byte, into any) error {
	if err := json.Unmarshal(body, into); err != nil {
		return &job.Error{Code: job.Invalid, Detail: "not as expected", Err: err}
	}
	return nil
}

// strange returns the members of a JSON object that are none of those known and
// not null, in order. Both servers' decoders take names in any case.
func strange(object json.RawMessage, known string) []string {
	var members map[string]json.RawMessage
	if json.Unmarshal(object, &members) != nil {
		return nil
	}
	list := strings.Fields(known)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if string(members[name]) != "null" && !slices.ContainsFunc(list, func(k string) bool { return strings.EqualFold(k, name) }) {
			names = append(names, name)
		}
	}
	return names
}

// present reports whether a member is there and says something.
func present(value json.RawMessage) bool {
	switch string(value) {
	case "", "null", "{}", "[]", `""`:
		return false
	default:
		return true
	}
}

// encode returns a request's body. Of what is encoded here all can be.
func encode(v any) []byte { return []byte(strings.TrimSuffix(string(job.Line(v)), "\n")) }

// piece is a part of an answer, or all of it, in neither dialect.
type piece struct {
	text, thinking string
	calls          []call
	logprobs       []logprob
	// reason is why it ended, as Ollama says it; "" if it has not. stop is the
	// text that it was to end at, and did, where that is told.
	reason, stop string
	usage        *job.Usage
	total        time.Duration
}

// says reports whether there is something to read.
func (p *piece) says() bool { return p.text != "" || p.thinking != "" || len(p.logprobs) > 0 }

// call is a call of a tool. Arguments is a JSON object.
type call struct {
	id, name  string
	arguments json.RawMessage
}

// logprob is how likely a token was, and what else was. Both dialects write it
// alike.
type logprob struct {
	Token   string    `json:"token"`
	Logprob float64   `json:"logprob"`
	Bytes   []int     `json:"bytes,omitempty"`
	Top     []logprob `json:"top_logprobs,omitempty"`
}

// failure is an error that a server tells of within its answer.
func failure(detail string) error { return job.Errorf(job.BackendFailed, "%s", detail) }

// short cuts foreign text to what fits in a line.
func short(text []byte) string {
	const most = 80
	if len(text) > most {
		return strings.ToValidUTF8(string(text[:most]), "") + "…"
	}
	return string(text)
}
