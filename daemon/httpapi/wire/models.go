package wire

import "time"

// Models is the list of models over all backends.
type Models struct {
	Models []Model `json:"models"`
}

// Model is a model with certain weights, and the backends that have it. What
// nobody tells of it is missing.
type Model struct {
	Name string `json:"name"`
	// Names are all that it has, with one backend or another.
	Names        []string `json:"names"`
	Digest       string   `json:"digest"`
	SizeBytes    int64    `json:"size_bytes"` // 0 if nobody tells
	Family       string   `json:"family,omitempty"`
	Parameters   string   `json:"parameters,omitempty"`   // as in "494.03M"
	Quantisation string   `json:"quantisation,omitempty"` // as in "Q4_K_M"
	// MaxContext is in tokens.
	MaxContext int `json:"max_context,omitempty"`
	// Abilities are in Ollama's words, such as "completion", "tools", "vision",
	// "embedding" and "thinking".
	Abilities []string `json:"abilities,omitempty"`
	Backends  []string `json:"backends"`
	// Resident lists the backends where it is loaded.
	Resident []string `json:"resident"`
	Places   []Place  `json:"places"`
	// Fits tells of every backend that answers whether it would fit there.
	Fits []Fit `json:"fits"`
}

// Place is a model on a backend, by its name there. Until is when it goes from
// memory unless a job comes.
type Place struct {
	Backend  string     `json:"backend"`
	Name     string     `json:"name"`
	Resident bool       `json:"resident"`
	Until    *time.Time `json:"until,omitempty"`
}

// Fit is whether a model fits a device's memory: Verdict is "fits", "does not
// fit" or "unknown".
type Fit struct {
	Backend string `json:"backend"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
}

// PullOrder asks for a model to be fetched. Its events are Pulls, and an End with
// the members model, backend and bytes. Who asks as any client may, because jobs
// have models fetched, does not say anyway and insecure.
type PullOrder struct {
	Model string `json:"model"`
	// Backend is an id or a device class; without it, it is where a job for the
	// model would go.
	Backend string `json:"backend,omitempty"`
	// Anyway is on battery and by a metered connection, too.
	Anyway bool `json:"anyway,omitempty"`
	// Insecure permits a registry without TLS.
	Insecure bool `json:"insecure,omitempty"`
}

// Pull is how a model that is fetched is getting on.
type Pull struct {
	Model   string `json:"model"`
	Backend string `json:"backend"`
	// State is "starting", "pulling", "paused", "retrying", "done" or "failed".
	State string `json:"state"`
	// Note says why it is paused, or what broke, and Status what the backend
	// says of its work.
	Note   string `json:"note,omitempty"`
	Status string `json:"status,omitempty"`
	// Network is "unmetered", "metered" or, where nobody tells, "unknown".
	Network string `json:"network,omitempty"`
	// The parts of a model are told of one by one, mostly the largest first.
	CompletedBytes int64 `json:"completed_bytes"`
	TotalBytes     int64 `json:"total_bytes"`
	// These two are of the last seconds, and 0 if they are not known.
	BytesPerSecond float64 `json:"bytes_per_second"`
	SecondsLeft    float64 `json:"seconds_left"`
}
