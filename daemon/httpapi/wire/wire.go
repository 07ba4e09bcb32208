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

import "time"

// Status is what there is to know at one moment.
type Status struct {
	Version    string    `json:"version"`
	Tier       string    `json:"tier"`
	TierReason string    `json:"tier_reason"`
	Since      time.Time `json:"since"`
	Supply     Supply    `json:"supply"`
	// Profile is the power profile, "" if no daemon keeps one.
	Profile string `json:"profile"`
	Policy  string `json:"policy"`
	Holds   []Held `json:"holds"`
	// ActiveBackend is where an ordinary job would go now, "" if nowhere, and
	// ActiveReason says why.
	ActiveBackend string `json:"active_backend"`
	ActiveReason  string `json:"active_reason"`
	// Running is how many jobs are under way.
	Running int `json:"running"`
	Machine
	Backends []Backend `json:"backends"`
}

// Machine is what there is to see of the machine, read for whoever asks.
type Machine struct {
	// DrawWatts is what the machine takes from its battery, if it says so.
	DrawWatts *float64 `json:"draw_watts,omitempty"`
	// Draws are what single sensors say, and Devices the graphics and neural
	// processors, read without waking any.
	Draws   []Draw   `json:"draws"`
	Devices []Device `json:"devices"`
	// Unreadable are domains with a sensor that root alone may read.
	Unreadable []string `json:"unreadable,omitempty"`
	// Heat is the processor's, if it can be read, and Degraded why the machine
	// does not perform as its power profile promises, as in "lap-detected".
	Heat     *Heat  `json:"heat,omitempty"`
	Degraded string `json:"degraded,omitempty"`
	// CrossCheck is how the sensors compare with the battery, after five minutes
	// on it.
	CrossCheck *CrossCheck `json:"cross_check,omitempty"`
}

// Heat is how hot the processor is. Vetoed tells that it should be given no more
// work, and Reason why.
type Heat struct {
	Celsius float64 `json:"celsius"` // 0 if not known
	Vetoed  bool    `json:"vetoed"`
	Reason  string  `json:"reason,omitempty"`
}

// CrossCheck is what the sensors counted beside what the batteries gave. The
// sensors do not see all of a machine: a ratio over 1 is a fault.
type CrossCheck struct {
	Seconds       float64 `json:"seconds"`
	BatteryJoules float64 `json:"battery_joules"`
	SensorsJoules float64 `json:"sensors_joules"`
	Ratio         float64 `json:"ratio"`
}

// Draw is what a part of the machine takes now. Domains contain each other, so
// they do not add up.
type Draw struct {
	Domain string  `json:"domain"` // as in "package-0"
	Scope  string  `json:"scope"`  // "platform", "package", "core", "uncore", "dram", "npu" or "dgpu"
	Source string  `json:"source"` // the sensor, as in "rapl"
	Watts  float64 `json:"watts"`
	// Asleep devices were not asked.
	Asleep bool `json:"asleep,omitempty"`
}

// Device is a graphics or neural processor, as the kernel's power management
// sees it.
type Device struct {
	Address string `json:"address"` // on the PCI bus
	Vendor  string `json:"vendor"`  // "nvidia", "amd" or "intel", or the number on the bus
	Kind    string `json:"kind"`    // "display" or "accelerator"
	// Status is the kernel's runtime_status, such as "active" or "suspended",
	// and PowerState the bus's, such as "D0" or "D3cold".
	Status      string `json:"status"`
	PowerState  string `json:"power_state"`
	SuspendedMs int64  `json:"suspended_ms"`
	ActiveMs    int64  `json:"active_ms"`
	// BusyMs is for how long there has been work for it, where it tells.
	BusyMs int64 `json:"busy_ms,omitempty"`
	// NeverSleeps tells that the device is set to stay on.
	NeverSleeps bool `json:"never_sleeps,omitempty"`
}

// Supply is how the machine is powered.
type Supply struct {
	Source        string  `json:"source"` // "upower", "sysfs" or ""
	Battery       bool    `json:"battery"`
	Discharging   bool    `json:"discharging"`
	ChargePercent float64 `json:"charge_percent"`
	Text          string  `json:"text"` // for people
}

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

