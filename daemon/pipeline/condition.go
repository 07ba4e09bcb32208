package pipeline

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// test is what may hold of a text. All of it has to that is there.
type test struct {
	equals             *string
	oneOf              []string
	contains           *string
	matches            *regexp.Regexp
	above, below       *float64
	minWords, maxWords *int
	json               bool
	not                *test
}

// holds reports whether the test holds of a text. The members are those that
// JSON has to have.
func (t *test) holds(text string, required []string) bool {
	word := bare(text)
	switch {
	case t.equals != nil && !strings.EqualFold(word, bare(*t.equals)):
	case t.oneOf != nil && !slices.ContainsFunc(t.oneOf, func(w string) bool { return strings.EqualFold(word, bare(w)) }):
	case t.contains != nil && !strings.Contains(strings.ToLower(text), strings.ToLower(*t.contains)):
	case t.matches != nil && !t.matches.MatchString(text):
	case t.above != nil && !compares(text, func(n float64) bool { return n > *t.above }):
	case t.below != nil && !compares(text, func(n float64) bool { return n < *t.below }):
	case t.minWords != nil && len(strings.Fields(text)) < *t.minWords:
	case t.maxWords != nil && len(strings.Fields(text)) > *t.maxWords:
	case t.json && !isObject(text, required):
	case t.not != nil && t.not.holds(text, required):
	default:
		return true
	}
	return false
}

// bare is a text without what models put around a word.
func bare(text string) string { return strings.Trim(text, " \t\r\n.!\"'`*") }

var number = regexp.MustCompile(`[-+]?[0-9]+(\.[0-9]+)?`)

// compares reports whether there is a number in a text, and the first is so.
func compares(text string, so func(float64) bool) bool {
	n, err := strconv.ParseFloat(number.FindString(text), 64)
	return err == nil && so(n)
}

// isObject reports whether a text is a JSON object with those members.
func isObject(text string, required []string) bool {
	members := fieldsOf(text)
	return members != nil && !slices.ContainsFunc(required, func(name string) bool {
		_, has := members[name]
		return !has
	})
}

// fieldsOf returns the members of a JSON object as text: strings as they are, and
// all else as JSON. It is nil for what is no object.
func fieldsOf(text string) map[string]string {
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &object) != nil || object == nil {
		return nil
	}
	fields := make(map[string]string, len(object))
	for name, raw := range object {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			s = string(raw)
		}
		fields[name] = s
	}
	return fields
}
