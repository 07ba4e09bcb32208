package wire

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
