package cache

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// deepest is how far down the order of members is looked at, which has all that
// is deeper read so many times.
const deepest = 16

// member is one of a JSON object. The name is as it stands, with its quotes, and
// folded is it with no regard to case, as Go's decoders read it in Ollama.
type member struct {
	name, value []byte
	folded      string // known once the members are put in order
}

// find returns the value of a member, or nil if there is none.
func find(list []member, name string) []byte {
	for _, m := range list {
		if len(m.name) == len(name)+2 && string(m.name[1:len(m.name)-1]) == name {
			return m.value
		}
	}
	return nil
}

// canon writes JSON in one form for all that means the same.
type canon struct{ out []byte }

// free are the members within which the order of members makes no difference.
var free = map[string]bool{
	"options": true, "messages": true, "content": true, "image_url": true, "stream_options": true, "source": true,
}

// object writes the members of an object in the order of their names, without
// some. It fails where two have one name: which of them counts is a matter of
// their order.
func (c *canon) object(list []member, without map[string]bool, depth int) bool {
	for i := range list {
		list[i].folded = fold(list[i].name)
	}
	slices.SortFunc(list, func(a, b member) int { return strings.Compare(a.folded, b.folded) })
	c.out = append(c.out, '{')
	for i, m := range list {
		bare := m.name[1 : len(m.name)-1]
		if i > 0 && m.folded == list[i-1].folded || bytes.IndexByte(bare, '\\') >= 0 {
			return false
		}
		if without[string(bare)] {
			continue
		}
		c.out = append(append(c.out, m.name...), ':')
		if !c.value(m.value, free[string(bare)], depth+1) {
			return false
		}
		c.out = append(c.out, ',')
	}
	c.out = append(c.out, '}')
	return true
}

// value writes a value: objects in it as an object if they are free, and all else
// as it is but for white space.
func (c *canon) value(text []byte, free bool, depth int) bool {
	switch {
	case len(text) == 0 || free && depth > deepest:
		return false
	case free && text[0] == '{':
		w := walk{text: text}
		list, ok := w.members()
		return ok && c.object(list, nil, depth)
	case free && text[0] == '[':
		return c.list(text, depth)
	default:
		c.plain(text)
		return true
	}
}

// list writes a list of values that are free.
func (c *canon) list(text []byte, depth int) bool {
	c.out = append(c.out, '[')
	w := walk{text: text, at: 1}
	for {
		at := w.space()
		if at >= len(text) {
			return false
		}
		if text[at] == ']' {
			c.out = append(c.out, ']')
			return true
		}
		v, ok := w.value()
		if !ok || !c.value(v, true, depth+1) {
			return false
		}
		c.out = append(c.out, ',')
		if at = w.space(); at < len(text) && text[at] == ',' {
			w.at++
		}
	}
}

// plain writes text without the white space between its tokens.
func (c *canon) plain(text []byte) {
	w := walk{text: text}
	for w.space() < len(text) {
		from := w.at
		if text[from] == '"' {
			w.string()
		} else {
			w.at++
		}
		c.out = append(c.out, text[from:w.at]...)
	}
}

// walk goes through JSON. What is none it takes for some or fails at; it never
// goes beyond the end.
type walk struct {
	text []byte
	at   int
}

// space skips white space, and returns where there is something else.
func (w *walk) space() int {
	for w.at < len(w.text) && (w.text[w.at] == ' ' || w.text[w.at] == '\t' || w.text[w.at] == '\n' || w.text[w.at] == '\r') {
		w.at++
	}
	return w.at
}

// string skips a string, and reports whether it ends.
func (w *walk) string() bool {
	for at := w.at + 1; ; {
		quote := bytes.IndexByte(w.text[at:], '"')
		if quote < 0 {
			w.at = len(w.text)
			return false
		}
		escapes := 0
		for at += quote; w.text[at-1-escapes] == '\\'; { // at the latest the first quote is none
			escapes++
		}
		if at++; escapes%2 == 0 {
			w.at = at
			return true
		}
	}
}

// value returns the next value, without what is around it.
func (w *walk) value() ([]byte, bool) {
	from := w.space()
	for depth := 0; w.space() < len(w.text); {
		switch b := w.text[w.at]; b {
		case '"':
			if !w.string() {
				return nil, false
			}
		case '{', '[':
			depth++
			w.at++
			continue
		case '}', ']':
			depth--
			w.at++
		case ',', ':':
			w.at++
			if depth == 0 {
				return nil, false
			}
			continue
		default:
			for w.at < len(w.text) && bytes.IndexByte([]byte(",:]}{[\" \t\n\r"), w.text[w.at]) < 0 {
				w.at++
			}
		}
		if depth <= 0 {
			return w.text[from:w.at], depth == 0
		}
	}
	return nil, false
}

// members returns those of the object that comes next.
func (w *walk) members() (all []member, ok bool) {
	if w.space() >= len(w.text) || w.text[w.at] != '{' {
		return nil, false
	}
	w.at++
	for {
		switch at := w.space(); {
		case at >= len(w.text):
			return nil, false
		case w.text[at] == '}':
			w.at++
			return all, true
		case w.text[at] == ',':
			w.at++
		case w.text[at] != '"':
			return nil, false
		default:
			if !w.string() {
				return nil, false
			}
			m := member{name: w.text[at:w.at]}
			if at := w.space(); at >= len(w.text) || w.text[at] != ':' {
				return nil, false
			}
			w.at++
			if m.value, ok = w.value(); !ok {
				return nil, false
			}
			all = append(all, m)
		}
	}
}

// fold returns a name in the form that it shares with all that differ from it in
// case alone.
func fold(name []byte) string {
	out := make([]byte, 0, len(name))
	for len(name) > 0 {
		if b := name[0]; b < utf8.RuneSelf { // of all that are one letter it is the least
			if 'a' <= b && b <= 'z' {
				b -= 'a' - 'A'
			}
			out, name = append(out, b), name[1:]
			continue
		}
		r, size := utf8.DecodeRune(name)
		name = name[size:]
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		out = utf8.AppendRune(out, least)
	}
	return string(out)
}
