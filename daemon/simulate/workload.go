package simulate

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// LinePower says when a generated trace has it.
type LinePower string

// The ways to be powered.
const (
	NeverOnLine  LinePower = "never"
	FlipsLine    LinePower = "flips" // it comes and goes, and the lid is closed once
	AlwaysOnLine LinePower = "always"
)

// Workload is what a trace is generated from.
type Workload struct {
	Length time.Duration
	Line   LinePower
	// Charge is how full the battery is at first, from 0 to 1; zero has one of
	// 1, 0.6 and 0.25 drawn, of which the lesser do not last for six hours.
	Charge float64
	// Classes are how large a part of the requests is of which class.
	Classes []ClassShare
}

// ClassShare is how large a part of the requests is of a class.
type ClassShare struct {
	Class Class
	Share float64
}

// DefaultWorkload is a person's day at a laptop. What the sizes are from is
// said at the tables; all other figures are assumed.
func DefaultWorkload() Workload {
	return Workload{
		Length:  6 * time.Hour,
		Line:    NeverOnLine,
		Charge:  1,
		Classes: []ClassShare{{Interactive, 0.45}, {Completion, 0.30}, {Background, 0.25}},
	}
}

const (
	// betweenSessions is the mean time from the begin of one to that of the
	// next, and moreTurns the mean number of requests after its first.
	betweenSessions = 14 * time.Minute
	moreTurns       = 2.5
	// thinking is the median time from an answer to the next request of a
	// session, and thinkingSpread the standard deviation of its logarithm.
	// Answers are taken to be written at the rate at which they are due, so
	// that a trace is the same for all policies.
	thinking       = 40 * time.Second
	thinkingSpread = 1.0
	perToken       = 100 * time.Millisecond
	// longestPrompt is the context that servers have unless they are told.
	longestPrompt = 4096
	// betweenFlips is the mean time between line power's coming and going, and
	// sleeping how long the lid is closed.
	betweenFlips = 45 * time.Minute
	sleeping     = 20 * time.Minute
)

// quantiles are the sizes that 0, 5, 10 and so on up to 100 % do not exceed.
type quantiles [21]float64

// The sizes are those of the Azure LLM inference traces of 2023, conversation
// and code (https://github.com/Azure/AzurePublicDataset): its prompts and
// answers hardly depend on each other (their logarithms correlate by 0.09 and
// by 0.01), so they are drawn apart.
func chatPrompts() quantiles {
	return quantiles{2, 181, 207, 372, 387, 396, 403, 414, 703, 984, 1020, 1045, 1071, 1097, 1130, 1189, 1315, 1876, 2734, 4083, 14050}
}

func chatAnswers() quantiles {
	return quantiles{7, 41, 54, 67, 77, 85, 91, 96, 103, 113, 129, 151, 177, 217, 384, 395, 400, 411, 424, 451, 1000}
}

func codePrompts() quantiles {
	return quantiles{3, 75, 147, 232, 386, 578, 770, 938, 1075, 1261, 1469, 1690, 1909, 2164, 2433, 2745, 3192, 3919, 5186, 7302, 7437}
}

func codeAnswers() quantiles {
	return quantiles{6, 6, 7, 7, 8, 9, 9, 10, 11, 12, 13, 14, 16, 18, 20, 24, 29, 39, 55, 90, 1899}
}

// at returns the size that the share u does not exceed.
func (q quantiles) at(u float64) int {
	x := u * float64(len(q)-1)
	below := min(int(x), len(q)-2)
	return int(math.Round(q[below] + (q[below+1]-q[below])*(x-float64(below))))
}

// Generate returns the trace that a seed makes of a workload.
func Generate(seed uint64, w Workload) Trace {
	t := Powered(seed, w, w.requests(rand.New(rand.NewPCG(seed, 1))))
	if t.SuspendedFor > 0 { // nobody is there
		t.Requests = slices.DeleteFunc(t.Requests, func(r Request) bool {
			return r.At >= t.Suspend && r.At < t.Suspend+t.SuspendedFor
		})
	}
	return t
}

// Powered returns the trace of given requests on a machine that is powered as
// a seed makes of a workload, which is taken to be at least as long as they
// are.
func Powered(seed uint64, w Workload, requests []Request) Trace {
	if n := len(requests); n > 0 {
		w.Length = max(w.Length, requests[n-1].At)
	}
	t := Trace{Length: w.Length, Charge: w.Charge, Requests: requests}
	// With a stream of its own, the requests are the same whatever becomes of
	// the line.
	w.powered(&t, rand.New(rand.NewPCG(seed, 2)))
	return t
}

// requests draws sessions, and in them requests.
func (w *Workload) requests(r *rand.Rand) (list []Request) {
	for begin := exponential(r, betweenSessions); begin < w.Length; begin += exponential(r, betweenSessions) {
		turns := 1 + int(r.ExpFloat64()*moreTurns)
		for at := begin; turns > 0 && at < w.Length; turns-- {
			next := w.request(r, at, w.class(r))
			list = append(list, next)
			at += time.Duration(next.Output)*perToken + time.Duration(float64(thinking)*math.Exp(thinkingSpread*r.NormFloat64()))
		}
	}
	slices.SortStableFunc(list, func(a, b Request) int { return cmp.Compare(a.At, b.At) })
	return list
}

func exponential(r *rand.Rand, mean time.Duration) time.Duration {
	return time.Duration(r.ExpFloat64() * float64(mean))
}

// class draws one.
func (w *Workload) class(r *rand.Rand) Class {
	u, sum := r.Float64(), 0.0
	for _, c := range w.Classes {
		sum += c.Share
		if u < sum {
			return c.Class
		}
	}
	return w.Classes[len(w.Classes)-1].Class
}

// request draws one's sizes.
func (w *Workload) request(r *rand.Rand, at time.Duration, c Class) Request {
	prompts, answers, client := chatPrompts(), chatAnswers(), "chat"
	switch c {
	case Interactive:
	case Completion:
		prompts, answers, client = codePrompts(), codeAnswers(), "editor"
	case Background:
		client = "indexer"
	}
	return Request{
		At: at, Class: c, Client: client,
		Prompt: min(prompts.at(r.Float64()), longestPrompt), Output: answers.at(r.Float64()),
	}
}

// powered draws how the machine is.
func (w *Workload) powered(t *Trace, r *rand.Rand) {
	if charge := []float64{1, 0.6, 0.25}[r.IntN(3)]; t.Charge == 0 {
		t.Charge = charge
	}
	switch w.Line {
	case NeverOnLine:
	case AlwaysOnLine:
		t.StartsOnLine = true
	case FlipsLine:
		t.StartsOnLine = r.IntN(2) == 0
		on := t.StartsOnLine
		for at := exponential(r, betweenFlips); at < w.Length; at += exponential(r, betweenFlips) {
			on = !on
			t.Line = append(t.Line, Switch{At: at, On: on})
		}
		if w.Length > sleeping {
			t.Suspend, t.SuspendedFor = time.Duration(r.Float64()*float64(w.Length-sleeping)), sleeping
		}
	}
}
