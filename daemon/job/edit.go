package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// The permitted edits of foreign bytes, all of them: naming a model that the
// client left out or that the backend calls otherwise, in a listing too; saying
// for how long it stays; naming a limit as the backend knows it; asking for what a
// stream took, and hiding it; taking our own member out of a request, and splicing
// it into an answer. Whatever else a client or a backend wrote stays as it was, to
// the byte.

// OwnMember is the name of our member in requests and answers of other
// dialects.
const OwnMember = "joulemux"

// member is where a member of a JSON object stands: from the first byte of its
// key to the last of its value.
type member struct {
	key        string
	start, end int
	value      json.RawMessage
}

// members lists the members of a JSON object, and where the first would begin
// if it had none. The object is known to be valid, so this only looks for where
// things end: to have a decoder read all of it again would be the most expensive
// part of many a job.
func members(object []byte) (list []member, open int, err error) {
	open = space(object, 0) + 1
	if open > len(object) || object[open-1] != '{' {
		return nil, 0, errors.New("not a JSON object")
	}
	list = make([]member, 0, 8)
	for at := open; ; {
		if at = space(object, at); at < len(object) && object[at] == ',' {
			at = space(object, at+1)
		}
		if at >= len(object) || object[at] != '"' {
			return list, open, nil
		}
		m := member{start: at}
		at = ofString(object, at)
		if m.key, err = unquote(object[m.start:at]); err != nil {
			return nil, 0, err
		}
		value := space(object, space(object, at)+1) // behind the colon
		m.end = ofValue(object, value)
		m.value = object[min(value, m.end):m.end]
		at = m.end
		list = append(list, m)
	}
}

// unquote returns what a JSON string says, which rarely takes a decoder: only where
// there is an escape in it.
func unquote(text []byte) (s string, err error) {
	if last := len(text) - 1; last > 0 && text[last] == '"' && bytes.IndexByte(text, '\\') < 0 {
		return string(text[1:last]), nil
	}
	err = json.Unmarshal(text, &s)
	return s, err
}

// space returns where at or after a place in JSON there is something else.
func space(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\t' || text[at] == '\n' || text[at] == '\r') {
		at++
	}
	return at
}

// ofString returns the end of the JSON string that begins at a place.
func ofString(text []byte, at int) int {
	for at++; at < len(text); at++ {
		quote := bytes.IndexByte(text[at:], '"')
		if quote < 0 {
			break
		}
		escapes := 0
		for at += quote; text[at-1-escapes] == '\\'; {
			escapes++
		}
		if escapes%2 == 0 {
			return at + 1
		}
	}
	return len(text)
}

// ofValue returns the end of the JSON value that begins at a place.
func ofValue(text []byte, at int) int {
	for depth := 0; at < len(text); {
		switch text[at] {
		case '"':
			at = ofString(text, at)
		case '{', '[':
			depth++
			at++
			continue
		case '}', ']':
			depth--
			at++
		case ',', ':', ' ', '\t', '\n', '\r':
			at++
			continue
		default:
			at += max(1, bytes.IndexAny(text[at:], ",:]} \t\n\r"))
		}
		if depth <= 0 {
			return min(at, len(text))
		}
	}
	return len(text)
}

// SetModel returns body with its model named, whether it named one or not.
func SetModel(body []byte, name string) ([]byte, error) {
	value, err := json.Marshal(name)
	if err != nil {
		return nil, err
	}
	return set(body, "model", value)
}

// SetListed returns the entry of a listing with its model named.
func SetListed(entry []byte, name string) ([]byte, error) {
	named, err := SetModel(entry, name)
	if err != nil {
		return nil, err
	}
	value, err := json.Marshal(name)
	if err != nil {
		return nil, err
	}
	return set(named, "name", value)
}

// AskUsage returns a request for a stream of OpenAI's dialect that asks for what
// it took, and whether the client had not asked itself: then the chunk that tells
// is not for it.
func AskUsage(body []byte) (asking []byte, added bool, err error) {
	var q struct {
		Options json.RawMessage `json:"stream_options"`
	}
	var o struct {
		Usage bool `json:"include_usage"`
	}
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, false, err
	}
	if len(q.Options) == 0 || string(q.Options) == "null" {
		asking, err = set(body, "stream_options", []byte(`{"include_usage":true}`))
		return asking, true, err
	}
	if err := json.Unmarshal(q.Options, &o); err != nil {
		return nil, false, InvalidField("stream_options", "%v", err)
	}
	if o.Usage {
		return body, false, nil
	}
	options, err := set(q.Options, "include_usage", []byte("true"))
	if err != nil {
		return nil, false, err
	}
	asking, err = set(body, "stream_options", options)
	return asking, true, err
}

