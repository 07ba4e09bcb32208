package grpcapi

import (
	"context"
	"errors"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"github.com/joulemux/joulemux/daemon/job"
)

// The metadata of answers.
const (
	requestID  = "X-Request-Id"
	retryAfter = "Retry-After"
)

// errorOf is the only place where a failure becomes an error of the wire.
func errorOf(ctx context.Context, id string, err error) error {
	var e *job.Error
	if !errors.As(err, &e) {
		e = &job.Error{Code: job.Cancelled, Err: err}
	}
	code := codeOf(e.Code)
	if code == connect.CodeCanceled && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		code = connect.CodeDeadlineExceeded // the call's own, of which jobs know nothing
	}
	told := connect.NewError(code, errors.New(clip(e.Error())))
	if id != "" {
		told.Meta().Set(requestID, id)
	}
	if after := again(e); after > 0 {
		told.Meta().Set(retryAfter, strconv.Itoa(job.WholeSeconds(after)))
	}
	return told
}

// codeOf returns the code for a job's failure. It is the one table of them.
func codeOf(c job.Code) connect.Code {
	switch c {
	case job.Invalid, job.PromptTooLarge, job.Unsupported:
		// Of a prompt that is too large the next attempt would be, too; clients
		// take RESOURCE_EXHAUSTED for something that passes.
		return connect.CodeInvalidArgument
	case job.ModelNotFound, job.BackendNotFound:
		return connect.CodeNotFound
	case job.NoBackend, job.BackendFailed, job.Stopping:
		return connect.CodeUnavailable
	case job.PowerPolicy:
		return connect.CodeFailedPrecondition
	case job.Busy:
		return connect.CodeResourceExhausted
	case job.Cancelled:
		return connect.CodeCanceled
	case job.DeadlinePassed:
		return connect.CodeDeadlineExceeded
	case job.Forbidden:
		return connect.CodePermissionDenied
	default:
		return connect.CodeInternal
	}
}

// again is when a client may ask again; zero if that would not help. Where
// nobody knows when, soon is as good as later.
func again(e *job.Error) time.Duration {
	const soon = 5 * time.Second
	passing := e.Code == job.Busy || e.Code == job.NoBackend || e.Code == job.Stopping
	if e.RetryAfter == 0 && passing {
		return soon
	}
	return e.RetryAfter
}
