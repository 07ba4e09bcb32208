package openai

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/backend/events"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
)

// lines is the type of a stream of Ollama's.
const lines = "application/x-ndjson"

// answer hands a response on in Ollama's dialect.
type answer struct {
	*endpoint.Handing
	shape dialect.Shape
	sent  time.Time

	parser dialect.Events
	lines  *dialect.Lines
	out    []byte // what has become of the events that arrived together
	pieces int    // how many lines that is
	text   []byte
}

// refused handles an error response: it is an answer to a client whose request is
// at fault, if there is one who can read it.
func (a *answer) refused(j job.Job, resp *http.Response) error {
	e := refusal(resp)
	if e.Code != job.Invalid || j.Original == nil {
		return e
	}
	a.Head.Status, a.Head.Length = resp.StatusCode, int64(len(e.Answer.Body))
	return a.Pass(job.Chunk{Raw: e.Answer.Body, Last: true})
}

// whole hands on an undivided answer, be it that a stream was asked for.
func (a *answer) whole(body io.Reader) error {
	all, err := io.ReadAll(io.LimitReader(body, endpoint.MaxBody+1))
	switch {
	case err != nil:
		return err
	case len(all) > endpoint.MaxBody:
		return job.Errorf(job.BackendFailed, "its answer is longer than %d bytes", endpoint.MaxBody)
	}
	c := job.Chunk{Last: true}
	if a.shape.Kind == job.Embed {
		c.Raw, c.Vectors, c.Usage, err = dialect.Vectors(all, a.shape, a.sent, time.Now())
	} else {
		c.Raw, c.Text, c.Usage, err = dialect.Whole(all, a.shape, a.sent, time.Now())
	}
	if err != nil {
		return err
	}
	a.Head.Length = int64(len(c.Raw))
	if a.shape.Stream {
		a.Head.ContentType, a.Head.Length = lines, -1
	}
	return a.Pass(c)
}

// stream hands on a stream as events become complete: all that have arrived
// together, in one piece.
func (a *answer) stream(body io.Reader) error {
	a.Head.ContentType, a.Head.Length = lines, -1
	a.lines = dialect.NewLines(a.shape, a.sent)
	err := events.Lines(body, a.take, a.hand)
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

// errDone is returned for the last of what a stream has to say.
var errDone = errors.New("the stream has ended")

// take takes a line of a stream.
func (a *answer) take(line []byte) error {
	data, ok := a.parser.Line(line)
	if !ok {
		if a.parser.Held() > events.MaxEvent {
			return job.Errorf(job.BackendFailed, "an event of its stream is longer than %d bytes", events.MaxEvent)
		}
		return nil
	}
	return a.event(data)
}

// event takes an event.
func (a *answer) event(data []byte) error {
	line, text, err := a.lines.Event(data, time.Now())
	if err != nil {
		return err
	}
	if len(line) > 0 {
		a.pieces++
	}
	a.out, a.text = append(a.out, line...), append(a.text, text...)
	if a.lines.Ended() {
		return errDone
	}
	return nil
}

// hand hands on what has become of the events so far.
func (a *answer) hand() error {
	if len(a.out) == 0 {
		return nil
	}
	err := a.Pass(job.Chunk{Raw: a.out, Text: string(a.text), Pieces: a.pieces})
	a.out, a.text, a.pieces = a.out[:0], a.text[:0], 0
	return err
}

// ended handles a stream that ends without saying so, which only one may that
// has given the reason why its answer ends.
func (a *answer) ended() error {
	if data, ok := a.parser.End(); ok {
		if err := a.event(data); err != nil {
			return err
		}
	}
	if !a.lines.Complete() {
		return job.Errorf(job.BackendFailed, "its stream ended before its last event")
	}
	return errDone
}

// end hands on the end of a whole stream.
func (a *answer) end() error {
	calls, last, usage, err := a.lines.End(time.Now())
	if err != nil {
		return err
	}
	if len(calls) > 0 {
		if err := a.Pass(job.Chunk{Raw: calls}); err != nil {
			return err
		}
	}
	return a.Pass(job.Chunk{Raw: last, Last: true, Usage: usage})
}
