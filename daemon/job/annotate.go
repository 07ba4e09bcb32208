package job

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/joulemux/joulemux/power"
)

// Set sets what key of compute.v1 (or of our additions to it) says of the job:
// annotations, sampling and limits. It is the one list of options for every
// wire that carries them by name.
//
// Integers of any width, floats without a fraction where an integer is wanted,
// strings and booleans are taken as what they are; nothing is converted from
// text. Errors have the code Invalid and name the key.
func (j *Job) Set(key string, value any) error {
	set, ok := setters[key]
	if !ok {
		return InvalidField(short(key), "no such option%s", hint(key, slices.Collect(maps.Keys(setters))))
	}
	if detail := set(j, value); detail != "" {
		return InvalidField(key, "%s", detail)
	}
	return nil
}

// setters returns what is wrong with a value, or "".
var setters = map[string]func(j *Job, v any) string{
	"model":                   func(j *Job, v any) string { return text(v, &j.Model) },
	"target":                  func(j *Job, v any) string { return target(v, &j.Annotations) },
	"preference":              func(j *Job, v any) string { return preference(v, &j.Annotations) },
	"class":                   func(j *Job, v any) string { return class(v, &j.Class) },
	"latency_critical":        func(j *Job, v any) string { return flag(v, &j.LatencyCritical) },
	"prefer_power_efficiency": func(j *Job, v any) string { return flag(v, &j.PreferPowerEfficiency) },
	"cache_enabled":           func(j *Job, v any) string { return cached(v, &j.Annotations) },
	"max_latency_ms":          func(j *Job, v any) string { return milliseconds(v, &j.MaxLatency) },
	"deadline_ms":             func(j *Job, v any) string { return milliseconds(v, &j.Deadline) },
	"max_power_watts":         func(j *Job, v any) string { return watts(v, &j.MaxPower) },
	"custom":                  func(j *Job, v any) string { return words(v, &j.Custom) },
	"max_tokens":              func(j *Job, v any) string { return count(v, &j.MaxTokens) },
	"temperature":             func(j *Job, v any) string { return float(v, &j.Content.Sampling.Temperature) },
	"top_p":                   func(j *Job, v any) string { return float(v, &j.Content.Sampling.TopP) },
	"top_k":                   func(j *Job, v any) string { return optional(v, &j.Content.Sampling.TopK) },
	"context_length":          func(j *Job, v any) string { return optional(v, &j.Content.Sampling.ContextLength) },
	"stop":                    func(j *Job, v any) string { return list(v, &j.Content.Sampling.Stop) },
	"system":                  func(j *Job, v any) string { return text(v, &j.Content.System) },
}

// annotations are the keys that go with a request in somebody else's dialect,
// which has words of its own for the rest.
var annotations = []string{
	"target", "preference", "class", "latency_critical", "prefer_power_efficiency", "cache_enabled",
	"max_latency_ms", "deadline_ms", "max_power_watts", "custom",
}

// Annotate sets an annotation; other options are refused.
func (j *Job) Annotate(key string, value any) error {
	if !slices.Contains(annotations, key) {
		return InvalidField(short(key), "no such annotation%s", hint(key, annotations))
	}
	return j.Set(key, value)
}

