package nvml

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/helper"
)

const (
	// grace is for how long the program stays when its last connection is
	// closed, for jobs that follow upon each other: opening NVML takes hundreds
	// of milliseconds, and a GPU waits for seconds before it falls asleep.
	grace = time.Second
	// silence is for how long a connection may ask nothing. Who reads a GPU does
	// so every second; who does not must not keep it awake.
	silence = 5 * time.Second
	// hung is how long NVML may take. A driver in trouble may never return.
	hung = 10 * time.Second
	// longest is more than a question needs.
	longest = 512
)

// Why a question has no answer: a library that does not return, and us.
var (
	errHung     = fmt.Errorf("%w: NVML does not answer", power.ErrUnavailable)
	errStopping = fmt.Errorf("%w: told to stop", power.ErrUnavailable)
)

// A Server answers for the GPUs of a machine, to its own user and to root.
type Server struct {
	Sys  fs.FS
	Open func() (Library, error) // called once a GPU that is awake is asked about
	Log  *slog.Logger
}

// Serve answers on a listener until its last connection has been closed for a
// second, or ctx is done, and closes both the listener and the library. That
// this can take an error means that the library did not return, and that only
// the end of the process lets go of the GPUs.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer l.Close()
	gpus, err := GPUs(s.Sys)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, asked, closed := newReader(s.Sys, gpus, s.Open, s.Log), make(chan inquiry), make(chan struct{})
	go func() {
		defer close(closed)
		r.run(ctx, asked)
	}()
	helper.Serve(ctx, l, grace, func(conn net.Conn) (func(), func()) {
		return func() { s.welcome(ctx, conn, asked) }, func() {}
	})
	cancel()
	select {
	case <-closed:
		return nil
	case <-time.After(grace):
		return errHung
	}
}

// welcome converses with a caller of ours, and refuses any other.
func (s *Server) welcome(ctx context.Context, conn net.Conn, asked chan<- inquiry) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := admit(conn); err != nil {
		s.Log.WarnContext(ctx, "caller is refused", "err", err)
		_ = tell(conn, answerOf(Sample{}, err))
		return
	}
	converse(ctx, conn, asked)
}

// admit checks who connected. The socket's permissions keep everybody else out
// already, as long as nobody changes them.
func admit(conn net.Conn) error {
	p, err := helper.PeerOf(conn)
	if err != nil {
		return fmt.Errorf("%w: %w", power.ErrUnavailable, err)
	}
	return admitUser(int(p.UID))
}

func admitUser(uid int) error {
	if own := os.Getuid(); uid != own && uid != 0 {
		return fmt.Errorf("%w: this is for user %d alone, and not for %d", power.ErrUnavailable, own, uid)
	}
	return nil
}

// converse answers questions until the other side leaves, says what nobody
// understands, or has said nothing for too long.
func converse(ctx context.Context, conn net.Conn, asked chan<- inquiry) {
	lines := bufio.NewReaderSize(conn, longest)
	for {
		if err := conn.SetDeadline(time.Now().Add(silence)); err != nil {
			return
		}
		line, err := lines.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
		var q question
		if err = errors.Join(err, json.Unmarshal(line, &q)); err != nil {
			_ = tell(conn, answerOf(Sample{}, fmt.Errorf("%w: a question cannot be read: %w", power.ErrUnavailable, err)))
			return
		}
		sample, err := ask(ctx, asked, q)
		if err := conn.SetDeadline(time.Now().Add(silence)); err != nil {
			return
		}
		if tell(conn, answerOf(sample, err)) != nil || errors.Is(err, errHung) {
			return
		}
	}
}

// tell sends an answer.
func tell(conn net.Conn, a answer) error {
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = conn.Write(append(line, '\n'))
	return err
}

// inquiry is a question on its way to the reader.
type inquiry struct {
	question
	reply chan<- reply // with room for one
}

type reply struct {
	sample Sample
	err    error
}

// ask has the reader answer.
func ask(ctx context.Context, asked chan<- inquiry, q question) (Sample, error) {
	replies := make(chan reply, 1)
	limit := time.NewTimer(hung)
	defer limit.Stop()
	select {
	case asked <- inquiry{q, replies}:
	case <-limit.C:
		return Sample{}, errHung
	case <-ctx.Done():
		return Sample{}, errStopping
	}
	select {
	case r := <-replies:
		return r.sample, r.err
	case <-limit.C:
		return Sample{}, errHung
	case <-ctx.Done():
		return Sample{}, errStopping
	}
}

// run answers one question after the other until ctx is done, and lets go of
// the GPUs then.
func (r *reader) run(ctx context.Context, asked <-chan inquiry) {
	defer r.close(context.WithoutCancel(ctx))
	for {
		select {
		case q := <-asked:
			s, err := r.read(ctx, q.Read)
			q.reply <- reply{s, err}
		case <-ctx.Done():
			return
		}
	}
}