// Generate asks for the continuation of a prompt. The options are named as the
// fields of compute.v1's JobAnnotations and GenerationOptions; model, system,
// class and deadline_ms are options too.
type Generate struct {
	Prompt  string         `json:"prompt"`
	Options map[string]any `json:"options,omitempty"`
}

// Chat asks for the next turn of a conversation.
type Chat struct {
	Messages []Message      `json:"messages"`
	Options  map[string]any `json:"options,omitempty"`
}

// Explain asks what would become of the same as a Generate. Tier is one to
// suppose; without it, it is that in force.
type Explain struct {
	Prompt  string         `json:"prompt"`
	Options map[string]any `json:"options,omitempty"`
	Tier    string         `json:"tier,omitempty"`
}

// Explanation is what would become of a job now, and why.
type Explanation struct {
	Tier  string `json:"tier"`
	Model string `json:"model"`
	// Backend is where the job would go and Reason says why, or Error says why
	// it would go nowhere.
	Backend string `json:"backend,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Error   *Error `json:"error,omitempty"`
	// Waits tells that the job would be kept until the tier is better, and
	// decided anew then.
	Waits bool `json:"waits,omitempty"`
	// SecondWatts is what a second is worth, as joules that may be spent to
	// save it. It is missing if any number of them may be.
	SecondWatts *float64 `json:"second_watts,omitempty"`
	// PromptTokens is estimated from the length of the text.
	PromptTokens   int            `json:"prompt_tokens"`
	ExpectedTokens ExpectedTokens `json:"expected_tokens"`
	// Backends are all there are: that which was chosen, the others that the
	// job may run on, the next best first, and those that it may not run on.
	Backends []Prospect `json:"backends"`
}

// ExpectedTokens is how long the answer is expected to be. Half of such answers
// do not exceed the median. Learned tells lengths of earlier answers from those
// that are assumed.
type ExpectedTokens struct {
	Median  int     `json:"median"`
	Mean    float64 `json:"mean"`
	Learned bool    `json:"learned"`
}

// Prospect is what a job would come to on one backend.
type Prospect struct {
	ID       string `json:"id"`
	Hardware string `json:"hardware"`
	Model    string `json:"model,omitempty"` // as it is called there, if it is there
	// Fit backends may run the job, and Verdict says what was decided of this
	// one.
	Fit     bool   `json:"fit"`
	Verdict string `json:"verdict"`
	// Estimate is missing where the model is.
	Estimate *Estimate `json:"estimate,omitempty"`
}

// Estimate is what a job is predicted to need.
type Estimate struct {
	// Joules are all: LoadJoules are for making the model resident, WorkJoules
	// for reading the prompt and writing the answer, and TailJoules for what
	// the device takes because the model is kept ready afterwards.
	Joules     float64 `json:"joules"`
	LoadJoules float64 `json:"load_joules"`
	WorkJoules float64 `json:"work_joules"`
	TailJoules float64 `json:"tail_joules"`
	// JoulesPerToken is what a token of the answer takes by itself; 0 if that
	// is not known.
	JoulesPerToken float64 `json:"joules_per_token"`
	Watts          float64 `json:"watts"`
	// FirstTokenMs and TotalMs count from now, with what WaitMs and LoadMs are
	// of standing in line and of loading.
	FirstTokenMs int64 `json:"first_token_ms"`
	TotalMs      int64 `json:"total_ms"`
	WaitMs       int64 `json:"wait_ms"`
	LoadMs       int64 `json:"load_ms"`
	// LateProbability is that of the last token to come after it is due.
	LateProbability float64 `json:"late_probability"`
	// CostJoules is what backends are compared by: joules, seconds by what they
	// are worth, and the risk to be late.
	CostJoules float64 `json:"cost_joules"`
	// Quality is "derived" if the joules were learned from jobs, "estimated" if
	// they are assumed, or "none" if nothing is spent here. Samples is how many
	// jobs the backend has done of this model.
	Quality string `json:"quality"`
	Samples int    `json:"samples"`
}

// Message is one turn. Role is "system", "user", "assistant" or "tool".
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Event is one line of an answer; one of its members is set. A stream is
// complete if its last line is End or Error.
type Event struct {
	// Routed says where the job goes, and comes again on a fallback: the
	// fields of a decision.
	Routed map[string]any `json:"routed,omitempty"`
	// Text is the next piece of the answer.
	Text string `json:"text,omitempty"`
	// Pull says how the model is getting on which is fetched.
	Pull *Pull `json:"pull,omitempty"`
	// End says what the job took: the fields of a report, which are described
	// in dbus/io.github.joulemux.Inference1.xml. What its devices take after
	// the last token is in EnergyJob some seconds later.
	End map[string]any `json:"end,omitempty"`
	// Error says why there is no more.
	Error *Error `json:"error,omitempty"`
}

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

// PullOrder asks for a model to be fetched. Its events are Pulls, and an End with
// the members model, backend and bytes.
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

// Hold asks to keep the tier at least as careful as Tier. Reason is for people,
// in at most 256 bytes.
type Hold struct {
	Tier   string `json:"tier"`
	Reason string `json:"reason"`
}

// Held is a hold in force. A line with Released set says that it has ended
// though its holder has not ended it.
type Held struct {
	Cookie   uint32    `json:"cookie"`
	Tier     string    `json:"tier"`
	Reason   string    `json:"reason"`
	Holder   string    `json:"holder"`
	Since    time.Time `json:"since"`
	Released bool      `json:"released,omitempty"`
}

// Policy is what the user has chosen for good: "auto", "saver", "balanced" or
// "performance".
type Policy struct {
	Policy string `json:"policy"`
}

// Energy is what jobs took on some days, from the ledger.
type Energy struct {
	// From and Until are the first and the last day, as in "2026-03-14", or ""
	// for an end that is open.
	From   string        `json:"from"`
	Until  string        `json:"until"`
	By     string        `json:"by"`
	Totals []EnergyTotal `json:"totals"` // in the order of their keys
	// All is of all of them. Each figure is rounded up by itself, so that this
	// one may be a little less than the others together.
	All EnergyTotal `json:"all"`
	// Tariff is what energy costs the user, if that is configured.
	Tariff *Tariff `json:"tariff,omitempty"`
	// BatteryWh is what this machine's batteries hold when they are full, if
	// that is known.
	BatteryWh *float64 `json:"battery_wh,omitempty"`
	// Trouble is why the ledger cannot use its file. Then costs are kept in
	// memory, and those that are in the file alone are missing here.
	Trouble string `json:"trouble,omitempty"`
}

// Tariff is what energy costs.
type Tariff struct {
	PricePerKWh float64 `json:"price_per_kwh"`
	Currency    string  `json:"currency"` // "" if nobody said
}

// EnergyTotal is what jobs that have something in common took. An attempt that
// failed counts as a job, as does the one that took its place.
//
// Figures of different qualities are not added up: what was measured is not
// made better by what was assumed, nor the other way round.
type EnergyTotal struct {
	Key string `json:"key"` // the day, backend, model or client; "" is not known, or all
	// These are of all jobs, the unknown ones too.
	Jobs         int64 `json:"jobs"`
	Failed       int64 `json:"failed"`
	PromptTokens int64 `json:"prompt_tokens"`
	Tokens       int64 `json:"tokens"`

	Measured  EnergySum `json:"measured"`
	Derived   EnergySum `json:"derived"`
	Estimated EnergySum `json:"estimated"`
	// UnknownJobs took energy that no sensor told, and NoneJobs took none here.
	UnknownJobs int64 `json:"unknown_jobs"`
	NoneJobs    int64 `json:"none_jobs"`
	// RadioJoules is what the network took while jobs ran elsewhere, by assumption.
	RadioJoules float64 `json:"radio_joules,omitempty"`
	// Cost is what the energy costs, the radio's and the tails included, and what
	// remote servers charge: once for each currency, as different ones are not
	// added up.
	Cost []Cost `json:"cost,omitempty"`
}

// Cost is money, in the unit of a currency. Amount is both others together.
type Cost struct {
	Currency     string  `json:"currency"` // "" is that of a tariff of which nobody said
	Amount       float64 `json:"amount"`
	EnergyAmount float64 `json:"energy_amount"`
	RemoteAmount float64 `json:"remote_amount"`
	// RemoteJobs is how many were charged for, and of UnknownJobs of them the server
	// did not say how much there was to charge for: that is not in it.
	RemoteJobs  int64 `json:"remote_jobs,omitempty"`
	UnknownJobs int64 `json:"unknown_jobs,omitempty"`
}

// EnergySum is what jobs of one quality took. Wh is Joules in another unit;
// GrossJoules has the jobs' share of the idle draw too; LoadJoules are a part
// of Joules, and TailJoules are not: they were taken after the last token.
type EnergySum struct {
	Jobs         int64   `json:"jobs"`
	Failed       int64   `json:"failed"`
	PromptTokens int64   `json:"prompt_tokens"`
	Tokens       int64   `json:"tokens"`
	Joules       float64 `json:"joules"`
	GrossJoules  float64 `json:"gross_joules"`
	LoadJoules   float64 `json:"load_joules"`
	TailJoules   float64 `json:"tail_joules"`
	Wh           float64 `json:"wh"`
}

// EnergyJob is what the ledger has of one job.
type EnergyJob struct {
	ID string `json:"id"`
	// Attempts are on one backend each. The last is the one that answered,
	// unless it has failed too.
	Attempts []EnergyAttempt `json:"attempts"`
	Trouble  string          `json:"trouble,omitempty"`
}

// EnergyAttempt is one attempt at a job, and what it took. Times that are zero
// are not known. The members about energy are those that an answer's report
// has, and the tail.
type EnergyAttempt struct {
	ID           string    `json:"id"` // the job's, and from the second on a number behind it
	Arrived      time.Time `json:"arrived"`
	Ended        time.Time `json:"ended"`
	Backend      string    `json:"backend"`
	Hardware     string    `json:"hardware"`
	Model        string    `json:"model"`
	Client       string    `json:"client"`
	Class        string    `json:"class"`
	Tier         string    `json:"tier"`
	OnBattery    bool      `json:"on_battery"`
	PromptTokens int       `json:"prompt_tokens"`
	Tokens       int       `json:"tokens"`
	LoadMs       int64     `json:"load_ms"`
	PrefillMs    int64     `json:"prefill_ms"`
	DecodeMs     int64     `json:"decode_ms"`
	FirstTokenMs int64     `json:"first_token_ms"`
	TotalMs      int64     `json:"total_ms"`
	Failed       string    `json:"failed,omitempty"` // one of the codes

	// Quality is "measured", "derived", "estimated", "unknown" or "none". Of
	// the last two there is nothing else.
	Quality        string   `json:"energy_quality"`
	Joules         *float64 `json:"energy_joules,omitempty"`
	Wh             *float64 `json:"energy_wh,omitempty"`
	JoulesPerToken *float64 `json:"joules_per_token,omitempty"`
	Source         string   `json:"energy_source,omitempty"` // the sensors, or what was assumed
	// The rest is there if a sensor had a part in it.
	Scope       string   `json:"energy_scope,omitempty"` // as in "dgpu+package"
	GrossJoules *float64 `json:"energy_gross_joules,omitempty"`
	LoadJoules  *float64 `json:"energy_load_joules,omitempty"`
	// TailJoules is missing until it is known, some seconds after the end.
	TailJoules  *float64 `json:"energy_tail_joules,omitempty"`
	Uncertainty float64  `json:"energy_uncertainty,omitempty"` // a part of the energy
	Coverage    *float64 `json:"energy_coverage,omitempty"`    // a part of the time
	SharedJobs  int      `json:"energy_shared_jobs,omitempty"` // at most, with this one
	// The following are of an attempt elsewhere: what the network took, by
	// assumption, and what the server charges, if that has a price and is known.
	RadioJoules  float64  `json:"radio_joules,omitempty"`
	Cost         *float64 `json:"cost,omitempty"`
	CostCurrency string   `json:"cost_currency,omitempty"`
}

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

// Cache is the answers that are kept to be given again, in memory alone.
type Cache struct {
	Entries  int `json:"entries"`
	Bytes    int `json:"bytes"`
	MaxBytes int `json:"max_bytes"` // 0 if nothing is kept
	// Shared tells that clients get the answers to each other's requests.
	Shared bool `json:"shared"`
	// Hits are the jobs that were answered from here since the daemon was started,
	// Joined those that followed another which asked for the same at that time,
	// and Misses those that had to be run although they might have been neither.
	Hits   int64 `json:"hits"`
	Joined int64 `json:"joined"`
	Misses int64 `json:"misses"`
	// Evictions are the answers that made room for others, and Expiries those that
	// nobody asked for any more.
	Evictions int64 `json:"evictions"`
	Expiries  int64 `json:"expiries"`
}
