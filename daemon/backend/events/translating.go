package events

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
)

// How streams are called, in Ollama's dialect and in the others.
const (
	inLines  = "application/x-ndjson"
	inEvents = "text/event-stream; charset=utf-8"
)

// Translating hands a response of OpenAI's API on in another form.
type Translating struct {
	*endpoint.Handing
	Shape dialect.Shape
	// Original is the client's request, or nil if nobody reads what is written.
	Original *job.Original
	// Sent is when the request was.
	Sent time.Time

	parser dialect.Events
	stream dialect.Stream
	out    []byte // what has become of the events that arrived together
	pieces int    // how many of them have become something
	text   []byte
}

// ContentType is what an answer of that shape is called.
func ContentType(s dialect.Shape) string {
	switch {
	case !s.Stream:
		return "application/json; charset=utf-8"
	case s.Form == dialect.OllamaForm:
		return inLines
	default:
		return inEvents
	}
}

// Answer hands on a response. Its head says what could not be asked for.
func (a *Translating) Answer(resp *http.Response, warning string) error {
	a.Head = job.Head{Status: http.StatusOK, ContentType: ContentType(a.Shape), Length: -1, Warning: warning}
	switch {
	case resp.StatusCode >= http.StatusBadRequest:
		return a.refused(resp)
	case a.Shape.Stream && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream"):
		if err := a.streamed(resp.Body); err != nil {
			return err
		}
		endpoint.ReadOut(resp.Body)
		return nil
	default:
		return a.whole(resp.Body)
	}
}

// refused handles an error response: it is an answer to a client whose request is
// at fault, if there is one who can read it.
func (a *Translating) refused(resp *http.Response) error {
	e := Refusal(resp, dialect.MannerOf(a.Original))
	if e.Code != job.Invalid || a.Original == nil {
		return e
	}
	a.Head.Status, a.Head.ContentType, a.Head.Length = resp.StatusCode, e.Answer.ContentType, int64(len(e.Answer.Body))
	return a.Pass(job.Chunk{Raw: e.Answer.Body, Last: true})
}

// whole hands on an undivided answer, be it that a stream was asked for.
func (a *Translating) whole(body io.Reader) error {
	all, err := io.ReadAll(io.LimitReader(body, endpoint.MaxBody+1))
	switch {
	case err != nil:
		return err
	case len(all) > endpoint.MaxBody:
		return job.Errorf(job.BackendFailed, "its answer is longer than %d bytes", endpoint.MaxBody)
	}
	if a.Shape.Stream && a.Shape.Form != dialect.OllamaForm {
		// There it takes more than one event to say it.
		a.stream = dialect.NewStream(a.Shape, a.Sent)
		if err := a.event(all); err != nil {
			return err
		}
		return a.end()
	}
	c := job.Chunk{Last: true}
	if a.Shape.Kind == job.Embed {
		c.Raw, c.Vectors, c.Usage, err = dialect.Vectors(all, a.Shape, a.Sent, time.Now())
	} else {
		c.Raw, c.Text, c.Usage, err = dialect.Whole(all, a.Shape, a.Sent, time.Now())
	}
	if err != nil {
		return err
	}
	if !a.Shape.Stream {
		a.Head.Length = int64(len(c.Raw))
	}
	return a.Pass(c)
}

// streamed hands on a stream as events become complete: all that have arrived
// together, in one piece.
func (a *Translating) streamed(body io.Reader) error {
	a.stream = dialect.NewStream(a.Shape, a.Sent)
	err := Lines(body, a.take, a.hand)
	if errors.Is(err, io.EOF) {
		err = a.ended()
	}
	if gone := a.hand(); gone != nil {
		return gone
	}
	if !errors.Is(err, errDone) {
		return err
	}
	return a.end()
}

// take takes a line of a stream.
func (a *Translating) take(line []byte) error {
	data, ok := a.parser.Line(line)
	if !ok {
		if a.parser.Held() > MaxEvent {
			return job.Errorf(job.BackendFailed, "an event of its stream is longer than %d bytes", MaxEvent)
		}
		return nil
	}
	return a.event(data)
}

// event takes an event.
func (a *Translating) event(data []byte) error {
	out, text, err := a.stream.Event(data, time.Now())
	if err != nil {
		return err
	}
	if len(out) > 0 {
		a.pieces++
	}
	a.out, a.text = append(a.out, out...), append(a.text, text...)
	if a.stream.Ended() {
		return errDone
	}
	return nil
}

// hand hands on what has become of the events so far.
func (a *Translating) hand() error {
	if len(a.out) == 0 {
		return nil
	}
	err := a.Pass(job.Chunk{Raw: a.out, Text: string(a.text), Pieces: a.pieces})
	a.out, a.text, a.pieces = a.out[:0], a.text[:0], 0
	return err
}

// ended handles a stream that ends without saying so, which only one may that
// has given the reason why its answer ends.
func (a *Translating) ended() error {
	if data, ok := a.parser.End(); ok {
		if err := a.event(data); err != nil {
			return err
		}
	}
	if !a.stream.Complete() {
		return job.Errorf(job.BackendFailed, "its stream ended before its last event")
	}
	return errDone
}

// end hands on the end of a whole stream.
func (a *Translating) end() error {
	rest, last, usage, err := a.stream.End(time.Now())
	if err != nil {
		return err
	}
	a.out = append(a.out, rest...)
	if err := a.hand(); err != nil {
		return err
	}
	return a.Pass(job.Chunk{Raw: last, Last: true, Usage: usage})
}
