package grpcapi

import (
	"context"
	"errors"
	"strconv"

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
	if after := e.Again(); after > 0 {
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
	case job.ModelNotFound, job.BackendNotFound, job.PipelineNotFound:
		return connect.CodeNotFound
	case job.NoBackend, job.BackendFailed, job.Stopping:
		return connect.CodeUnavailable
	case job.PowerPolicy:
		return connect.CodeFailedPrecondition
	case job.Busy, job.OverLimit:
		return connect.CodeResourceExhausted
	case job.Cancelled:
		return connect.CodeCanceled
	case job.DeadlinePassed:
		return connect.CodeDeadlineExceeded
	case job.Unauthenticated:
		return connect.CodeUnauthenticated
	case job.Forbidden:
		return connect.CodePermissionDenied
	default:
		return connect.CodeInternal
	}
}
