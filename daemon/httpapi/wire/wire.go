// Package wire is the JSON of joulemux's own HTTP API, under /joulemux/v1/, and
// of /health and /backends. It is what the server writes and the client reads.
//
//	GET  /joulemux/v1/status            Status; with ?watch one line for each change
//	GET  /joulemux/v1/backends          Backends, as /backends
//	GET  /joulemux/v1/models            Models
//	POST /joulemux/v1/generate          Generate → a line for each Event
//	POST /joulemux/v1/chat              Chat → a line for each Event
//	POST /joulemux/v1/explain           Explain → Explanation; nothing is run
//	GET  /joulemux/v1/pipelines         Pipelines
//	GET  /joulemux/v1/pipelines/{name}  Pipeline, with its text
//	POST /joulemux/v1/pipelines/check   CheckPipeline → Pipeline; nothing is run
//	POST /joulemux/v1/pipelines/run     RunPipeline → a line for each PipelineEvent
//	POST /joulemux/v1/pull              PullOrder → a line for each Event
//	POST /joulemux/v1/hold              Hold → Held at once; the hold lasts as long as the response
//	GET, PUT /joulemux/v1/policy        Policy
//	GET, DELETE /joulemux/v1/cache      Cache; the latter empties it and tells what it had
//	GET  /joulemux/v1/energy            Energy; with ?by=, ?since= and ?until=
//	GET  /joulemux/v1/energy/{id}       EnergyJob
//
// What jobs took is by "day", "backend", "model" or "client", as by says;
// without it by backend. The days are those from since on, which is "30d" for
// the last 30 with today, a day such as "2026-03-14" or "all", to until, a day
// that is among them. Without either there is no such end.
//
// What fails before an answer begins has an HTTP status that says so and an
// Error as its body. Durations are in milliseconds, and figures carry their
// unit in their name.
package wire

// Error is a failure. Ollama's clients read its text from the member error.
type Error struct {
	Text string `json:"error"`
	// Code is one of the Code constants.
	Code string `json:"code"`
	// Field names what of the request is at fault.
	Field string `json:"field,omitempty"`
	// Refused says of each backend why it was not taken.
	Refused map[string]string `json:"refused,omitempty"`
	// RetryAfterSeconds is when the same may do better; zero if nobody knows.
	RetryAfterSeconds int `json:"retry_after_seconds,omitempty"`
}

// The codes.
const (
	CodeInvalid          = "invalid"
	CodePromptTooLarge   = "prompt_too_large"
	CodeModelNotFound    = "model_not_found"
	CodeJobNotFound      = "job_not_found"
	CodeBackendNotFound  = "backend_not_found"
	CodePipelineNotFound = "pipeline_not_found"
	CodeNoBackend        = "no_backend"
	CodePowerPolicy      = "power_policy"
	CodeBusy             = "busy"
	CodeOverLimit        = "over_limit"
	CodeCancelled        = "cancelled"
	CodeDeadlinePassed   = "deadline_passed"
	CodeBackendFailed    = "backend_failed"
	CodeUnsupported      = "unsupported" // by a backend, for which there are no words in its dialect
	CodeUnauthenticated  = "unauthenticated"
	CodeForbidden        = "forbidden"
	CodeStopping         = "stopping"
	CodeInternal         = "internal" // joulemux itself failed
)
