package door

import (
	"net/http"
	"time"
)

// Within has f write to a client who may not be reading, and has that fail, and
// all that follows, once it has taken so long.
//
// A time that is set beforehand to write in would end a stream of HTTP/2 though
// nothing is being written: when it passes between two tokens.
func Within(control *http.ResponseController, limit time.Duration, f func() error) error {
	passed := make(chan struct{})
	timer := time.AfterFunc(limit, func() {
		defer close(passed)
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
