package openai

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
)

// maxCounted is the largest undivided answer that is searched for counts.
const maxCounted = 1 << 20

// pass runs a job of OpenAI's dialect, whose bytes are passed as they are.
func (s *Server) pass(ctx context.Context, f *findings, j job.Job, to *endpoint.Handing) error {
	body := j.Original.Body
	var err error
	if id := f.id(j.Model); j.Chosen || id != j.Model {
		if body, err = job.SetModel(body, id); err != nil {
			return err
		}
	}
	p := &passing{Handing: to}
	if j.Stream {
		if body, p.hide, err = job.AskUsage(body); err != nil {
			return err
		}
	}
	resp, err := s.Post(ctx, f.prefix+strings.TrimPrefix(j.Original.Path, "/v1"), body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if code := endpoint.CodeOf(resp.StatusCode); code != "" && code != job.Invalid {
		return refusal(resp, func(status int, message string) []byte { return dialect.OpenAIError(status, message, "") })
	}
	to.Head = job.Head{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Length: resp.ContentLength}
	if resp.StatusCode >= http.StatusBadRequest || !j.Stream {
		return p.whole(resp.Body)
	}
	if err := p.stream(resp.Body); err != nil {
		return err
	}
	endpoint.ReadOut(resp.Body)
	return nil
}

// passing hands a response on as it came, and watches what passes.
type passing struct {
	*endpoint.Handing
	// hide tells that the client did not ask for what the stream took.
	hide bool

	events   dialect.Events
	event    []byte // the lines of an event that has not ended
	out      []byte // the events that arrived together
	usage    job.Usage
	complete bool
}

// whole passes on an undivided answer.
func (p *passing) whole(body io.Reader) error {
	var kept []byte
	buf := make([]byte, bufferSize)
	for {
		n, err := body.Read(buf)
		if len(kept)+n <= maxCounted {
			kept = append(kept, buf[:n]...)
		}
		switch {
		case errors.Is(err, io.EOF):
			p.usage, _ = dialect.Used(kept)
			return p.Pass(job.Chunk{Raw: buf[:n], Last: true, Usage: p.usage})
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
func (p *passing) stream(body io.Reader) error {
	err := readLines(body, p.take, p.hand)
	if errors.Is(err, io.EOF) {
		err = p.ended()
	}
	if gone := p.hand(); gone != nil {
		return gone
	}
	if !errors.Is(err, errDone) {
		return err
	}
	return p.Pass(job.Chunk{Raw: p.event, Last: true, Usage: p.usage})
}

// take takes a line.
func (p *passing) take(line []byte) error {
	p.event = append(p.event, line...)
	data, ok := p.events.Line(line)
	switch {
	case ok:
		return p.whatIs(data)
	case len(p.event) > maxEvent:
		return job.Errorf(job.BackendFailed, "an event of its stream is longer than %d bytes", maxEvent)
	default:
		return nil
	}
}

// whatIs looks at an event that is complete. Few need be parsed for it.
func (p *passing) whatIs(data []byte) error {
	if string(data) == dialect.Done {
		return errDone
	}
	if bytes.Contains(data, []byte(`"error"`)) {
		if message := dialect.Failed(data); message != "" {
			return p.failed(message)
		}
	}
	p.complete = p.complete || bytes.Contains(data, []byte(`"finish_reason":"`)) || bytes.Contains(data, []byte(`"finish_reason": "`))
	if bytes.Contains(data, []byte(`"usage"`)) || bytes.Contains(data, []byte(`"timings"`)) {
		used, alone := dialect.Used(data)
		if used != (job.Usage{}) {
			p.usage = used
		}
		if alone && p.hide {
			p.event = p.event[:0]
			return nil
		}
	}
	p.out, p.event = append(p.out, p.event...), p.event[:0]
	return nil
}

// failed ends a stream with the server's own error. One that comes before any
// token is not passed on, so that another backend can be tried.
func (p *passing) failed(message string) error {
	e := job.Errorf(job.BackendFailed, "%s", message)
	if !p.Begun && len(p.out) == 0 {
		return e
	}
	p.out, e.Told = append(p.out, p.event...), true
	return e
}

func (p *passing) hand() error {
	if len(p.out) == 0 {
		return nil
	}
	err := p.Pass(job.Chunk{Raw: p.out})
	p.out = p.out[:0]
	return err
}

// ended handles a stream that ends without saying so.
func (p *passing) ended() error {
	if data, ok := p.events.End(); ok {
		if err := p.whatIs(data); err != nil {
			return err
		}
	}
	if !p.complete {
		return job.Errorf(job.BackendFailed, "its stream ended before its last event")
	}
	return errDone
}
