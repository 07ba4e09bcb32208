package dialect

import (
	"bytes"
	"cmp"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// blockKind is what a block of an answer holds.
type blockKind int

const (
	thought blockKind = iota + 1
	prose
	toolCall
)

// block is a part of an answer that is told from its beginning to its end before
// the next one begins.
type block struct {
	kind blockKind
	// number counts the blocks of an answer, from 0.
	number int
	// id and name are those of a call.
	id, name string
}

// teller writes what it is told as events of a form.
type teller interface {
	opens(b block) []byte
	goes(b block, text string) []byte
	shuts(b block) []byte
	// ends says why the answer ends and what it took.
	ends(reason, stop string, called bool, u job.Usage) []byte
}

// blocks puts what a stream says in blocks, which in OpenAI's dialect it need not
// be: calls go on beside each other there, and text beside them. The first call
// is told as it comes, and what else comes after its beginning is held back until
// it is complete. It is a Stream.
type blocks struct {
	hearing
	to   teller
	open *block
	next int
	// calling is the first call, once it is told.
	calling        *block
	thinking, text []byte // held back
	length         int    // of all text
}

func newBlocks(begun time.Time, to teller) *blocks {
	return &blocks{hearing: hearing{begun: begun}, to: to}
}

// Event takes the data of an event that came at now, and returns events of the
// form that say the same.
func (b *blocks) Event(data []byte, now time.Time) (out []byte, text string, err error) {
	p, calls, err := b.hear(data, now)
	if err != nil {
		return nil, "", err
	}
	if b.length += len(p.thinking) + len(p.text); b.length > longestText {
		return nil, "", failure("it speaks without end")
	}
	if b.calling == nil {
		out = append(b.say(thought, p.thinking), b.say(prose, p.text)...)
	} else {
		b.thinking, b.text = append(b.thinking, p.thinking...), append(b.text, p.text...)
	}
	for _, c := range calls {
		at, err := b.collect(c)
		if err != nil {
			return nil, "", err
		}
		if at == 0 {
			out = append(out, b.call(string(c.Function.Arguments))...)
		}
	}
	return out, p.text, nil
}

// longestText bounds the text of an answer, which some forms repeat at the end.
const longestText = 16 << 20

// call tells of the first call what has come of it. What does not begin as a JSON
// object might yet be nothing.
func (b *blocks) call(more string) (out []byte) {
	first := &b.calls[0]
	if b.calling == nil {
		if !bytes.HasPrefix(bytes.TrimLeft(first.arguments, " \t\r\n"), []byte("{")) {
			return nil
		}
		out = b.begin(block{kind: toolCall, id: first.id, name: first.name})
		b.calling = b.open
		more = string(first.arguments)
	}
	if more == "" {
		return out
	}
	return append(out, b.to.goes(*b.calling, more)...)
}

// begin begins a block, and ends the one before it.
func (b *blocks) begin(next block) []byte {
	out := b.shut()
	next.number = b.next
	b.next++
	b.open = &next
	return append(out, b.to.opens(next)...)
}

// shut ends the block that is open, if one is.
func (b *blocks) shut() (out []byte) {
	if b.open != nil {
		out = b.to.shuts(*b.open)
		b.open = nil
	}
	return out
}

// say tells a piece of text or of thinking.
func (b *blocks) say(kind blockKind, text string) (out []byte) {
	if text == "" {
		return nil
	}
	if b.open == nil || b.open.kind != kind {
		out = b.begin(block{kind: kind})
	}
	return append(out, b.to.goes(*b.open, text)...)
}

// End returns what was held back until now, and what ends the stream.
func (b *blocks) End(now time.Time) (rest, last []byte, u job.Usage, err error) {
	calls, err := finished(b.calls)
	if err != nil {
		return nil, nil, u, err
	}
	if c := b.calling; c != nil && (calls[0].name != c.name || calls[0].id != c.id) {
		return nil, nil, u, failure("it names a tool after it has called it")
	}
	rest = append(b.shut(), b.say(thought, string(b.thinking))...)
	rest = append(rest, b.say(prose, string(b.text))...)
	for i, c := range calls {
		if i == 0 && b.calling != nil {
			continue
		}
		rest = append(rest, b.begin(block{kind: toolCall, id: c.id, name: c.name})...)
		rest = append(rest, b.to.goes(*b.open, string(c.arguments))...)
	}
	rest = append(rest, b.shut()...)
	u = b.took(now)
	return rest, b.to.ends(cmp.Or(b.reason, "stop"), b.stop, len(calls) > 0, u), u, nil
}

// each calls do for the blocks of an undivided answer, with what is in each.
func (p *piece) each(do func(b block, text string)) {
	number := 0
	next := func(b block, text string) {
		b.number = number
		number++
		do(b, text)
	}
	if p.thinking != "" {
		next(block{kind: thought}, p.thinking)
	}
	if p.text != "" {
		next(block{kind: prose}, p.text)
	}
	for _, c := range p.calls {
		next(block{kind: toolCall, id: c.id, name: c.name}, string(c.arguments))
	}
}

// named returns v as an event with a name.
func named(name string, v any) []byte {
	return append([]byte("event: "+name+"\n"), event(v)...)
}
