// Package helper is how the daemon talks to a program apart that reads sensors
// for it: power/nvml's, because a library needs a process that can end, and
// power/energyd's, because of rights that the daemon does not have. A question
// is a line, and so is its answer; answers come in the order of the questions.
//
// It has both ends, and knows when the other side is late, gone or of no use.
// What the lines say is for those packages to know.
package helper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	// Patience is how long a look may take: jobs wait for it.
	Patience = 50 * time.Millisecond
	// Stale is how old the last reading of a connection may be to stand for one
	// that is late. It has its own time, so nobody takes it for news, and what
	// passes meanwhile is counted when there is some. To say that there is no
	// reading would have it taken for a gap, and not be counted at all.
	Stale = 5 * time.Second
)

var errTooLong = errors.New("an answer does not end")

// Line is the asking end. It connects when something is asked, and stays
// connected until HangUp or until something fails.
type Line struct {
	Socket  string
	Longest int // answer that there can be

	conn  net.Conn // nil while there is none
	lines *bufio.Reader
	part  []byte // of an answer of which the rest has not come
	owed  bool   // an answer is on its way
	heard bool   // an answer has come
}

// Late reports whether an answer has only not come in time. Dialing has an error
// of its own for that, which is not os.ErrDeadlineExceeded.
func Late(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.Canceled) || errors.As(err, &timeout) && timeout.Timeout()
}

// Heard reports whether an answer has come over the connection that there is.
func (l *Line) Heard() bool { return l.heard }

// Ask asks, and returns the newest answer that comes within some time and
// before ctx ends. If that is late nothing is lost; any other failure has ended
// the connection.
//
// The first answer of a connection counts however late it comes, since the
// program then had to be started, and what passes is counted from there. Later
// on an answer that was late is worth only more than none.
func (l *Line) Ask(ctx context.Context, question []byte, within time.Duration) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err // A question that is cut off in the middle is none.
	}
	deadline := time.Now().Add(within)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	if !time.Now().Before(deadline) {
		return nil, context.DeadlineExceeded
	}
	var late []byte
	if l.owed {
		first := !l.heard
		var err error
		if late, err = l.receive(deadline); err != nil || first {
			return late, err
		}
	}
	again := l.conn != nil
	answer, err := l.ask(ctx, question, deadline)
	if again && err != nil && !Late(err) {
		answer, err = l.ask(ctx, question, deadline) // It was closed meanwhile.
	}
	if late != nil && Late(err) {
		return late, nil
	}
	return answer, err
}

// ask asks, if need be on a new connection.
func (l *Line) ask(ctx context.Context, question []byte, deadline time.Time) ([]byte, error) {
	if err := l.connect(ctx, deadline); err != nil {
		return nil, err
	}
	if err := l.conn.SetWriteDeadline(deadline); err != nil {
		l.HangUp()
		return nil, err
	}
	_, failed := l.conn.Write(append(question[:len(question):len(question)], '\n'))
	// Who refuses us says so and hangs up without listening.
	answer, err := l.receive(deadline)
	if failed != nil {
		l.HangUp()
	}
	if err != nil {
		err = errors.Join(err, failed)
	}
	return answer, err
}

func (l *Line) connect(ctx context.Context, deadline time.Time) error {
	if l.conn != nil {
		return nil
	}
	dialer := net.Dialer{Deadline: deadline}
	conn, err := dialer.DialContext(ctx, "unix", l.Socket)
	if err != nil {
		return err
	}
	l.conn, l.lines = conn, bufio.NewReaderSize(conn, l.Longest)
	return nil
}

// receive returns the next answer, which is owed if it does not come in time.
// What has come of it stays for the next time.
func (l *Line) receive(deadline time.Time) ([]byte, error) {
	if err := l.conn.SetReadDeadline(deadline); err != nil {
		l.HangUp()
		return nil, err
	}
	piece, err := l.lines.ReadSlice('\n')
	l.part = append(l.part, piece...)
	switch {
	case len(l.part) > l.Longest, errors.Is(err, bufio.ErrBufferFull):
		l.HangUp()
		return nil, fmt.Errorf("%w after %d bytes", errTooLong, l.Longest)
	case Late(err):
		l.owed = true
		return nil, err
	case err != nil:
		l.HangUp()
		return nil, err
	}
	answer := l.part
	l.part, l.owed, l.heard = nil, false, true
	return answer, nil
}

// HangUp lets go of the other side.
func (l *Line) HangUp() {
	if l.conn != nil {
		_ = l.conn.Close()
	}
	*l = Line{Socket: l.Socket, Longest: l.Longest}
}
