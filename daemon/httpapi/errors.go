package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
)

// statusOf returns the status and the word for a job's failure. It is the one
// table of them.
func statusOf(c job.Code) (status int, code string) {
	switch c {
	case job.Invalid:
		return http.StatusBadRequest, wire.CodeInvalid
	case job.PromptTooLarge:
		return http.StatusRequestEntityTooLarge, wire.CodePromptTooLarge
	case job.ModelNotFound:
		return http.StatusNotFound, wire.CodeModelNotFound
	case job.BackendNotFound:
		return http.StatusNotFound, wire.CodeBackendNotFound
	case job.PipelineNotFound:
		return http.StatusNotFound, wire.CodePipelineNotFound
	case job.NoBackend:
		return http.StatusServiceUnavailable, wire.CodeNoBackend
	case job.PowerPolicy:
		return http.StatusConflict, wire.CodePowerPolicy
	case job.Busy:
		return http.StatusTooManyRequests, wire.CodeBusy
	case job.Cancelled:
		return statusClientClosed, wire.CodeCancelled
	case job.DeadlinePassed:
		return http.StatusGatewayTimeout, wire.CodeDeadlinePassed
	case job.OverLimit:
		return http.StatusTooManyRequests, wire.CodeOverLimit
	case job.Unauthenticated:
		return http.StatusUnauthorized, wire.CodeUnauthenticated
	case job.Forbidden:
		return http.StatusForbidden, wire.CodeForbidden
	case job.Stopping:
		return http.StatusServiceUnavailable, wire.CodeStopping
	case job.Unsupported:
		return http.StatusBadRequest, wire.CodeUnsupported
	case job.BackendFailed:
		return http.StatusBadGateway, wire.CodeBackendFailed
	default:
		return http.StatusInternalServerError, wire.CodeInternal
	}
}

// statusClientClosed is nginx's for a client that is gone; it is seen in logs
// and tests alone.
const statusClientClosed = 499

// asJobError returns err as the error it is, or as one of the wire's own.
func asJobError(err error) *job.Error {
	var e *job.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.Canceled):
		return job.Errorf(job.Cancelled, "the client is gone")
	default:
		return &job.Error{Code: job.Invalid, Err: err}
	}
}

// describe returns a failure as our JSON.
func describe(err error) *wire.Error {
	e := asJobError(err)
	_, code := statusOf(e.Code)
	return &wire.Error{Text: e.Error(), Code: code, Field: e.Field, Refused: e.Refused, RetryAfterSeconds: job.WholeSeconds(e.RetryAfter)}
}

// fail answers with an error in Ollama's dialect, of which our own API's errors
// are, too.
func fail(w http.ResponseWriter, err error) { inOllama.fail(w, err) }

// reply writes a JSON answer with a status.
func reply(w http.ResponseWriter, status int, v any) { write(w, status, job.Line(v)) }

// write writes an answer that is JSON already.
func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// header makes text fit for a header: printable ASCII, on one line.
func header(text string) string {
	const most = 1024
	b := make([]byte, 0, min(len(text), most))
	for i := 0; i < len(text) && len(b) < most; i++ {
		if c := text[i]; c >= ' ' && c <= '~' {
			b = append(b, c)
		} else if c < 0x80 || c >= 0xC0 { // one mark for each rune
			b = append(b, '?')
		}
	}
	return string(b)
}
