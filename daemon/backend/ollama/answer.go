package ollama

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/job"
)

// maxLine is the longest line of a stream. Ollama's last line holds the whole
// context as numbers, which makes hundreds of kilobytes.
const maxLine = 64 << 20

// maxCounted is the largest undivided answer that is searched for counts.
const maxCounted = 1 << 20

// answer hands a response on, and watches what passes.
type answer struct {
	endpoint.Handing
	job job.Job
}

// inLines reports whether the answer is a stream of JSON lines.
func (a *answer) inLines() bool {
	return a.Head.Status < 400 && a.job.Stream && a.job.Kind != job.Embed
}

// readLines passes a stream on as lines become complete: all that have arrived
// together, in one piece.
func (a *answer) readLines(body io.Reader) error {
	first := endpoint.Borrow()
	defer first.Return()
	buf := first[:0]
	for {
		n, err := body.Read(buf[len(buf):cap(buf)])
		start := len(buf)
		buf = buf[:start+n]
		if end := bytes.LastIndexByte(buf[start:], '\n') + 1; end > 0 {
			end += start
			if done, err := a.lines(buf[:end]); done || err != nil {
				return err
			}
			buf = append(buf[:0], buf[end:]...)
		}
		switch {
		case errors.Is(err, io.EOF):
			return a.ended(buf)
		case err != nil:
			return err
		case len(buf) == cap(buf) && len(buf) >= maxLine:
			return job.Errorf(job.BackendFailed, "a line of its stream is longer than %d bytes", maxLine)
		case len(buf) == cap(buf):
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
	}
}

// lines passes on complete lines. It reports done with the last of the stream,
// which goes alone, so that something can be added to it.
func (a *answer) lines(block []byte) (done bool, err error) {
	for at := 0; at < len(block); {
		end := at + bytes.IndexByte(block[at:], '\n') + 1
		if end <= at {
			end = len(block)
		}
		if line := block[at:end]; mayEnd(line) {
			if last, ok := parseLast(line); ok {
				if at > 0 {
					if err := a.piece(block[:at]); err != nil {
						return false, err
					}
				}
				return true, a.last(line, last)
			}
		}
		at = end
	}
	return false, a.piece(block)
}

// lineEnd follows each token in a stream.
var lineEnd = []byte{'\n'}

// piece passes on lines that are not the last.
func (a *answer) piece(lines []byte) error {
	c := job.Chunk{Raw: lines, Pieces: bytes.Count(lines, lineEnd)}
	if a.job.Original == nil {
		c.Text = text(lines)
	}
	return a.Pass(c)
}

// last passes on the last line. An error in it that comes before any token is
// not passed on, so that another backend can be tried.
func (a *answer) last(line []byte, l lastLine) error {
	if l.Error != "" {
		if a.Begun {
			if err := a.Pass(job.Chunk{Raw: line}); err != nil {
				return err
			}
		}
		return &job.Error{Code: job.BackendFailed, Detail: l.Error, Told: a.Begun}
	}
	c := job.Chunk{Raw: line, Last: true, Usage: l.usage()}
	if a.job.Original == nil {
		c.Text = l.Response + l.Message.Content
	}
	return a.Pass(c)
}

// ended handles the end of a stream with what was left of it: a last line
// without an end, or nothing, which is too early.
func (a *answer) ended(rest []byte) error {
	if len(bytes.TrimSpace(rest)) > 0 {
		if done, err := a.lines(rest); done || err != nil {
			return err
		}
	}
	return job.Errorf(job.BackendFailed, "its stream ended before its last line")
}

// readBody passes on an undivided answer.
func (a *answer) readBody(body io.Reader) error {
	var kept []byte
	buf := endpoint.Borrow()
	defer buf.Return()
	native := a.job.Original == nil
	for {
		n, err := body.Read(buf[:])
		if native || len(kept)+n <= maxCounted {
			kept = append(kept, buf[:n]...)
		}
		switch ended := errors.Is(err, io.EOF); {
		case err != nil && !ended:
			return err
		case len(kept) > maxLine:
			return job.Errorf(job.BackendFailed, "its answer is longer than %d bytes", maxLine)
		case ended && native:
			return a.whole(kept)
		case ended:
			return a.Pass(job.Chunk{Raw: buf[:n], Last: true, Usage: counted(kept)})
		case n > 0 && !native:
			if err := a.Pass(job.Chunk{Raw: buf[:n]}); err != nil {
				return err
			}
		}
	}
}

// counted returns the usage in an undivided answer, or none.
func counted(body []byte) job.Usage {
	var l lastLine
	if json.Unmarshal(body, &l) != nil {
		return job.Usage{}
	}
	return l.usage()
}

// whole passes on an undivided answer to a job without an Original.
func (a *answer) whole(body []byte) error {
	var w struct {
		lastLine
		Embeddings [][]float32
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return fmt.Errorf("its answer: %w", err)
	}
	if w.Error != "" {
		return job.Errorf(job.BackendFailed, "%s", w.Error)
	}
	return a.Pass(job.Chunk{
		Raw: body, Text: w.Response + w.Message.Content, Vectors: w.Embeddings,
		Last: true, Usage: w.usage(),
	})
}

// lastLine is what matters in the last line of a stream, or in an undivided
// answer (docs/api.md of Ollama; durations are in nanoseconds).
type lastLine struct {
	Done     bool
	Error    string
	Response string
	Message  struct{ Content string }

	PromptEvalCount    int           `json:"prompt_eval_count"`
	PromptEvalDuration time.Duration `json:"prompt_eval_duration"`
	EvalCount          int           `json:"eval_count"`
	EvalDuration       time.Duration `json:"eval_duration"`
	LoadDuration       time.Duration `json:"load_duration"`
}

func (l lastLine) usage() job.Usage {
	return job.Usage{
		PromptTokens: l.PromptEvalCount, Tokens: l.EvalCount,
		Load: l.LoadDuration, Prefill: l.PromptEvalDuration, Decode: l.EvalDuration,
	}
}

// mayEnd cheaply rules out that line is the last: it then has a member done
// that is true, or a member error. In a JSON string the quotes would be
// escaped, so text that speaks of such members does not match.
func mayEnd(line []byte) bool {
	return bytes.Contains(line, []byte(`"error"`)) || doneTrue(line)
}

func doneTrue(line []byte) bool {
	for {
		i := bytes.Index(line, []byte(`"done"`))
		if i < 0 {
			return false
		}
		line = bytes.TrimLeft(line[i+len(`"done"`):], " \t")
		if value, ok := bytes.CutPrefix(line, []byte(":")); ok && bytes.HasPrefix(bytes.TrimLeft(value, " \t"), []byte("true")) {
			return true
		}
	}
}

// parseLast parses line, and reports whether it is the last indeed.
func parseLast(line []byte) (l lastLine, ok bool) {
	if json.Unmarshal(line, &l) != nil {
		return l, false
	}
	return l, l.Done || l.Error != ""
}

// text returns the generated text in lines.
func text(lines []byte) string {
	var all []byte
	for line := range bytes.Lines(lines) {
		var l struct {
			Response string
			Message  struct{ Content string }
		}
		if json.Unmarshal(line, &l) == nil {
			all = append(append(all, l.Response...), l.Message.Content...)
		}
	}
	return string(all)
}
