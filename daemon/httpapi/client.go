package httpapi

import (
	"context"
	"net/http"
	"time"
)

// unreadFor is how long a client may leave a piece of its answer unread. Until
// then it holds up the backend, which is what it should do.
const unreadFor = 30 * time.Second

// client is the receiver of an answer that takes its time.
type client struct {
	w       http.ResponseWriter
	control *http.ResponseController
	stalled time.Duration
}

func (s *Server) client(w http.ResponseWriter) client {
	return client{w: w, control: http.NewResponseController(w), stalled: s.stalled}
}

// write hands on a piece, and fails if it is not taken in time: no later than
// ctx ends.
func (c *client) write(ctx context.Context, piece []byte) error {
	until := time.Now().Add(c.stalled)
	if end, ok := ctx.Deadline(); ok && end.Before(until) {
		until = end.Add(behind)
	}
	if err := c.control.SetWriteDeadline(until); err != nil {
		return err
	}
	_, err := c.w.Write(piece)
	return err
}

// behind is how much later than its job an unread piece ends. Were the piece
// the first, the job would pass for one whose client is gone.
const behind = 10 * time.Millisecond

// send is write for a piece that the client should see at once.
func (c *client) send(ctx context.Context, piece []byte) error {
	if err := c.write(ctx, piece); err != nil {
		return err
	}
	return c.control.Flush()
}

// lastly returns the context of the last words to a client whose job is over,
// and who may not be reading them.
func lastly(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), lastWords)
}
