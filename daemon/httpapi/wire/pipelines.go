package wire

// Pipelines are what there is to run.
type Pipelines struct {
	Pipelines []Pipeline `json:"pipelines"`
}

// Pipeline is one of them. If there are faults, there is nothing else but where it
// is.
type Pipeline struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// Path is the file that it is in, and Text what that has.
	Path string `json:"path,omitempty"`
	Text string `json:"text,omitempty"`
	// NeedsInput tells that it does nothing without an input, and Vars are its
	// variables with their defaults; one that is null has to be given.
	NeedsInput    bool               `json:"needs_input,omitempty"`
	Vars          map[string]*string `json:"vars,omitempty"`
	MaxPowerWatts float64            `json:"max_power_watts,omitempty"`
	DeadlineMs    int64              `json:"deadline_ms,omitempty"`
	Stages        []PipelineStage    `json:"stages,omitempty"`
	Faults        []Fault            `json:"faults,omitempty"`
}

// PipelineStage is where a stage runs; what is missing is left open.
type PipelineStage struct {
	ID     string   `json:"id,omitempty"`
	Model  string   `json:"model,omitempty"`
	Target string   `json:"target,omitempty"`
	Tiers  []string `json:"tiers,omitempty"`
	// Escalation is where its answer is improved, if it may be.
	Escalation *PipelineStage `json:"escalation,omitempty"`
}

// Fault is something that is wrong with a file.
type Fault struct {
	Line int    `json:"line,omitempty"` // 0 if no line is to blame
	Key  string `json:"key,omitempty"`  // the path of keys, such as "stages[0].prompt"
	Text string `json:"text"`
}

// CheckPipeline asks what is wrong with the text of a pipeline.
type CheckPipeline struct {
	Name string `json:"name,omitempty"`
	Text string `json:"text"`
}

// RunPipeline asks for a run of a pipeline: of the one that there is by that name,
// or, under that name, of Text.
type RunPipeline struct {
	Pipeline string            `json:"pipeline"`
	Text     string            `json:"text,omitempty"`
	Input    string            `json:"input,omitempty"`
	Vars     map[string]string `json:"vars,omitempty"`
	// Options are a model and annotations, which go before those of the stages;
	// deadline_ms is of the whole run.
	Options map[string]any `json:"options,omitempty"`
	// Stream has answers told as they come, PreserveContext each stage know what was
	// said before, and ContinueOnError the run go on after a stage that fails.
	Stream          bool `json:"stream,omitempty"`
	PreserveContext bool `json:"preserve_context,omitempty"`
	ContinueOnError bool `json:"continue_on_error,omitempty"`
	StageTimeoutMs  int  `json:"stage_timeout_ms,omitempty"`
}

// PipelineEvent is one line of a run. Beside Stage and Last one member is set. A run
// is over if its last line is End or Error.
type PipelineEvent struct {
	Stage string `json:"stage,omitempty"`
	// Last tells, with Routed, that no other stage can follow.
	Last bool `json:"last,omitempty"`
	// Routed says where a job of the stage goes, as in Event, and Text is the next
	// piece of its answer.
	Routed map[string]any `json:"routed,omitempty"`
	Text   string         `json:"text,omitempty"`
	Done   *StageDone     `json:"done,omitempty"`
	End    *PipelineEnd   `json:"end,omitempty"`
	Error  *Error         `json:"error,omitempty"`
}

// StageDone is what a stage came to. The sums are of all its jobs.
type StageDone struct {
	Output string `json:"output"`
	// Skipped says why it was not run, and Error why it has no answer.
	Skipped string `json:"skipped,omitempty"`
	Error   *Error `json:"error,omitempty"`
	// These are of the job whose answer it is.
	Backend  string `json:"backend_used,omitempty"`
	Hardware string `json:"hardware,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Model    string `json:"model,omitempty"`
	// Confidence is the geometric mean of the probabilities of the answer's tokens;
	// missing is not known.
	Confidence *float64 `json:"confidence,omitempty"`
	// Escalated tells that it is another model's answer, and Escalation why, or why
	// not.
	Escalated     bool     `json:"escalated,omitempty"`
	Escalation    string   `json:"escalation,omitempty"`
	Attempts      int      `json:"attempts"`
	PromptTokens  int      `json:"prompt_tokens"`
	Tokens        int      `json:"tokens_generated"`
	TotalMs       int64    `json:"total_time_ms"`
	EnergyQuality string   `json:"energy_quality"`
	EnergyJoules  *float64 `json:"energy_joules,omitempty"`
	// Jobs are the reports of those that were answered, as in Event.
	Jobs []map[string]any `json:"jobs"`
}

// PipelineEnd is what a run came to. The sums are of all its jobs, and the quality
// of the energy is that of the weakest part.
type PipelineEnd struct {
	ID       string `json:"id"`
	Pipeline string `json:"pipeline"`
	// Stage is the one whose answer is the output.
	Stage         string   `json:"stage"`
	Output        string   `json:"output"`
	Jobs          int      `json:"jobs"`
	PromptTokens  int      `json:"prompt_tokens"`
	Tokens        int      `json:"tokens_generated"`
	TotalMs       int64    `json:"total_time_ms"`
	EnergyQuality string   `json:"energy_quality"`
	EnergyJoules  *float64 `json:"energy_joules,omitempty"`
}
