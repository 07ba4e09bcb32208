package httpapi

import (
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

// write hands on a piece, and fails if it is not taken in time.
func (c *client) write(piece []byte) error {
	if err := c.control.SetWriteDeadline(time.Now().Add(c.stalled)); err != nil {
		return err
	}
	_, err := c.w.Write(piece)
	return err
}

// send is write for a piece that the client should see at once.
func (c *client) send(piece []byte) error {
	if err := c.write(piece); err != nil {
		return err
	}
	return c.control.Flush()
}
