// Package job is the vocabulary of work: what a client asks for, what backends
// could do it, what comes back, and how it fails.
//
// Everything that front-ends, routing, dispatch and backends hand to each
// other is here. The package does no I/O and holds no state.
package job

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/power"
)

// Kind is what a job asks of a model.
type Kind string

// The kinds of jobs.
const (
	Generate Kind = "generate" // continue a prompt
	Chat     Kind = "chat"     // answer a conversation
	Embed    Kind = "embed"    // turn text into vectors
)

// Class says who waits for the answer.
type Class string

// The classes. Nobody waits for a background job, so its seconds are worth
// nothing and a careful tier may put it off.
const (
	Interactive Class = "interactive"
	Background  Class = "background"
)

// Job is one request, whatever front-end it came from. It is not changed once
// it has been handed to dispatch.
type Job struct {
	// ID names the job in logs and on every wire.
	ID   string
	Kind Kind
	// Model is the model's name in the client's spelling, or "" to have one chosen.
	Model string
	// Chosen says that Model was chosen for the client, whose own request names
	// none, or not so that every backend takes it.
	Chosen bool
	// Original is the client's own request, if it came in a dialect that
	// backends speak; then Content is empty and the bytes are passed through.
	Original *Original
	Content  Content
	// PromptBytes is how much text the model has to read, and Prompt its
	// fingerprint; nil if there is none.
	PromptBytes int
	Prompt      Prompt
	// MaxTokens bounds the answer; zero leaves it to the model.
	MaxTokens int
	// ContextLength is how many tokens of context an Original asks for; zero
	// leaves it to the model.
	ContextLength int
	// Stream tells whether the answer is wanted in pieces.
	Stream bool
	// Tools tells that the model may call tools. Backends hold an answer back
	// while they look for a call in it.
	Tools bool
	// Completion tells that somebody is writing on, and waits for the answer
	// to go on with.
	Completion bool
	// KeepAsked is for how long the client wants the model to stay once the job
	// is done, Forever at most; nil leaves it open.
	KeepAsked *time.Duration
	// KeepAlive is for how long it may stay; nil leaves the request as it is.
	KeepAlive *time.Duration
	// Lengths is how long answers to such jobs were; zero if that is not known.
	Lengths Lengths
	// Client names who asks, as far as the wire can tell. Vouched tells that somebody
	// else says so, a token or the kernel; if not, it is what the client calls itself.
	Client  string
	Vouched bool
	Annotations
	// Arrived is when the request was complete. Latencies count from here.
	Arrived time.Time
	// Waited is for how long it had been there when it was decided.
	Waited time.Duration
}

// Annotations are what the client says of the job beside its content. The zero
// value asks for nothing in particular.
type Annotations struct {
	// Target is a backend's id or a device class; "" and "auto" leave it open.
	Target string
	// Preferred are the device classes that the client would rather have, and
	// does without where they do not fit.
	Preferred             []power.DeviceClass
	Class                 Class
	LatencyCritical       bool
	PreferPowerEfficiency bool
	// CacheEnabled permits answers that were given before, be they such as are
	// another every time, and CacheRefused does not permit any.
	CacheEnabled, CacheRefused bool
	// MaxLatency bounds the time from arrival to the first token, as predicted.
	MaxLatency time.Duration
	// MaxPower bounds the draw of the backend while it works.
	MaxPower power.Power
	// Deadline is how long after arrival the last token may come.
	Deadline time.Duration
	// Custom is kept for the client's own use.
	Custom map[string]string
}

// Dialect names the HTTP API that a request is written in.
type Dialect string

// The dialects.
const (
	Ollama Dialect = "ollama" // its own API, at /api/
	OpenAI Dialect = "openai" // that of many servers, at /v1/
	// Anthropic is that of some servers, at /v1/messages.
	Anthropic Dialect = "anthropic"
)

// Original is a client's request as it came.
type Original struct {
	Dialect Dialect
	// Path is the request's path, such as "/api/chat".
	Path string
	// Body is a valid JSON object in valid UTF-8.
	Body []byte
}

// Content is what a job asks, in our own terms, if it came over a wire that no
// backend speaks.
type Content struct {
	System   string
	Prompt   string    // for Generate
	Messages []Message // for Chat
	Input    []string  // for Embed
	Sampling Sampling
}

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"` // "system", "user", "assistant" or "tool"
	Content string `json:"content"`
}

// roles are those that a message can have.
var roles = []string{"system", "user", "assistant", "tool"}

// CheckMessages returns what is wrong with a conversation that came in no
// backend's dialect. The error has the code Invalid and names the message.
func CheckMessages(messages []Message) error {
	if len(messages) == 0 {
		return InvalidField("messages", "there are none")
	}
	for i, m := range messages {
		if !slices.Contains(roles, m.Role) {
			return InvalidField(fmt.Sprintf("messages[%d].role", i), "%q is none of %s", m.Role, strings.Join(roles, ", "))
		}
	}
	return nil
}

// Sampling steers how tokens are chosen. Nil fields leave it to the model.
type Sampling struct {
	Temperature, TopP   *float64
	TopK, ContextLength *int
	Stop                []string
}

// Bytes returns how much text the content holds.
func (c Content) Bytes() int {
	n := len(c.System) + len(c.Prompt)
	for _, m := range c.Messages {
		n += len(m.Content)
	}
	for _, s := range c.Input {
		n += len(s)
	}
	return n
}

// Head is how a backend begins its answer.
type Head struct {
	// Status is the backend's HTTP status, below 500: a backend's refusal of a
	// malformed request is an answer too.
	Status      int
	ContentType string
	// Length is the length of the whole answer, or -1 if it comes in pieces.
	Length int64
	// Warning says what of the request the backend could not be told, in whose
	// dialect there are no words for it; "" if it was told everything.
	Warning string
}

// Chunk is a piece of an answer.
type Chunk struct {
	// Raw is the backend's own bytes: whole lines of a stream, or a part of a
	// body. It is valid only until the call that hands it over returns.
	Raw []byte
	// Text is the generated text in Raw, for jobs without an Original.
	Text string
	// Pieces is how many pieces of a stream it holds: a token each, mostly.
	Pieces int
	// Vectors are the embeddings, for such jobs without an Original.
	Vectors [][]float32
	// Last marks the end of a complete answer. In a stream it holds the last
	// line alone.
	Last bool
	// Usage is what the backend counted, with the last chunk.
	Usage Usage
}

// Usage is what a backend says of the work it did. Zero means not told.
type Usage struct {
	PromptTokens, Tokens int
	// Cached is how many of the prompt's tokens had been read before.
	Cached                int
	Load, Prefill, Decode time.Duration
}

// Over returns u with what it does not tell as before.
func (u Usage) Over(before Usage) Usage {
	return Usage{
		PromptTokens: cmp.Or(u.PromptTokens, before.PromptTokens), Tokens: cmp.Or(u.Tokens, before.Tokens),
		Cached: cmp.Or(u.Cached, before.Cached),
		Load:   cmp.Or(u.Load, before.Load), Prefill: cmp.Or(u.Prefill, before.Prefill), Decode: cmp.Or(u.Decode, before.Decode),
	}
}
