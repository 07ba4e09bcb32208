package job

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Code is why a job failed: what a front-end turns into its own wire's error.
// A Code is an error itself, to be found with errors.Is.
type Code string

// The ways in which a job fails.
const (
	Invalid          Code = "invalid request"
	PromptTooLarge   Code = "prompt too large"
	ModelNotFound    Code = "model not found"
	BackendNotFound  Code = "backend not found"
	PipelineNotFound Code = "pipeline not found"
	NoBackend        Code = "no backend"
	PowerPolicy      Code = "power policy"
	Busy             Code = "busy"
	Cancelled        Code = "cancelled"
	DeadlinePassed   Code = "deadline passed"
	BackendFailed    Code = "backend failed"
	Unsupported      Code = "not supported by the backend" // though it may be by another
	Unauthenticated  Code = "unauthenticated"              // who asks has to say who he is
	Forbidden        Code = "forbidden"
	OverLimit        Code = "over the client's limit"
	Stopping         Code = "joulemux is stopping"
)

// Error returns the code's text.
func (c Code) Error() string { return string(c) }

// Error is a failure with everything that the client should be told. Its Code
// is found with errors.Is.
type Error struct {
	Code Code
	// Field names what of the request is at fault, if one thing is.
	Field string
	// Detail says in words what is wrong, without repeating the code.
	Detail string
	// Refused tells why each backend was not taken, by its id.
	Refused map[string]string
	// RetryAfter is when the same request may do better; zero if nobody knows.
	RetryAfter time.Duration
	// Answer is a backend's own error response, if that is what failed the job.
	Answer *Answer
	// Told says that the backend's bytes, already handed on, end in an error
	// of their own, so that nobody should add a second one.
	Told bool
	// Err is the cause, if there is one below.
	Err error
}

// Again is when a client may ask again; zero if that would not help. Where
// nobody knows when, soon is as good as later.
func (e *Error) Again() time.Duration {
	const soon = 5 * time.Second
	passing := e.Code == Busy || e.Code == OverLimit || e.Code == NoBackend || e.Code == Stopping
	if e.RetryAfter == 0 && passing {
		return soon
	}
	return e.RetryAfter
}

// WholeSeconds returns a time to wait in seconds, as wires tell it: rounded up,
// so that nobody comes back too early.
func WholeSeconds(d time.Duration) int {
	return int((d + time.Second - 1) / time.Second)
}

// Answer is an error response in a backend's own words.
type Answer struct {
	// Dialect is that of the words: only who speaks it can be given them.
	Dialect     Dialect
	Status      int
	ContentType string
	Body        []byte
}

// Errorf returns an error with a code and a formatted detail.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// InvalidField returns the error for a request whose field is at fault.
func InvalidField(field, format string, args ...any) *Error {
	return &Error{Code: Invalid, Field: field, Detail: fmt.Sprintf(format, args...)}
}

// Error lists everything there is to say, in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Code))
	for _, part := range []string{e.Field, e.Detail} {
		if part != "" {
			b.WriteString(": " + part)
		}
	}
	for i, id := range slices.Sorted(maps.Keys(e.Refused)) {
		separator := "; "
		if i == 0 {
			separator = ": "
		}
		b.WriteString(separator + id + ": " + e.Refused[id])
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Is reports whether target is the error's code.
func (e *Error) Is(target error) bool { return target == e.Code }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
