package dialect

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/joulemux/joulemux/daemon/job"
)

// Manner is how an API answers, as far as one has to know to pass its answers on
// as they came.
type Manner struct {
	Dialect job.Dialect
	// Look tells what an event, or an undivided answer, says of itself.
	Look func(data []byte) Sign
	// IsError reports whether an error has the form of the API, and Error returns
	// one that has.
	IsError func(body []byte) bool
	Error   func(status int, message string) []byte
	// AskUsage says that what a stream takes is told only to who asks for it.
	AskUsage bool
	// Answers tells how many answers the request asks for, each of which has its end
	// in a stream.
	Answers func() int
}

// MannerOf returns how a request is answered. One that came in no dialect is in
// Ollama's, of which nothing is told but the errors.
func MannerOf(o *job.Original) Manner {
	one := func() int { return 1 }
	openAI := func(status int, message string) []byte { return OpenAIError(status, message, "") }
	switch {
	case o == nil || o.Dialect == job.Ollama:
		none := func([]byte) bool { return false }
		return Manner{Dialect: job.Ollama, IsError: none, Error: func(_ int, message string) []byte { return OllamaError(message) }}
	case o.Dialect == job.Anthropic:
		return Manner{Dialect: job.Anthropic, Look: lookMessage, IsError: isAnthropicError, Error: AnthropicError, Answers: one}
	case IsResponses(o):
		return Manner{Dialect: job.OpenAI, Look: lookResponse, IsError: IsOpenAIError, Error: openAI, Answers: one}
	default:
		return Manner{Dialect: job.OpenAI, Look: Look, IsError: IsOpenAIError, Error: openAI, AskUsage: true, Answers: func() int { return answers(o.Body) }}
	}
}

// answers returns how many answers a chat or a completion asks for: so many for each
// prompt. A list of numbers is one prompt, in tokens.
func answers(body []byte) int {
	var q struct {
		N      *float64
		Prompt json.RawMessage
	}
	_ = json.Unmarshal(body, &q) // as it was before
	n := 1
	if q.N != nil {
		n = max(1, int(min(*q.N, 1<<20)))
	}
	var prompts []json.RawMessage
	var tokens []float64
	if json.Unmarshal(q.Prompt, &prompts) == nil && json.Unmarshal(q.Prompt, &tokens) != nil {
		n *= len(prompts)
	}
	return n
}

// ToChat translates a request of Anthropic's Messages or of OpenAI's Responses into
// a chat of OpenAI's, and reports whether it is one. The server calls its model by
// model, and the answer is to be called by the job's id.
func ToChat(j job.Job, model string, s Server) (r Request, ok bool, err error) {
	switch o := j.Original; {
	case o == nil:
		return r, false, nil
	case o.Dialect == job.Anthropic:
		r, err = FromMessages(o.Body, model, j.ID, s)
	case IsResponses(o):
		r, err = FromResponses(o.Body, model, j.ID, s)
	default:
		return r, false, nil
	}
	if r.Shape.Model == "" { // it was chosen for the client
		r.Shape.Model = j.Model
	}
	return r, true, err
}

// IsResponses reports whether a request is of OpenAI's Responses.
func IsResponses(o *job.Original) bool {
	return o.Dialect == job.OpenAI && strings.HasSuffix(o.Path, "/responses")
}

// lookMessage tells what an event of Anthropic's Messages, or an undivided answer,
// says of itself. What is at the beginning of a stream is not counted yet.
func lookMessage(data []byte) (s Sign) {
	if !mentions(data, `"message_delta"`, `"message_stop"`, `"message"`, `"error"`) {
		return s
	}
	var e struct {
		Type  string
		Delta struct {
			Reason string `json:"stop_reason"`
		}
		Usage struct {
			Input   int `json:"input_tokens"`
			Read    int `json:"cache_read_input_tokens"`
			Created int `json:"cache_creation_input_tokens"`
			Output  int `json:"output_tokens"`
		}
		Error struct{ Message string }
	}
	if json.Unmarshal(data, &e) != nil {
		return s
	}
	switch e.Type {
	case "message_stop":
		s.End = true
	case "error":
		s.Error = orUnsaid(e.Error.Message)
	case "message_delta", "message":
		if e.Delta.Reason != "" {
			s.Finished = []int{0}
		}
		s.Told = true
		s.Usage = job.Usage{PromptTokens: max(0, e.Usage.Input+e.Usage.Read+e.Usage.Created), Tokens: max(0, e.Usage.Output)}
	}
	return s
}

// lookResponse tells what an event of OpenAI's Responses, or an undivided answer,
// says of itself.
func lookResponse(data []byte) (s Sign) {
	if !mentions(data, `"response.completed"`, `"response.incomplete"`, `"response.failed"`, `"response"`, `"error"`) {
		return s
	}
	type answer struct {
		Object string
		Usage  struct {
			Input  int `json:"input_tokens"`
			Output int `json:"output_tokens"`
		}
		Error *struct{ Message string }
	}
	var e struct {
		answer
		Type, Message string
		Response      answer
	}
	if json.Unmarshal(data, &e) != nil {
		return s
	}
	a := e.Response
	switch e.Type {
	case "response.completed", "response.incomplete":
		s.End = true
	case "response.failed":
		s.Error = orUnsaid("")
		if a.Error != nil {
			s.Error = orUnsaid(a.Error.Message)
		}
		return s
	case "error":
		s.Error = orUnsaid(e.Message)
		return s
	case "":
		if a = e.answer; a.Object != "response" {
			return s
		}
	default:
		return s
	}
	s.Told = true
	s.Usage = job.Usage{PromptTokens: max(0, a.Usage.Input), Tokens: max(0, a.Usage.Output)}
	return s
}

// mentions reports whether one of these words, quotes and all, is in an event, of
// which then more has to be read. In a JSON string their quotes would be escaped.
func mentions(data []byte, words ...string) bool {
	for _, w := range words {
		if bytes.Contains(data, []byte(w)) {
			return true
		}
	}
	return false
}

// orUnsaid returns what an error says.
func orUnsaid(message string) string {
	if message == "" {
		return "an error without words"
	}
	return message
}

// isAnthropicError reports whether an error has the form of Anthropic's API.
func isAnthropicError(body []byte) bool {
	var e struct {
		Type  string
		Error struct{ Message *string }
	}
	return json.Unmarshal(body, &e) == nil && e.Type == "error" && e.Error.Message != nil
}
