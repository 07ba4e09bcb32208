package job

import (
	"time"

	"github.com/joulemux/joulemux/power"
)

// Candidate is a backend as it looks to one job at one moment.
type Candidate struct {
	ID    string
	Class power.DeviceClass
	// Aliases are other names by which a client may target the backend.
	Aliases []string
	// Healthy backends can be asked; Problem says why another cannot.
	Healthy bool
	Problem string
	// Suspect says what went wrong the last time, if it did: the backend can
	// be asked, but better ones are asked first.
	Suspect string
	// Priority decides between equals; higher goes first.
	Priority int
	// Model is the job's model on this backend, or nil if it is not there.
	Model   *Model
	Profile Profile
}

// Model is a model that a backend has.
type Model struct {
	Name   string
	Digest string
	Size   int64 // in bytes
	// Resident models need no loading before the first token.
	Resident bool
	// ContextLength is with how many tokens of context a resident model was
	// loaded, if that is known.
	ContextLength int
	// VRAM is how much of a resident model is in a GPU's memory, in bytes.
	VRAM int64
}

// Facts are what a server says of itself.
type Facts struct {
	Version string
	// Instance is set if the server is a joulemux, ours or another's.
	Instance string
	Models   []Model
}

// Profile is what a backend is expected to need. Its figures are priors until
// they have been learned from measurement.
type Profile struct {
	// Draw is the power that the backend takes while it works.
	Draw power.Power
	// FirstToken is the time to the first token of a short prompt.
	FirstToken time.Duration
	// Prefill and Decode are rates in tokens per second: of reading the
	// prompt, and of writing the answer.
	Prefill, Decode float64
	// LoadRate is how many bytes of a model are made resident per second.
	LoadRate float64
	// LoadTime is how long that takes for the job's model, if it was learned.
	LoadTime time.Duration
	// TokenEnergy and PromptEnergy are per token written and read, and
	// LoadEnergy is of making the model resident, if they were learned. Where
	// they are zero, the draw times the time stands for them.
	TokenEnergy, PromptEnergy, LoadEnergy power.Energy
	// Quality tells priors (power.Estimated) from joules that were learned
	// (power.Derived).
	Quality power.Quality
}

// Estimate is what a job is predicted to need on one candidate.
type Estimate struct {
	// FirstToken and Total count from now: load included.
	FirstToken, Total time.Duration
	Load              time.Duration
	Energy            power.Energy
	Draw              power.Power
}

// What an unlimited answer is expected to come to: the mean of the conversations
// in the Azure LLM inference trace of 2023, and the longest answer in it
// (https://github.com/Azure/AzurePublicDataset).
const (
	MeanTokens    = 211
	LongestTokens = 1000
)

// bytesPerToken is the length of an English token in the common vocabularies,
// give or take a third.
const bytesPerToken = 4

// Estimate predicts what j needs on c if tokens tokens are generated.
func (c Candidate) Estimate(j Job, tokens int) Estimate {
	p := c.Profile
	e := Estimate{Draw: p.Draw}
	if c.Model != nil && !c.Model.Resident {
		e.Load = c.LoadTime()
	}
	if j.Kind == Embed {
		tokens = 0
	}
	read, written := float64(j.PromptBytes)/bytesPerToken, float64(tokens)
	prefill, decode := p.FirstToken+per(read, p.Prefill), per(written, p.Decode)
	e.FirstToken = e.Load + prefill
	e.Total = e.FirstToken + decode
	e.Energy = p.energy(1, p.LoadEnergy, e.Load) + p.energy(read, p.PromptEnergy, prefill) + p.energy(written, p.TokenEnergy, decode)
	return e
}

// energy returns what n things take that were learned to take so much each, or
// else what working so long takes.
func (p Profile) energy(n float64, each power.Energy, d time.Duration) power.Energy {
	if each == 0 || d == 0 {
		return p.Draw.For(d)
	}
	return power.Joules(n * each.Joules())
}

// LoadTime predicts how long it takes to make the model resident, if it is not.
func (c Candidate) LoadTime() time.Duration {
	switch {
	case c.Model == nil:
		return 0
	case c.Profile.LoadTime > 0:
		return c.Profile.LoadTime
	default:
		return loadLeast + per(float64(c.Model.Size), c.Profile.LoadRate)
	}
}

// loadLeast is what starting a runner takes, whatever the model (assumed).
const loadLeast = time.Second

// per returns how long n things take at a rate per second. A rate that is not
// known makes them take no time, rather than for ever.
func per(n, rate float64) time.Duration {
	if rate <= 0 || n <= 0 {
		return 0
	}
	return time.Duration(min(n/rate, maxSeconds) * float64(time.Second))
}

// maxSeconds keeps absurd figures from overflowing a duration: a month.
const maxSeconds = 30 * 24 * 3600

// Tokens returns how many tokens j is expected to generate.
func (j Job) Tokens() int {
	if j.MaxTokens > 0 {
		return min(j.MaxTokens, MeanTokens)
	}
	return MeanTokens
}

// MayReload reports whether m, where it is resident, may have to be loaded anew
// for j, since it was loaded for less or more context than j asks for.
func (j Job) MayReload(m Model) bool {
	asked := j.ContextLength
	if n := j.Content.Sampling.ContextLength; n != nil {
		asked = *n
	}
	return m.Resident && asked > 0 && asked != m.ContextLength
}

// MostTokens returns how many tokens j may well generate.
func (j Job) MostTokens() int {
	if j.MaxTokens > 0 {
		return j.MaxTokens
	}
	return LongestTokens
}
