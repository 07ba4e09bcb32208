package door

import (
	"context"
	"net/http"
	"time"
)

// behind is how much later than its job an unread piece ends: one that is being
// taken when the job's time is over is no reason to be silent about that.
const behind = 100 * time.Millisecond

// Within has f write to a client who may not be reading, and has that fail, and
// all that follows, once it has taken so long, or the deadline of ctx is over.
//
// A request ends when what is written to its client fails. Whose deadline is over is
// told so first, however late that is on a machine that has much to do, or its job
// would pass for one whose client is gone.
//
// A time that is set beforehand to write in would end a stream of HTTP/2 though
// nothing is being written: when it passes between two tokens.
func Within(ctx context.Context, control *http.ResponseController, limit time.Duration, f func() error) error {
	var over <-chan struct{}
	if end, ok := ctx.Deadline(); ok {
		if left := time.Until(end) + behind; left < limit {
			limit, over = left, ctx.Done()
		}
	}
	passed := make(chan struct{})
	timer := time.AfterFunc(limit, func() {
		defer close(passed)
		if over != nil {
			<-over
		}
		_ = control.SetWriteDeadline(time.Unix(1, 0))
	})
	if limit <= 0 {
		<-passed
	}
	err := f()
	if !timer.Stop() {
		<-passed // nobody may touch an answer once its handler has returned
	}
	return err
}
