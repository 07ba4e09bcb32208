// Package events hands on what servers answer in events (text/event-stream), as
// they wrote it or in the form of another API, and undivided answers and refusals
// of the same dialects.
//
// It serves whichever kind of backend is asked in the dialect of the client.
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

// MaxEvent is the longest event.
const MaxEvent = 64 << 20

// maxCounted is the largest undivided answer that is searched for counts.
const maxCounted = 1 << 20

// Passing hands a response on as it came, and watches what passes.
type Passing struct {
	*endpoint.Handing
	dialect.Manner
	// Hide tells that the client did not ask for what the stream took.
	Hide bool
	// Sent is when the request was.
	Sent time.Time
	// Warning says what of the request the server leaves out.
	Warning string

	parser dialect.Events
	event  []byte // the lines of an event that has not ended
	// held may be the last event but the one that says so: it goes with that, so
	// that something can be added to it.
	held     []byte
	out      []byte // the events that arrived together
	pieces   int    // how many that is
	first    time.Time
	usage    job.Usage
	finished map[int]bool // the answers that are complete
}

// Answer hands on a response, in pieces if a stream was asked for.
func (p *Passing) Answer(resp *http.Response, stream bool) error {
	p.Head = job.Head{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Length: resp.ContentLength, Warning: p.Warning}
	switch {
	case resp.StatusCode >= http.StatusBadRequest:
		return p.refusal(resp)
	case !stream:
		return p.whole(resp.Body)
	case strings.HasPrefix(p.Head.ContentType, "application/json"):
		// It is well, and has not understood that: it may read names as they are
		// written, as we do not.
		return job.Errorf(job.Unsupported, "it answers undivided, and was asked for a stream")
	case !strings.HasPrefix(p.Head.ContentType, "text/event-stream"):
		return job.Errorf(job.BackendFailed, "it answers with %q, and was asked for a stream of events", p.Head.ContentType)
	}
	if err := p.stream(resp.Body); err != nil {
		return err
	}
	endpoint.ReadOut(resp.Body)
	return nil
}

// whole passes on an undivided answer.
func (p *Passing) whole(body io.Reader) error {
	var kept []byte
	buf := endpoint.Borrow()
	defer buf.Return()
	for {
		n, err := body.Read(buf[:])
		if len(kept)+n <= maxCounted {
			kept = append(kept, buf[:n]...)
		}
		switch {
		case errors.Is(err, io.EOF):
			return p.Pass(job.Chunk{Raw: buf[:n], Last: true, Usage: p.Look(kept).Usage})
		case err != nil:
			return err
		case n > 0:
			if err := p.Pass(job.Chunk{Raw: buf[:n]}); err != nil {
				return err
			}
		}
	}
}

// stream passes on a stream.
func (p *Passing) stream(body io.Reader) error {
	err := Lines(body, p.take, p.hand)
	if errors.Is(err, io.EOF) {
		err = p.ended()
	}
	if !errors.Is(err, errDone) {
		p.release()
	}
	if gone := p.hand(); gone != nil {
		return gone
	}
	if !errors.Is(err, errDone) {
		return err
	}
	return p.Pass(job.Chunk{Raw: append(p.held, p.event...), Last: true, Usage: p.used(time.Now())})
}

// errDone is returned for the last of what a stream has to say.
var errDone = errors.New("the stream has ended")

// used is what the stream took. Of times that the server does not tell it is how
// they look from here.
func (p *Passing) used(now time.Time) job.Usage {
	u := p.usage
	if u.Prefill == 0 && u.Decode == 0 && !p.first.IsZero() {
		u.Prefill, u.Decode = p.first.Sub(p.Sent), now.Sub(p.first)
	}
	return u
}

