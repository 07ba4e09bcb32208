package ledger

import (
	"time"

	"github.com/joulemux/joulemux/power"
)

// Average is a mean in which the past fades. The first samples count alike,
// so that two are not ruled by the second.
type Average[T power.Energy | power.Power | time.Duration] struct{ mean mean }

// Value is the average, or zero without a sample.
func (a Average[T]) Value() T { return T(a.mean.value) }

// Count is how many samples there have been.
func (a Average[T]) Count() int { return a.mean.count }

// Seen is when the latest sample was taken.
func (a Average[T]) Seen() time.Time { return a.mean.seen }

// With returns the average with one more sample, taken at a time.
func (a Average[T]) With(sample T, at time.Time) Average[T] {
	return Average[T]{a.mean.with(float64(sample), at)}
}

// mean is an average without its unit.
type mean struct {
	value float64
	count int
	seen  time.Time
}

// memory is how many samples a mean is made of before the oldest fade: the
// weight of one is then halved by the next eleven.
const memory = 16

func (m mean) with(sample float64, at time.Time) mean {
	return m.weighed(sample, 1/float64(min(m.count+1, memory)), at)
}

// weighed returns the mean with one more sample, which counts for so much of it
// unless it is the first.
func (m mean) weighed(sample, weight float64, at time.Time) mean {
	next := m.value + (sample-m.value)*weight
	if m.count == 0 {
		next = sample
	}
	m.count++
	m.value = next
	if at.After(m.seen) {
		m.seen = at
	}
	return m
}

// Learned is what the jobs of one model on one backend have needed, on battery
// or on line power, since clocks differ between the two. An average that
// counts no sample says nothing.
type Learned struct {
	// TokenEnergy and PromptEnergy are per token written and per token read,
	// without loading. A job's energy is divided between reading and writing
	// by their times, since no sensor tells them apart: their sum is measured,
	// their ratio is assumed.
	TokenEnergy, PromptEnergy Average[power.Energy]
	// TokenTime and PromptTime are per token, too. Times and not rates are
	// averaged: to a mean of rates one prompt that was cached is worth a
	// thousand that were read.
	TokenTime, PromptTime Average[time.Duration]
	// LoadEnergy and LoadTime are of making the model resident.
	LoadEnergy Average[power.Energy]
	LoadTime   Average[time.Duration]
	// HoldDraw is what the device draws for as long as a model is resident and
	// nothing is asked of it, rather the least that was seen than the mean. It is
	// learned of AnyModel.
	HoldDraw Average[power.Power]
	// Overhead is the time to the first token that neither loading nor
	// reading explains.
	Overhead Average[time.Duration]
}

// DecodeRate is how many tokens are written per second, or zero if that was
// not learned.
func (l Learned) DecodeRate() float64 { return rate(l.TokenTime) }

// PrefillRate is how many tokens are read per second, or zero if that was not
// learned.
func (l Learned) PrefillRate() float64 { return rate(l.PromptTime) }

func rate(each Average[time.Duration]) float64 {
	if each.mean.value <= 0 {
		return 0
	}
	return float64(time.Second) / each.mean.value
}

const (
	// learnTokens is the least number of tokens that a figure per token is
	// learned from: below, what is paid per job rules.
	learnTokens = 8
	// learnCoverage is the least part of a job's time that sensors must have
	// seen.
	learnCoverage = 0.9
	// learnUncertainty is by how much of it the energy may be off at the most.
	// That leaves room for an idle draw that is not known, and none for a job of
	// which others have been told most.
	learnUncertainty = 0.75
	// learnLoad is what a backend says it took to load a model at the least
	// when it did load one. Ollama tells some tens of milliseconds for a model
	// that was resident.
	learnLoad = 200 * time.Millisecond
)

// With returns what is learned when e is known as well. Nothing is learned
// from what failed or was not worked on, and of energy nothing from what was not
// measured.
func (l Learned) With(e Entry) Learned {
	if e.Failed != "" || e.Backend == Cache {
		return l
	}
	l = l.withTimes(e)
	measured := e.Cost.Quality == power.Measured || e.Cost.Quality == power.Derived
	if measured && e.Cost.Coverage >= learnCoverage && e.Cost.Uncertainty <= learnUncertainty {
		l = l.withEnergy(e)
	}
	return l
}

