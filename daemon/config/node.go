package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/joulemux/joulemux/daemon/job"
)

// section is a YAML value with the path of keys that leads to it.
type section struct {
	node   *yaml.Node
	key    string
	faults *Faults
}

// fault notes that something is wrong here.
func (s section) fault(format string, args ...any) {
	*s.faults = append(*s.faults, Fault{s.node.Line, s.key, fmt.Sprintf(format, args...)})
}

// resolved follows an alias to what it stands for.
func (s section) resolved() *yaml.Node {
	n := s.node
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

// empty reports whether there is a key without a value, which chooses nothing.
func (s section) empty() bool {
	n := s.resolved()
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// fields is what each key of a mapping does with its value.
type fields map[string]func(section)

// mapping hands each value to its field, and faults keys that are none, or
// come twice.
func (s section) mapping(known fields) {
	n := s.resolved()
	if s.empty() {
		return
	}
	if n.Kind != yaml.MappingNode {
		s.fault("want keys and values, got %s", describe(n))
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		value := section{n.Content[i+1], strings.TrimPrefix(s.key+"."+key.Value, "."), s.faults}
		at := section{key, value.key, s.faults}
		read, ok := known[key.Value]
		switch first := seen[key.Value]; {
		case first > 0:
			at.fault("is there twice, first on line %d", first)
		case !ok:
			at.fault("no such key%s", suggestion(key.Value, known))
		case !value.empty():
			read(value)
		}
		seen[key.Value] = key.Line
	}
}

func suggestion(key string, known fields) string {
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	if near := job.Nearest(key, names); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; there are " + strings.Join(names, ", ")
}

// pairs hands each key of a mapping, which may be any, to read with its value.
func (s section) pairs(read func(key string, value section)) {
	n := s.resolved()
	if n.Kind != yaml.MappingNode {
		s.fault("want keys and values, got %s", describe(n))
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if first := seen[key.Value]; first > 0 {
			section{key, s.key + "." + key.Value, s.faults}.fault("is there twice, first on line %d", first)
			continue
		}
		seen[key.Value] = key.Line
		read(key.Value, section{n.Content[i+1], s.key + "." + key.Value, s.faults})
	}
}

// list hands each element of a sequence to read.
func (s section) list(read func(section)) {
	n := s.resolved()
	if n.Kind != yaml.SequenceNode {
		s.fault("want a list, got %s", describe(n))
		return
	}
	for i, e := range n.Content {
		read(section{e, fmt.Sprintf("%s[%d]", s.key, i), s.faults})
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
func (s section) scalar(want string, tags ...string) (string, bool) {
	n := s.resolved()
	if n.Kind != yaml.ScalarNode || !slices.Contains(tags, n.ShortTag()) {
		s.fault("want %s, got %s", want, describe(n))
		return "", false
	}
	return n.Value, true
}

// text reads a string. A number will do where a word is wanted.
func (s section) text(to *string) {
	if v, ok := s.scalar("a string", "!!str", "!!int", "!!float"); ok {
		*to = v
	}
}

// flag reads a boolean.
func (s section) flag(to *bool) {
	if v, ok := s.scalar("true or false", "!!bool"); ok {
		*to = strings.EqualFold(v, "true")
	}
}

// number reads a number between two bounds.
func (s section) number(to *float64, least, most float64) {
	v, ok := s.scalar("a number", "!!int", "!!float")
	if !ok {
		return
	}
	n, err := strconv.ParseFloat(strings.ReplaceAll(v, "_", ""), 64)
	switch {
	case err != nil:
		s.fault("want a number, got %s", strconv.Quote(v))
	case math.IsNaN(n) || n < least || n > most:
		s.fault("want a number from %v to %v, got %v", least, most, v)
	default:
		*to = n
	}
}

// integer reads a whole number between two bounds.
func (s section) integer(to *int, least, most int) {
	n := float64(*to)
	before := len(*s.faults)
	s.number(&n, float64(least), float64(most))
	switch {
	case len(*s.faults) > before:
	case n != math.Trunc(n):
		s.fault("want a whole number, got %v", n)
	default:
		*to = int(n)
	}
}

// oneOf reads one of some words.
func (s section) oneOf(to *string, words ...string) {
	var v string
	s.text(&v)
	switch {
	case v == "":
	case !slices.Contains(words, v):
		s.fault("want one of %s, got %q", strings.Join(words, ", "), v)
	default:
		*to = v
	}
}
