package job

import (
	"cmp"
	"math"
	"slices"
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
	// RetryAfter is when another can be asked again; zero if nobody knows.
	RetryAfter time.Duration
	// Suspect says what went wrong the last time, if it did: the backend can
	// be asked, but better ones are asked first.
	Suspect string
	// Priority decides between equals; higher goes first.
	Priority int
	// Vetoed says why its device may not be given work now, if it may not: it
	// is too hot.
	Vetoed string
	// Slots is on how many jobs the backend works at once; zero is one.
	Slots int
	// Model is the job's model on this backend, or nil if it is not there.
	Model   *Model
	Profile Profile
	// Wait is for how long the job would stand in line here.
	Wait time.Duration
	// Held is how much of the job's prompt, in bytes, the backend has probably
	// read before and kept.
	Held int
	// Tail is what the device is expected to take for being kept ready once
	// the job is over.
	Tail power.Energy
	// Leave is which jobs may leave this machine for it, where it is remote; nil
	// is none.
	Leave *Leave
}

// Named reports whether a target names c, by its id or its class.
func (c *Candidate) Named(target string) bool {
	switch {
	case target == c.ID, target == string(c.Class), slices.Contains(c.Aliases, target):
		return true
	default:
		return target == string(power.DiscreteGPU) && c.Class == power.NVIDIA
	}
}

// Model is a model that a backend has.
type Model struct {
	Name   string
	Digest string
	// Assumed tells that the digest is no sum of the weights, since the server
	// tells none: it stays when they change.
	Assumed bool
	Size    int64 // in bytes
	// Created is when it was made, or came there, and Owner is whose it is, if the
	// server tells.
	Created time.Time
	Owner   string
	// Resident models need no loading before the first token.
	Resident bool
	// ContextLength is with how many tokens of context a resident model was
	// loaded, if that is known.
	ContextLength int
	// Until is when a resident model goes unless a job comes; zero is not known.
	Until time.Time
	// VRAM is how much of a resident model is in a GPU's memory, in bytes, or -1
	// where the server does not tell.
	VRAM int64
	Description
}

// Description is what a model is. What nobody tells is zero.
type Description struct {
	Family       string // as in "llama"
	Parameters   string // how many, as in "494.03M"
	Quantisation string // as in "Q4_K_M"
	// Context is the most tokens of context that the model can have.
	Context int
	// Abilities are in Ollama's words: completion, tools, insert, vision,
	// embedding, thinking.
	Abilities []string
}

// Over returns a description with what it lacks filled in from another.
func (d Description) Over(e Description) Description {
	d.Family, d.Parameters, d.Quantisation = cmp.Or(d.Family, e.Family), cmp.Or(d.Parameters, e.Parameters), cmp.Or(d.Quantisation, e.Quantisation)
	d.Context = cmp.Or(d.Context, e.Context)
	if d.Abilities == nil {
		d.Abilities = e.Abilities
	}
	return d
}

// Facts are what a server says of itself.
type Facts struct {
	// Server names the program, such as "ollama" or "llama-server".
	Server string
	// Version is that of Ollama's API which it speaks, or which is spoken for it.
	Version string
	// Device is the class of its device, where the server tells.
	Device power.DeviceClass
	// Lacks names what it does not do of what Ollama does, such as "keep_alive"
	// and "unload", on which what a job asks has no effect there, and "pull".
	Lacks []string
	// Instance is set if the server is a joulemux, ours or another's.
	Instance string
	Models   []Model
	// Slots is on how many jobs the server works at once; zero is not told.
	Slots int
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
	// HoldDraw is what the device draws for as long as a model is resident.
	HoldDraw power.Power
	// Quality tells priors (power.Estimated) from joules that were learned
	// (power.Derived), and Samples is from how many jobs.
	Quality power.Quality
	Samples int
}

// Estimate is what a job is predicted to need on one candidate.
type Estimate struct {
	// FirstToken and Total count from now: line and load included.
	FirstToken, Total time.Duration
	Wait, Load        time.Duration
	// Energy is all of it, and LoadEnergy and Tail are what of it is for
	// making the model resident and for keeping it so.
	Energy           power.Energy
	LoadEnergy, Tail power.Energy
	Draw             power.Power
}

// LongestTokens is what an unlimited answer may well come to: as much as the
// longest of the conversations that PriorLengths knows.
const LongestTokens = 1000

// bytesPerToken is the length of an English token in the common vocabularies,
// give or take a third.
const bytesPerToken = 4

// tokensIn returns to how many tokens so many bytes of text probably come.
func tokensIn(bytes int) float64 { return float64(max(0, bytes)) / bytesPerToken }

// PromptTokens returns to how many tokens the prompt probably comes.
func (j Job) PromptTokens() int { return int(math.Ceil(tokensIn(j.PromptBytes))) }

// Estimate predicts what j needs on c if tokens tokens are generated.
func (c *Candidate) Estimate(j *Job, tokens float64) Estimate {
	p := &c.Profile
	e := Estimate{Draw: p.Draw, Wait: c.Wait, Tail: c.Tail}
	if c.Model != nil && !c.Model.Resident {
		e.Load = c.LoadTime()
		e.LoadEnergy = p.energy(1, p.LoadEnergy, e.Load)
	}
	if j.Kind == Embed {
		tokens = 0
	}
	read := tokensIn(j.PromptBytes - c.Held)
	prefill, decode := p.FirstToken+per(read, p.Prefill), per(tokens, p.Decode)
	e.FirstToken = e.Wait + e.Load + prefill
	e.Total = e.FirstToken + decode
	e.Energy = e.LoadEnergy + p.energy(read, p.PromptEnergy, prefill) + p.energy(tokens, p.TokenEnergy, decode) + e.Tail
	return e
}

// energy returns what n things take that were learned to take so much each, or
// else what working so long takes.
func (p *Profile) energy(n float64, each power.Energy, d time.Duration) power.Energy {
	if each == 0 || d == 0 {
		return p.Draw.For(d)
	}
	return power.Joules(n * each.Joules())
}

// PerToken returns what a token of the answer takes by itself: what was learned,
// or what the draw comes to at the rate. It is zero if the rate is not known.
func (p *Profile) PerToken() power.Energy { return p.energy(1, p.TokenEnergy, per(1, p.Decode)) }

// LoadTime predicts how long it takes to make the model resident, if it is not.
func (c *Candidate) LoadTime() time.Duration {
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
