package document

import (
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/joulemux/joulemux/daemon/job"
)

// Section is a YAML value with the path of keys that leads to it.
type Section struct {
	node   *yaml.Node
	key    string
	faults *Faults
}

// Fault notes that something is wrong here.
func (s Section) Fault(format string, args ...any) {
	*s.faults = append(*s.faults, Fault{s.node.Line, s.key, fmt.Sprintf(format, args...)})
}

// There reports whether s is a value at all, and not the zero one.
func (s Section) There() bool { return s.node != nil }

// Line is where the value begins.
func (s Section) Line() int { return s.node.Line }

// Key is the path of keys that leads to the value.
func (s Section) Key() string { return s.key }

// Within is the value by the name of a key in it, for faults that are about what
// has that key, or should have.
func (s Section) Within(key string) Section {
	return Section{s.node, strings.TrimPrefix(s.key+"."+key, "."), s.faults}
}

// IsMapping reports whether the value is keys and values.
func (s Section) IsMapping() bool { return s.resolved().Kind == yaml.MappingNode }

// IsList reports whether the value is a list.
func (s Section) IsList() bool { return s.resolved().Kind == yaml.SequenceNode }

// resolved follows an alias to what it stands for.
func (s Section) resolved() *yaml.Node {
	n := s.node
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

// Empty reports whether there is a key without a value, which chooses nothing.
func (s Section) Empty() bool {
	n := s.resolved()
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// Fields is what each key of a mapping does with its value.
type Fields map[string]func(Section)

// Mapping hands each value to its field, and faults keys that are none, or
// come twice.
func (s Section) Mapping(known Fields) {
	n := s.resolved()
	if s.Empty() {
		return
	}
	if n.Kind != yaml.MappingNode {
		s.Fault("want keys and values, got %s", describe(n))
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		value := Section{n.Content[i+1], strings.TrimPrefix(s.key+"."+key.Value, "."), s.faults}
		at := Section{key, value.key, s.faults}
		read, ok := known[key.Value]
		switch first := seen[key.Value]; {
		case first > 0:
			at.Fault("is there twice, first on line %d", first)
		case !ok:
			at.Fault("no such key%s", Suggestion(key.Value, maps.Keys(known)))
		case !value.Empty():
			read(value)
		}
		seen[key.Value] = key.Line
	}
}

// Suggestion is what to add where somebody wrote what is none of some names: the
// one that he most likely meant, or all of them.
func Suggestion(written string, names iter.Seq[string]) string {
	list := slices.Sorted(names)
	if near := job.Nearest(written, list); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; there are " + strings.Join(list, ", ")
}

// Pairs hands each key of a mapping, which may be any, to read with its value.
func (s Section) Pairs(read func(key string, value Section)) {
	n := s.resolved()
	if n.Kind != yaml.MappingNode {
		s.Fault("want keys and values, got %s", describe(n))
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if first := seen[key.Value]; first > 0 {
			Section{key, s.key + "." + key.Value, s.faults}.Fault("is there twice, first on line %d", first)
			continue
		}
		seen[key.Value] = key.Line
		read(key.Value, Section{n.Content[i+1], s.key + "." + key.Value, s.faults})
	}
}

// List hands each element of a sequence to read.
func (s Section) List(read func(Section)) {
	n := s.resolved()
	if n.Kind != yaml.SequenceNode {
		s.Fault("want a list, got %s", describe(n))
		return
	}
	for i, e := range n.Content {
		read(Section{e, fmt.Sprintf("%s[%d]", s.key, i), s.faults})
	}
}

// describe says what a node is, for somebody who sees it.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	default:
		return strconv.Quote(n.Value)
	}
}

// scalar returns the text of a scalar with one of the tags.
func (s Section) scalar(want string, tags ...string) (string, bool) {
	n := s.resolved()
	if n.Kind != yaml.ScalarNode || !slices.Contains(tags, n.ShortTag()) {
		s.Fault("want %s, got %s", want, describe(n))
		return "", false
	}
	return n.Value, true
}

// Text reads a string. A number will do where a word is wanted.
func (s Section) Text(to *string) {
	if v, ok := s.scalar("a string", "!!str", "!!int", "!!float"); ok {
		*to = v
	}
}

// Flag reads a boolean.
func (s Section) Flag(to *bool) {
	if v, ok := s.scalar("true or false", "!!bool"); ok {
		*to = strings.EqualFold(v, "true")
	}
}

// Number reads a number between two bounds, and reports whether there is one.
func (s Section) Number(to *float64, least, most float64) bool {
	v, ok := s.scalar("a number", "!!int", "!!float")
	if !ok {
		return false
	}
	n, err := strconv.ParseFloat(strings.ReplaceAll(v, "_", ""), 64)
	switch {
	case err != nil:
		s.Fault("want a number, got %s", strconv.Quote(v))
	case math.IsNaN(n) || n < least || n > most:
		s.Fault("want a number from %v to %v, got %v", least, most, v)
	default:
		*to = n
		return true
	}
	return false
}

// Integer reads a whole number between two bounds.
func (s Section) Integer(to *int, least, most int) {
	n := float64(*to)
	switch {
	case !s.Number(&n, float64(least), float64(most)):
	case n != math.Trunc(n):
		s.Fault("want a whole number, got %v", n)
	default:
		*to = int(n)
	}
}

// OneOf reads one of some words.
func (s Section) OneOf(to *string, words ...string) {
	var v string
	s.Text(&v)
	switch {
	case v == "":
	case !slices.Contains(words, v):
		s.Fault("want one of %s, got %q", strings.Join(words, ", "), v)
	default:
		*to = v
	}
}

// Plain faults the first alias in the value, and reports whether there is none:
// by aliases a short text can stand for one of any length.
func (s Section) Plain() bool {
	n := alias(s.node)
	if n != nil {
		Section{n, s.key, s.faults}.Fault("aliases are not understood here; write out what *%s stands for", n.Value)
	}
	return n == nil
}

// alias returns the first alias in a node, or nil.
func alias(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n
	}
	for _, c := range n.Content {
		if found := alias(c); found != nil {
			return found
		}
	}
	return nil
}

// Value returns the value as Go has it, and whether it is one: numbers, booleans
// and texts, and lists and maps of these. It has to be plain.
func (s Section) Value() (v any, ok bool) {
	if err := s.node.Decode(&v); err != nil {
		s.Fault("%v", err)
		return nil, false
	}
	return v, true
}

// FaultAt notes that something is wrong on one line of a text, counted from 1.
// That of a block begins below its mark.
func (s Section) FaultAt(line int, format string, args ...any) {
	if s.node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		line++
	}
	*s.faults = append(*s.faults, Fault{s.node.Line + line - 1, s.key, fmt.Sprintf(format, args...)})
}
