package events

import (
	"bytes"
	"io"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/job"
)

// maxLine is the longest line of a stream.
const maxLine = 16 << 20

// Lines calls line for each line of a stream, and pause when nothing more has
// arrived. It returns what they do, or the error that ends the stream.
func Lines(body io.Reader, line func([]byte) error, pause func() error) error {
	first := endpoint.Borrow()
	defer first.Return()
	buf := first[:0]
	for {
		n, err := body.Read(buf[len(buf):cap(buf)])
		at, seen := 0, len(buf)
		buf = buf[:seen+n]
		for {
			// What was there before has no end of a line in it.
			end := bytes.IndexByte(buf[max(at, seen):], '\n') + 1
			if end == 0 {
				break
			}
			end += max(at, seen)
			if err := line(buf[at:end]); err != nil {
				return err
			}
			at = end
		}
		if err != nil {
			return rest(buf[at:], line, err)
		}
		if err := pause(); err != nil {
			return err
		}
		if at > 0 {
			buf = append(buf[:0], buf[at:]...)
		}
		switch {
		case len(buf) >= maxLine:
			return job.Errorf(job.BackendFailed, "a line of its stream is longer than %d bytes", maxLine)
		case len(buf) == cap(buf):
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
	}
}

// rest takes a line that the end of the stream ends, and returns why that came.
func rest(last []byte, line func([]byte) error, why error) error {
	if len(last) > 0 {
		if err := line(last); err != nil {
			return err
		}
	}
	return why
}
