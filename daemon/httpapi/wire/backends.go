package wire

// Backends is the list of backends.
type Backends struct {
	Backends []Backend `json:"backends"`
}

// Backend is compute.v1's BackendInfo.
type Backend struct {
	ID           string       `json:"id"`
	Type         string       `json:"type"`
	Name         string       `json:"name"`
	Hardware     string       `json:"hardware"`
	Status       BackendState `json:"status"`
	Capabilities Capabilities `json:"capabilities"`
	Metrics      Metrics      `json:"metrics"`
	// Lacks names what has no effect there of what a job can ask, such as
	// "keep_alive".
	Lacks []string `json:"lacks,omitempty"`
	// Remote is there if the backend is not on this machine.
	Remote *Remote `json:"remote,omitempty"`
}

// Remote is who may leave this machine for a backend, and what that charges. When
// is "named", "needed" or "cheaper". Its watts are those of the radio.
type Remote struct {
	When    string   `json:"when"`
	Clients []string `json:"clients"` // "*" is any
	Classes []string `json:"classes"`
	// The prices are for a million tokens; without a currency there are none.
	InputPrice  float64 `json:"per_million_input,omitempty"`
	OutputPrice float64 `json:"per_million_output,omitempty"`
	Currency    string  `json:"currency,omitempty"`
}

// BackendState is compute.v1's BackendStatus. State is "healthy" or
// "unhealthy", and Message says why.
type BackendState struct {
	State         string `json:"state"`
	Message       string `json:"message"`
	LastCheckUnix int64  `json:"last_check_unix"`
}

// Capabilities is compute.v1's BackendCapabilities.
type Capabilities struct {
	Generate   bool     `json:"generate"`
	Embed      bool     `json:"embed"`
	Stream     bool     `json:"stream"`
	Models     []string `json:"models"`
	MaxContext int32    `json:"max_context"` // 0 if not known
}

// Metrics is compute.v1's BackendMetrics. PowerWatts is an assumption unless
// PowerQuality says otherwise.
type Metrics struct {
	AvgLatencyMs      int32    `json:"avg_latency_ms"`
	RequestsPerMinute int32    `json:"requests_per_minute"`
	ErrorRate         float64  `json:"error_rate"`
	PowerWatts        float64  `json:"power_watts"`
	PowerQuality      string   `json:"power_quality"`
	LoadedModels      []string `json:"loaded_models"`
}

// Health is compute.v1's HealthCheckResponse. Status is "healthy", "degraded"
// or "unhealthy"; no backend at all is unhealthy. Of each backend it is
// "healthy", "unhealthy" or, where the device sleeps until a job needs it,
// "asleep".
type Health struct {
	Status        string            `json:"status"`
	BackendHealth map[string]string `json:"backend_health"`
	TimestampUnix int64             `json:"timestamp_unix"`
}
