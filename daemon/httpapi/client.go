package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/joulemux/joulemux/daemon/door"
)

// unreadFor is how long a client may leave a piece of its answer unread. Until
// then it holds up the backend, which is what it should do.
const unreadFor = 30 * time.Second

// slowFor is how long a client who takes its answer little by little may hold up
// the backend, all in all: others wait for it. Whoever reads as a model writes is
// not waited for at all.
const slowFor = 2 * time.Minute

// client is the receiver of an answer that takes its time.
type client struct {
	w       http.ResponseWriter
	control *http.ResponseController
	stalled time.Duration
	slow    time.Duration // what is left of it
}

// client returns the receiver of an answer, which may now be silent for as long as
// it takes.
func (s *Server) client(w http.ResponseWriter) client {
	c := client{w: w, control: http.NewResponseController(w), stalled: s.stalled, slow: s.slow}
	_ = c.control.SetWriteDeadline(time.Time{})
	return c
}

// write hands on a piece, and fails if it is not taken in time: not much later
// than ctx ends.
func (c *client) write(ctx context.Context, piece []byte) error {
	return c.waited(ctx, func() error {
		_, err := c.w.Write(piece)
		return err
	})
}

// waited does what may have to wait for the client.
func (c *client) waited(ctx context.Context, f func() error) error {
	began := time.Now()
	err := door.Within(ctx, c.control, min(c.stalled, c.slow), f)
	c.slow -= time.Since(began)
	return err
}

// send is write for a piece that the client should see at once.
func (c *client) send(ctx context.Context, piece []byte) error {
	return c.waited(ctx, func() error {
		if _, err := c.w.Write(piece); err != nil {
			return err
		}
		return c.control.Flush()
	})
}

// lastly returns the context of the last words to a client whose job is over,
// and who may not be reading them.
func lastly(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), door.LastWords)
}