// take takes a line.
func (p *Passing) take(line []byte) error {
	p.event = append(p.event, line...)
	data, ok := p.parser.Line(line)
	switch {
	case ok:
		return p.whatIs(data)
	case len(p.event) > MaxEvent:
		return job.Errorf(job.BackendFailed, "an event of its stream is longer than %d bytes", MaxEvent)
	default:
		return nil
	}
}

// whatIs looks at an event that is complete.
func (p *Passing) whatIs(data []byte) error {
	sign := p.Look(data)
	p.usage = sign.Usage.Over(p.usage)
	for _, answer := range sign.Finished {
		if p.finished == nil {
			p.finished = make(map[int]bool)
		}
		p.finished[answer] = true
	}
	switch {
	case sign.End:
		return errDone
	case sign.Error != "":
		return p.failed(sign.Error)
	case p.Hide && sign.Alone:
		p.event = p.event[:0]
		return nil
	case p.Hide && sign.Told:
		p.event = job.HideUsage(p.event)
	}
	if p.first.IsZero() {
		p.first = time.Now()
	}
	p.release()
	if len(sign.Finished) > 0 || sign.Alone {
		p.held = append(p.held, p.event...)
	} else {
		p.out = append(p.out, p.event...)
		p.pieces++
	}
	p.event = p.event[:0]
	return nil
}

// release lets go of what was held, since more comes after it.
func (p *Passing) release() {
	if len(p.held) > 0 {
		p.out, p.held = append(p.out, p.held...), p.held[:0]
		p.pieces++
	}
}

// failed ends a stream with the server's own error. One that comes before any
// token is not passed on, so that another backend can be tried.
func (p *Passing) failed(message string) error {
	e := job.Errorf(job.BackendFailed, "%s", message)
	if !p.Begun && len(p.out)+len(p.held) == 0 {
		return e
	}
	p.release()
	p.out, e.Told = append(p.out, p.event...), true
	return e
}

func (p *Passing) hand() error {
	if len(p.out) == 0 {
		return nil
	}
	err := p.Pass(job.Chunk{Raw: p.out, Pieces: p.pieces})
	p.out, p.pieces = p.out[:0], 0
	return err
}

// ended handles a stream that ends without saying so. An event without an end of
// its own counts only if all is complete with it: nothing could follow it.
func (p *Passing) ended() error {
	data, left := p.parser.End()
	sign := p.Look(data)
	switch {
	case left && sign.End:
		return errDone
	case left && sign.Error != "":
		return job.Errorf(job.BackendFailed, "%s", sign.Error)
	case left && len(sign.Finished) > 0:
		_ = p.whatIs(data) // which is no error, and not the end
	}
	p.event = p.event[:0]
	if len(p.finished) < p.Answers() {
		return job.Errorf(job.BackendFailed, "its stream ended before its last event")
	}
	return errDone
}

// Refusal returns the error that an error response is, in the words of its API:
// the server's own, if they are that.
func Refusal(resp *http.Response, of dialect.Manner) *job.Error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, endpoint.MaxError))
	detail := dialect.OpenAIMessage(body)
	if detail == "" {
		detail = resp.Status
	}
	kind := resp.Header.Get("Content-Type")
	if !of.IsError(body) {
		kind, body = "application/json; charset=utf-8", of.Error(resp.StatusCode, detail)
	}
	return &job.Error{Code: endpoint.CodeOf(resp.StatusCode), Detail: detail, RetryAfter: endpoint.RetryAfter(resp), Answer: &job.Answer{
		Dialect: of.Dialect, Status: resp.StatusCode, ContentType: kind, Body: body,
	}}
}

// refusal hands on a refusal of a request that is at fault. From others another
// backend may do better.
func (p *Passing) refusal(resp *http.Response) error {
	e := Refusal(resp, p.Manner)
	if e.Code != job.Invalid {
		return e
	}
	p.Head.ContentType, p.Head.Length = e.Answer.ContentType, int64(len(e.Answer.Body))
	return p.Pass(job.Chunk{Raw: e.Answer.Body, Last: true})
}
