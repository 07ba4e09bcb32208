package energyd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/joulemux/joulemux/power/helper"
)

const (
	// silence is for how long a connection may ask nothing. Who meters a job
	// does so every second.
	silence = 5 * time.Second
	// longest is more than the question takes.
	longest = 128
	// most is how many may be connected at a time, and each how often.
	most, mostOfOne = 16, 4
)

var (
	errRefused = errors.New("not for this user")
	errCrowded = errors.New("too many connections")
)

// A Server answers what the hardware's counters show.
type Server struct {
	Readers []Reader
	Access  Access
	Idle    time.Duration // without a connection, after which it ends
	Log     *slog.Logger
}

// Serve answers on a listener until nobody has been connected for as long as it
// takes, or ctx is done, and closes the listener. Whoever connects afterwards
// is the service manager's, which starts the next process.
func (s *Server) Serve(ctx context.Context, l net.Listener) {
	h, inside := newHardware(s.Readers), make(crowd)
	helper.Serve(ctx, l, s.Idle, func(conn net.Conn) (func(), func()) {
		uid, err := s.admit(conn, inside)
		if err != nil {
			s.refuse(ctx, conn, err)
			return nil, nil
		}
		inside[uid]++
		return func() { converse(ctx, conn, h) }, func() { inside.leave(uid) }
	})
}

// crowd is how many connections each user has.
type crowd map[uint32]int

// refuses says whether there is no room for one more of a user's.
func (c crowd) refuses(uid uint32) bool {
	all := 0
	for _, n := range c {
		all += n
	}
	return all >= most || c[uid] >= mostOfOne
}

func (c crowd) leave(uid uint32) {
	if c[uid]--; c[uid] == 0 {
		delete(c, uid)
	}
}

// admit returns the user who came, if that user may.
func (s *Server) admit(conn net.Conn, inside crowd) (uint32, error) {
	p, err := helper.PeerOf(conn)
	switch {
	case err != nil:
		return 0, err
	case !s.Access.admits(p):
		return p.UID, fmt.Errorf("%w: %d", errRefused, p.UID)
	case inside.refuses(p.UID):
		return p.UID, errCrowded
	}
	return p.UID, nil
}

func (s *Server) refuse(ctx context.Context, conn net.Conn, err error) {
	s.Log.WarnContext(ctx, "caller is refused", "err", err)
	fail(conn, err)
	_ = conn.Close()
}

// converse answers questions until the other side leaves, asks something else,
// or has asked nothing for too long.
func converse(ctx context.Context, conn net.Conn, h *hardware) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	lines := bufio.NewReaderSize(conn, longest)
	for conn.SetDeadline(time.Now().Add(silence)) == nil {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			fail(conn, errQuestion)
			return
		}
		if err != nil {
			return
		}
		reply, err := h.reply(ctx, line)
		if err != nil {
			fail(conn, err)
			return
		}
		if _, err := conn.Write(reply); err != nil {
			return
		}
	}
}

// fail says why there is no answer. Nobody need be there to hear it.
func fail(conn net.Conn, err error) {
	line, err := json.Marshal(answer{Error: err.Error()})
	if err == nil && conn.SetWriteDeadline(time.Now().Add(silence)) == nil {
		_, _ = conn.Write(append(line, '\n'))
	}
}
