package ledger

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// Entry is one job's cost and the circumstances that explain it. It has no
// place for a prompt or an answer.
type Entry struct {
	// ID is the job's own.
	ID             string
	Arrived, Ended time.Time
	// Backend is Cache of what none has worked on.
	Backend, Model string
	Hardware       power.DeviceClass
	// Kind is "" of what an earlier joulemux has recorded, which did not keep it,
	// nor the completion and the limit.
	Kind job.Kind
	// Client is a short name of the program that asked.
	Client     string
	Class      job.Class
	Completion bool
	Tier       power.Tier
	OnBattery  bool
	// PromptTokens and Tokens are the backend's counts, and MaxTokens is the limit
	// that the client set for the latter; zero is none.
	PromptTokens, Tokens, MaxTokens int
	// Cached is how many of the prompt's tokens took nothing, as they had been read
	// before, or may have been. It is learned by, and not kept.
	Cached int
	// Load, Prefill and Decode are the backend's own account of its time, or
	// what was observed where it gives none. Zero is not known.
	Load, Prefill, Decode time.Duration
	// FirstToken and Total count from the start of the attempt that answered,
	// so that waiting for others is not taken for slowness. Zero is not known.
	FirstToken, Total time.Duration
	Cost              power.Cost
	// Price is what a remote server charged, at the price of that time.
	Price job.Money
	// Failed is why there was no whole answer, or "".
	Failed job.Code
}

// Cache is in the place of the backend of jobs that got the answer to another.
// No backend can have that id.
const Cache = "(cache)"

// answered reports whether e wrote a whole answer to something that is known.
func (e Entry) answered() bool {
	return e.Failed == "" && e.Backend != Cache && e.Tokens > 0 && (e.Kind == job.Generate || e.Kind == job.Chat)
}

// What an entry may hold. Whoever sends a whole prompt as the name of its
// model finds the first few words of it here and no more.
const (
	maxWord = 128 // bytes of a name
	maxText = 512 // bytes of a cost's source
	// maxEnergy is 10 MJ, a day at 115 W: a million such jobs still have a sum.
	maxEnergy   = 10_000_000 * power.Joule
	maxDuration = 30 * 24 * time.Hour
	maxDraw     = 10_000 * power.Watt
	maxTokens   = 1 << 31
	// maxMoney is 1000 units of a currency for one job, and a million such jobs
	// still have a sum. Of a currency's name are kept so many bytes.
	maxMoney    = 1000 * 1_000_000_000
	maxCurrency = 32
)

// read is how many of the prompt's tokens took something.
func (e Entry) read() int { return e.PromptTokens - e.Cached }

// normal returns e with every field within its bounds, so that no entry can
// fail to be written or spoil a sum. What ended at no known time ended now.
func (e Entry) normal(now time.Time) Entry {
	if !plausible(e.Ended) {
		e.Ended = now
	}
	if !plausible(e.Arrived) {
		e.Arrived = e.Ended
	}
	// Without the reading of this boot's clock, as when they are read back.
	e.Arrived, e.Ended = e.Arrived.Round(0).Local(), e.Ended.Round(0).Local()
	for _, s := range []*string{
		&e.ID, &e.Backend, &e.Model, &e.Client, &e.Cost.Scope,
		(*string)(&e.Hardware), (*string)(&e.Kind), (*string)(&e.Class), (*string)(&e.Failed),
	} {
		*s = clip(*s, maxWord)
	}
	for _, n := range []*int{&e.PromptTokens, &e.Tokens, &e.MaxTokens, &e.Cached} {
		*n = clamp(*n, maxTokens)
	}
	for _, d := range []*time.Duration{&e.Load, &e.Prefill, &e.Decode, &e.FirstToken, &e.Total} {
		*d = clamp(*d, maxDuration)
	}
	e.Cost = normalCost(e.Cost)
	e.Price.Nano, e.Price.Currency = clamp(e.Price.Nano, maxMoney), clip(e.Price.Currency, maxCurrency)
	return e
}

// normalCost returns c with a quality that there is, and no value where that
// says there is none.
func normalCost(c power.Cost) power.Cost {
	c.Radio = clamp(c.Radio, maxEnergy)
	switch c.Quality {
	case power.Measured, power.Derived, power.Estimated:
		for _, e := range []*power.Energy{&c.Energy, &c.Gross, &c.Load, &c.Tail} {
			*e = clamp(*e, maxEnergy)
		}
	case power.None:
		c.Energy, c.Gross, c.Load, c.Tail = 0, 0, 0, 0
	default:
		c.Quality = power.Unknown
		c.Energy, c.Gross, c.Load, c.Tail = 0, 0, 0, 0
	}
	c.Source = clip(c.Source, maxText)
	c.Uncertainty, c.Coverage = part(c.Uncertainty), part(c.Coverage)
	c.Shared = clamp(c.Shared, maxTokens)
	return c
}

// plausible reports whether t is a time that nanoseconds since 1970 can tell,
// and not the zero time.
func plausible(t time.Time) bool { return t.Year() >= 1970 && t.Year() < 2200 }

// clip returns the first n bytes of s at most, as valid text on one line. It
// keeps nothing else of s alive: s may be a piece of a whole request.
func clip(s string, n int) string {
	if len(s) > n {
		cut := n
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = strings.Clone(s[:cut])
	}
	bad := func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if bad(r) {
			return '?'
		}
		return r
	}, s)
}

func clamp[T ~int | ~int64](v, most T) T { return min(max(v, 0), most) }

// part returns f within 0 and 1. What is no number is not known.
func part(f float64) float64 {
	if f > 0 {
		return min(f, 1)
	}
	return 0
}
