package dialect

import "bytes"

// Done is what ends a stream of OpenAI's dialect.
const Done = "[DONE]"

// Events finds the events in the lines of a stream
// (https://html.spec.whatwg.org/multipage/server-sent-events.html). What is no
// data, such as a comment that keeps the connection open, it passes over.
type Events struct {
	data  []byte
	lines int
}

// Line takes a line with its end, and returns the data of an event if the line
// ends one. It is valid until the next call.
func (e *Events) Line(line []byte) (data []byte, ok bool) {
	line = bytes.TrimRight(line, "\r\n")
	if len(line) == 0 {
		return e.End()
	}
	name, value, _ := bytes.Cut(line, []byte(":"))
	// llama-server once had errors in a field of their own.
	if string(name) != "data" && string(name) != "error" {
		return nil, false
	}
	if e.lines == 0 {
		e.data = e.data[:0]
	} else {
		e.data = append(e.data, '\n')
	}
	e.lines++
	value = bytes.TrimPrefix(value, []byte(" "))
	if string(name) == "error" {
		value = append(append([]byte(`{"error":`), value...), '}')
	}
	e.data = append(e.data, value...)
	return nil, false
}

// Held is how much of an event there is that has not ended.
func (e *Events) Held() int {
	if e.lines == 0 {
		return 0
	}
	return len(e.data)
}

// End returns the data of an event after which there is nothing more.
func (e *Events) End() (data []byte, ok bool) {
	if e.lines == 0 {
		return nil, false
	}
	e.lines = 0
	return e.data, true
}

// event returns v as an event.
func event(v any) []byte {
	return append(append([]byte("data: "), encode(v)...), "\n\n"...)
}
