package metrics

import (
	"strings"
	"unicode/utf8"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// key names one series of a family. Clients are in none: there may be any number
// of them.
type key[K any] interface {
	comparable
	// values are those of the family's labels.
	values() []string
	// own is the key in words of its own, which are valid text and not too
	// long, and keep nothing else of a request alive.
	own() K
	// rest is what stands for the key where there are too many.
	rest() K
}

// other stands for backends and models beyond what is kept apart.
const other = "other"

// subject is what an attempt is of.
type subject struct {
	backend, model string
	class          job.Class
}

var subjectLabels = []string{"backend", "model", "class"}

func (k subject) values() []string { return []string{k.backend, k.model, string(k.class)} }
func (k subject) own() subject     { return subject{word(k.backend), word(k.model), word(k.class)} }
func (k subject) rest() subject    { return subject{other, other, k.class} }

// endOf is how a job ended.
type endOf struct {
	subject
	kind    job.Kind
	outcome job.Code
}

func (k endOf) values() []string {
	return append(k.subject.values(), string(k.kind), string(k.outcome))
}
func (k endOf) own() endOf  { return endOf{k.subject.own(), word(k.kind), word(k.outcome)} }
func (k endOf) rest() endOf { return endOf{k.subject.rest(), k.kind, k.outcome} }

// attemptOf is how an attempt ended.
type attemptOf struct {
	subject
	quality power.Quality
	outcome job.Code
}

func (k attemptOf) values() []string {
	return append(k.subject.values(), string(k.quality), string(k.outcome))
}

func (k attemptOf) own() attemptOf {
	return attemptOf{k.subject.own(), word(k.quality), word(k.outcome)}
}
func (k attemptOf) rest() attemptOf { return attemptOf{k.subject.rest(), k.quality, k.outcome} }

// spentOn is what energy was spent on, and how that is known.
type spentOn struct {
	subject
	quality power.Quality
}

var spentLabels = []string{"backend", "model", "class", "quality"}

func (k spentOn) values() []string { return append(k.subject.values(), string(k.quality)) }
func (k spentOn) own() spentOn     { return spentOn{k.subject.own(), word(k.quality)} }
func (k spentOn) rest() spentOn    { return spentOn{k.subject.rest(), k.quality} }

// paidIn is what was paid for, and in which currency.
type paidIn struct {
	subject
	currency string
}

func (k paidIn) values() []string { return append(k.subject.values(), k.currency) }
func (k paidIn) own() paidIn      { return paidIn{k.subject.own(), word(k.currency)} }
func (k paidIn) rest() paidIn     { return paidIn{k.subject.rest(), k.currency} }

// failureOf is whose failure it was, and why.
type failureOf struct {
	backend string
	reason  job.Code
}

func (k failureOf) values() []string { return []string{k.backend, string(k.reason)} }
func (k failureOf) own() failureOf   { return failureOf{word(k.backend), word(k.reason)} }
func (k failureOf) rest() failureOf  { return failureOf{other, k.reason} }

// backendOf is a backend.
type backendOf string

func (k backendOf) values() []string { return []string{string(k)} }
func (k backendOf) own() backendOf   { return word(k) }
func (backendOf) rest() backendOf    { return other }

// place is where a job was, and who waited for it.
type place struct {
	backend string
	class   job.Class
}

var placeLabels = []string{"backend", "class"}

func (k place) values() []string { return []string{k.backend, string(k.class)} }
func (k place) own() place       { return place{word(k.backend), word(k.class)} }
func (k place) rest() place      { return place{other, k.class} }

// maxWord is how many bytes of a name are told, as in the ledger.
const maxWord = 128

// word returns a copy of the beginning of s, as valid text.
func word[S ~string](s S) S { return S(strings.Clone(clip(string(s)))) }

// clip returns the beginning of a text, as valid text.
func clip(text string) string {
	if len(text) > maxWord {
		cut := maxWord
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut]
	}
	return strings.ToValidUTF8(text, "?")
}
