package dbus

import (
	"context"
	"errors"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/power/tracker"
)

const ownErrors = "io.github.joulemux.Error."

// errorOf is the only place where a failure becomes an error of the bus. It has
// no place for when to ask again but its text.
func errorOf(err error) *godbus.Error {
	var e *job.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		return bus.Errorf(errorName(err), "%v; try again in %d s", err, job.WholeSeconds(e.RetryAfter))
	}
	return bus.Errorf(errorName(err), "%v", err)
}

func errorName(err error) string {
	var code job.Code
	switch e := (*job.Error)(nil); {
	case errors.As(err, &e):
		return nameOf(e.Code)
	case errors.As(err, &code):
		return nameOf(code)
	case errors.Is(err, tracker.ErrNotHolder):
		return bus.AccessDenied
	case errors.Is(err, tracker.ErrNoHold):
		return bus.InvalidArgs
	case errors.Is(err, tracker.ErrTooManyHolds):
		return bus.LimitsExceeded
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return ownErrors + "Cancelled"
	default:
		return bus.Failed
	}
}

func nameOf(c job.Code) string {
	switch c {
	case job.Invalid:
		return bus.InvalidArgs
	case job.Unsupported:
		return bus.NotSupported
	case job.BackendNotFound:
		// What the caller wrote as target names no backend: his argument is at
		// fault. NoBackend would have him wait for one.
		return bus.InvalidArgs
	case job.Forbidden, job.Unauthenticated:
		return bus.AccessDenied
	case job.OverLimit:
		return bus.LimitsExceeded
	case job.DeadlinePassed:
		return bus.Timeout
	case job.NoBackend:
		return ownErrors + "NoBackend"
	case job.ModelNotFound:
		return ownErrors + "ModelNotFound"
	case job.Busy:
		return ownErrors + "Busy"
	case job.PowerPolicy:
		return ownErrors + "PowerPolicy"
	case job.PromptTooLarge:
		return ownErrors + "PromptTooLarge"
	case job.BackendFailed:
		return ownErrors + "BackendFailed"
	case job.Cancelled, job.Stopping:
		return ownErrors + "Cancelled"
	default:
		return bus.Failed
	}
}