// short is enough of what a client wrote for him to know it again: it may be as
// long as his request.
func short(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	end := most
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

func wrong(want string, v any) string { return fmt.Sprintf("want %s, got %T", want, v) }

func notNumber(v any) string {
	if f, ok := v.(float64); ok { // NaN, or one of the infinities
		return fmt.Sprintf("want a number, got %v", f)
	}
	return wrong("a number", v)
}

func text(v any, to *string) string {
	s, ok := v.(string)
	if !ok {
		return wrong("a string", v)
	}
	*to = s
	return ""
}

func flag(v any, to *bool) string {
	b, ok := v.(bool)
	if !ok {
		return wrong("a boolean", v)
	}
	*to = b
	return ""
}

func cached(v any, to *Annotations) string {
	detail := flag(v, &to.CacheEnabled)
	to.CacheRefused = detail == "" && !to.CacheEnabled
	return detail
}

func class(v any, to *Class) string {
	var word string
	if detail := text(v, &word); detail != "" {
		return detail
	}
	c, ok := classes[spelling(word)]
	if !ok {
		return fmt.Sprintf("%q is neither interactive nor background", short(word))
	}
	*to = c
	return ""
}

// real returns v as a number if it is one.
func real(v any) (float64, bool) {
	switch n := v.(type) {
	case float64:
		return n, !math.IsNaN(n) && !math.IsInf(n, 0)
	case float32:
		return real(float64(n))
	case int:
		return float64(n), true
	case int64:
		return float64(n), true
	case uint64:
		return float64(n), true
	case int32:
		return float64(n), true
	case uint32:
		return float64(n), true
	case int16:
		return float64(n), true
	case uint16:
		return float64(n), true
	case byte:
		return float64(n), true
	default:
		return 0, false
	}
}

// natural returns v as a number that compute.v1's int32 can hold.
func natural(v any, to *int32) string {
	n, ok := real(v)
	switch {
	case !ok:
		return notNumber(v)
	case n != math.Trunc(n):
		return fmt.Sprintf("want a whole number, got %v", n)
	case n < 0 || n > math.MaxInt32:
		return fmt.Sprintf("want a number from 0 to %d, got %v", math.MaxInt32, n)
	}
	*to = int32(n)
	return ""
}

func count(v any, to *int) string {
	var n int32
	detail := natural(v, &n)
	if detail == "" {
		*to = int(n)
	}
	return detail
}

func optional(v any, to **int) string {
	var n int
	detail := count(v, &n)
	if detail == "" {
		*to = &n
	}
	return detail
}

func milliseconds(v any, to *time.Duration) string {
	var n int32
	detail := natural(v, &n)
	if detail == "" {
		*to = time.Duration(n) * time.Millisecond
	}
	return detail
}

func watts(v any, to *power.Power) string {
	w, ok := real(v)
	switch {
	case !ok:
		return notNumber(v)
	case w < 0 || w > math.MaxInt32:
		return fmt.Sprintf("want a number from 0 to %d, got %v", math.MaxInt32, w)
	}
	*to = power.Watts(w)
	return ""
}

func float(v any, to **float64) string {
	f, ok := real(v)
	if !ok {
		return notNumber(v)
	}
	*to = &f
	return ""
}

func list(v any, to *[]string) string {
	switch l := v.(type) {
	case []string:
		*to = l
		return ""
	case []any:
		all := make([]string, len(l))
		for i, e := range l {
			if detail := text(e, &all[i]); detail != "" {
				return detail
			}
		}
		*to = all
		return ""
	default:
		return wrong("a list of strings", v)
	}
}

func words(v any, to *map[string]string) string {
	switch m := v.(type) {
	case map[string]string:
		*to = m
		return ""
	case map[string]any:
		all := make(map[string]string, len(m))
		for k, e := range m {
			var s string
			if detail := text(e, &s); detail != "" {
				return short(k) + ": " + detail
			}
			all[k] = s
		}
		*to = all
		return ""
	default:
		return wrong("a map of strings", v)
	}
}

// hint returns "; did you mean …?" if one of the names is close to what was
// written, and else the list of them.
func hint(written string, names []string) string {
	if near := Nearest(written, names); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; there are " + strings.Join(slices.Sorted(slices.Values(names)), ", ")
}

// Nearest returns the name that written was most likely meant to be, or "".
func Nearest(written string, names []string) string {
	best, least := "", 1+len(written)/3
	for _, name := range slices.Sorted(slices.Values(names)) {
		if max(len(written)-len(name), len(name)-len(written)) > least {
			continue // at least as many bytes apart, and what clients write may be huge
		}
		if d := distance(strings.ToLower(written), strings.ToLower(name)); d <= least && (best == "" || d < least) {
			best, least = name, d
		}
	}
	return best
}

// distance is Levenshtein's: how many bytes to insert, delete or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