// NameLimit returns a request of OpenAI's dialect that has its limit of tokens by
// the older name, too, if it has only the newer one: there are servers that do not
// know that, and write on.
func NameLimit(body []byte) ([]byte, error) {
	if !bytes.Contains(body, []byte(`"max_completion_tokens"`)) {
		return body, nil
	}
	var q struct {
		Older json.RawMessage `json:"max_tokens"`
		Newer json.RawMessage `json:"max_completion_tokens"`
	}
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, err
	}
	if len(q.Older) > 0 && string(q.Older) != "null" || len(q.Newer) == 0 || string(q.Newer) == "null" {
		return body, nil
	}
	return set(body, "max_tokens", q.Newer)
}

// HideUsage returns an event of such a stream without the member that tells what
// it took, which its client did not ask for. Where an event has other things to
// say, some servers add it all the same.
func HideUsage(event []byte) []byte {
	open := bytes.IndexByte(event, '{')
	if open < 0 {
		return event
	}
	rest, _, err := take(event[open:], "usage")
	if err != nil {
		return event
	}
	return append(event[:open:open], rest...)
}

// set returns body with the value of a member replaced, or with the member if
// it had none.
func set(body []byte, name string, value []byte) ([]byte, error) {
	list, open, err := members(body)
	if err != nil {
		return nil, err
	}
	// Decoders take the last of equal members, so every one is replaced; and
	// they fold case, as Go's do in Ollama.
	out := make([]byte, 0, len(body)+len(value)+len(name)+len(`"":,`))
	at, found := 0, false
	for _, m := range list {
		if !bytes.EqualFold([]byte(m.key), []byte(name)) {
			continue
		}
		start := m.end - len(m.value)
		out = append(append(out, body[at:start]...), value...)
		at, found = m.end, true
	}
	if found {
		return append(out, body[at:]...), nil
	}
	out = append(append(out, body[:open]...), `"`+name+`":`...)
	out = append(out, value...)
	if len(list) > 0 {
		out = append(out, ',')
	}
	return append(out, body[open:]...), nil
}

// Forever is for how long a model stays of which a client says that it should
// never go: so Ollama takes a negative time.
const Forever = time.Duration(math.MaxInt64)

// ParseKeepAlive returns for how long a client wants a model to stay once the
// job is done, or nil if it leaves that open, as Ollama reads keep_alive: a
// number of seconds, or a duration as Go writes it.
func ParseKeepAlive(value []byte) (*time.Duration, error) {
	var v any
	if len(value) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return nil, err
	}
	var d time.Duration
	switch v := v.(type) {
	case nil:
		return nil, nil
	case float64:
		// What no duration can hold is as good as for ever.
		if d = Forever; v >= 0 && v < Forever.Seconds() {
			d = time.Duration(v * float64(time.Second))
		}
	case string:
		var err error
		if d, err = time.ParseDuration(v); err != nil {
			return nil, fmt.Errorf(`want a number of seconds or a duration such as "5m", got %q`, short(v))
		}
		if d < 0 {
			d = Forever
		}
	default:
		return nil, fmt.Errorf(`want a number of seconds or a duration such as "5m", got %s`, short(string(value)))
	}
	return &d, nil
}

// SetKeepAlive returns a request of Ollama's with the time for which the model
// stays: in whole seconds, which every server of that API reads, and rounded
// down, since more is not permitted.
func SetKeepAlive(body []byte, d time.Duration) ([]byte, error) {
	return set(body, "keep_alive", strconv.AppendInt(nil, int64(max(d, 0)/time.Second), 10))
}

// TakeOwn returns body without our own member, and the member's value, or nil
// if there was none.
func TakeOwn(body []byte) (rest []byte, own json.RawMessage, err error) {
	return take(body, OwnMember)
}

// take returns body without a member, and the member's value, or nil if there was
// none.
func take(body []byte, name string) (rest []byte, value json.RawMessage, err error) {
	list, open, err := members(body)
	if err != nil {
		return nil, nil, err
	}
	out := append(make([]byte, 0, len(body)), body[:open]...)
	end, kept := open, false
	for _, m := range list {
		if m.key == name {
			value = m.value
		} else {
			// The comma before a member goes with it, except the first one's.
			start := m.start
			if kept || end == open {
				start = end
			}
			out = append(out, body[start:m.end]...)
			kept = true
		}
		end = m.end
	}
	return append(out, body[end:]...), value, nil
}

// Splice returns line, a JSON object with perhaps white space around it, with
// our own member added at its end.
func Splice(line []byte, own any) ([]byte, error) {
	value, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	end := bytes.LastIndexByte(line, '}')
	if end < 0 {
		return nil, fmt.Errorf("not a JSON object: %.40q", line)
	}
	out := make([]byte, 0, len(line)+len(value)+len(`,"":`)+len(OwnMember))
	out = append(out, line[:end]...)
	if !bytes.HasSuffix(bytes.TrimRight(line[:end], " \t\r\n"), []byte("{")) {
		out = append(out, ',')
	}
	out = append(append(out, `"`+OwnMember+`":`...), value...)
	return append(out, line[end:]...), nil
}
