package httpapi

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
)

// tongue is how a client is spoken to: in the dialect of the path it came by.
type tongue struct {
	dialect job.Dialect
	// failure returns an error as the body of a response with that status.
	failure func(status int, e *wire.Error) []byte
	// broken returns what ends a stream that cannot be ended otherwise.
	broken func(*wire.Error) []byte
	// hasty clients ask again after any error that may pass, unless told that it
	// does not.
	hasty bool
}

// The tongues. Our own API has its errors from Ollama's.
var (
	inOllama    = tongue{job.Ollama, asBody(asLine), asLine, false}
	inOpenAI    = tongue{job.OpenAI, asBody(asOpenAI), asEvent, true}
	inResponses = tongue{job.OpenAI, asBody(asOpenAI), asResponsesEvent, true}
	inAnthropic = tongue{job.Anthropic, asAnthropic, asAnthropicEvent, true}
)

// asBody returns what says an error the same way, whatever status it has.
func asBody(say func(*wire.Error) []byte) func(int, *wire.Error) []byte {
	return func(_ int, e *wire.Error) []byte { return say(e) }
}

// tongueOf returns the one in which somebody asks: by the path and, where several
// dialects have it, by what clients of one tell.
func tongueOf(r *http.Request) tongue {
	switch path := r.URL.Path; {
	case path == "/v1/messages" || strings.HasPrefix(path, "/v1/messages/"):
		return inAnthropic
	case r.Header.Get("Anthropic-Version") != "" && strings.HasPrefix(path+"/", modelOf):
		return inAnthropic
	case path == "/v1/responses" || strings.HasPrefix(path, "/v1/responses/"):
		return inResponses
	case strings.HasPrefix(path, "/v1/"):
		return inOpenAI
	default:
		return inOllama
	}
}

func asLine(e *wire.Error) []byte { return job.Line(e) }

// asOpenAI returns an error as OpenAI's API has it, with our own code in it.
func asOpenAI(e *wire.Error) []byte {
	return dialect.OpenAIFailure{Message: e.Text, Type: openAIType(e.Code), Param: e.Field, Code: e.Code}.Body()
}

func asEvent(e *wire.Error) []byte { return append(append([]byte("data: "), asOpenAI(e)...), '\n') }

func asResponsesEvent(e *wire.Error) []byte {
	return dialect.ResponsesErrorEvent(e.Code, e.Text, e.Field)
}

func asAnthropic(status int, e *wire.Error) []byte {
	return dialect.AnthropicFailure{Type: anthropicType(status, e.Code), Message: e.Text}.Body()
}

func asAnthropicEvent(e *wire.Error) []byte {
	return dialect.AnthropicFailure{Type: anthropicType(0, e.Code), Message: e.Text}.Event()
}

// anthropicType returns Anthropic's word for what kind of error one of ours is.
// What is not there has no code of ours.
func anthropicType(status int, code string) string {
	if status == http.StatusNotFound {
		return "not_found_error"
	}
	switch code {
	case wire.CodeInvalid, wire.CodeUnsupported:
		return "invalid_request_error"
	case wire.CodePromptTooLarge:
		return "request_too_large"
	case wire.CodeModelNotFound, wire.CodeBackendNotFound:
		return "not_found_error"
	case wire.CodeUnauthenticated:
		return "authentication_error"
	case wire.CodeForbidden, wire.CodePowerPolicy:
		return "permission_error"
	case wire.CodeOverLimit:
		return "rate_limit_error"
	case wire.CodeBusy, wire.CodeNoBackend, wire.CodeStopping:
		return "overloaded_error"
	case wire.CodeDeadlinePassed:
		return "timeout_error"
	default:
		return "api_error"
	}
}

// openAIType returns OpenAI's word for what kind of error one of ours is.
func openAIType(code string) string {
	switch code {
	case wire.CodeInvalid, wire.CodePromptTooLarge, wire.CodeModelNotFound, wire.CodeBackendNotFound, wire.CodeUnsupported:
		return "invalid_request_error"
	case wire.CodeUnauthenticated:
		return "authentication_error"
	case wire.CodeForbidden:
		return "permission_error"
	case wire.CodeBusy, wire.CodeOverLimit:
		return "rate_limit_error"
	default:
		return "server_error"
	}
}

// fail answers with an error; in the backend's own words, if those are what
// failed the job and the client knows them.
func (t tongue) fail(w http.ResponseWriter, err error) {
	// It may have taken longer to fail than an answer may be left unread.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(unreadFor))
	e := asJobError(err)
	h := w.Header()
	if after := e.Again(); after > 0 {
		h.Set("Retry-After", strconv.Itoa(job.WholeSeconds(after)))
	} else if t.hasty {
		h.Set("X-Should-Retry", "false")
	}
	if a := e.Answer; a != nil && a.Dialect == t.dialect {
		if a.ContentType != "" {
			h.Set("Content-Type", a.ContentType)
		}
		h.Set("X-Joulemux-Error", header(e.Error()))
		w.WriteHeader(a.Status)
		_, _ = w.Write(a.Body)
		return
	}
	status, _ := statusOf(e.Code)
	t.refuse(w, status, describe(e))
}

// refuse answers with an error that has a status of its own.
func (t tongue) refuse(w http.ResponseWriter, status int, e *wire.Error) {
	write(w, status, t.failure(status, e))
}