func (l Learned) withTimes(e Entry) Learned {
	if e.Tokens >= learnTokens && e.Decode > 0 {
		l.TokenTime = l.TokenTime.With(e.Decode/time.Duration(e.Tokens), e.Ended)
	}
	if read := e.read(); read >= learnTokens && e.Prefill > 0 {
		l.PromptTime = l.PromptTime.With(e.Prefill/time.Duration(read), e.Ended)
	}
	if e.Load >= learnLoad {
		l.LoadTime = l.LoadTime.With(e.Load, e.Ended)
	}
	// Where it is not told what of that was work, it is not overhead.
	if e.FirstToken > 0 && (e.Load > 0 || e.Prefill > 0) {
		l.Overhead = l.Overhead.With(max(0, e.FirstToken-e.Load-e.Prefill), e.Ended)
	}
	return l
}

// withEnergy learns from the energy as it is told: what was learned goes out in
// predictions, and who compares two of them would find a finer figure there.
func (l Learned) withEnergy(e Entry) Learned {
	e.Cost = e.Cost.Told()
	if e.Load >= learnLoad && e.Cost.Load > 0 {
		l.LoadEnergy = l.LoadEnergy.With(e.Cost.Load, e.Ended)
	}
	reading, writing := shares(e)
	work := float64(max(0, e.Cost.Energy-e.Cost.Load))
	if e.Tokens >= learnTokens && writing > 0 {
		l.TokenEnergy = l.TokenEnergy.With(power.Energy(work*writing/float64(e.Tokens)), e.Ended)
	}
	if read := e.read(); read >= learnTokens && reading > 0 {
		l.PromptEnergy = l.PromptEnergy.With(power.Energy(work*reading/float64(read)), e.Ended)
	}
	return l
}

// HeldBelieved is for how long a hold draw is gone by that is not seen again. One
// that is too large lets models go before it could be.
const HeldBelieved = 30 * aDay

// withHeld returns what is learned when the device was seen to draw that while it
// only held the model. Whatever else goes on there adds to it: so less is believed
// at once, and more if it is seen time and again.
func (l Learned) withHeld(draw power.Power, at time.Time) Learned {
	if draw <= 0 {
		return l
	}
	if at.Sub(l.HoldDraw.Seen()) > HeldBelieved {
		l.HoldDraw = Average[power.Power]{}
	}
	sample, weight := float64(clamp(draw, maxDraw)), 1.0
	if sample > l.HoldDraw.mean.value {
		weight = 1.0 / memory
	}
	l.HoldDraw.mean = l.HoldDraw.mean.weighed(sample, weight, at)
	return l
}

// shares returns how much of e's work was reading and how much writing. Where
// it cannot be told it is neither, unless only one of them was done.
func shares(e Entry) (reading, writing float64) {
	switch {
	case e.Tokens == 0 && e.Decode == 0:
		return 1, 0 // an embedding
	case e.Prefill > 0 && e.Decode > 0:
		reading = e.Prefill.Seconds() / (e.Prefill + e.Decode).Seconds()
		return reading, 1 - reading
	case e.PromptTokens == 0:
		return 0, 1
	default:
		return 0, 0
	}
}

// figures returns the means of l by the names that they have in the file.
func (l *Learned) figures() map[string]*mean {
	return map[string]*mean{
		"token_energy":  &l.TokenEnergy.mean,
		"prompt_energy": &l.PromptEnergy.mean,
		"token_time":    &l.TokenTime.mean,
		"prompt_time":   &l.PromptTime.mean,
		"load_energy":   &l.LoadEnergy.mean,
		"load_time":     &l.LoadTime.mean,
		"hold_draw":     &l.HoldDraw.mean,
		"overhead":      &l.Overhead.mean,
	}
}

// better returns, figure by figure, the one of two that counts more samples.
func better(l, other Learned) Learned {
	others := other.figures()
	for name, m := range l.figures() {
		if others[name].count > m.count {
			*m = *others[name]
		}
	}
	return l
}
