package dbus

import (
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

func TestErrorsSayWhenToAskAgain(t *testing.T) {
	err := &job.Error{Code: job.Busy, Detail: "too hot", RetryAfter: 7001 * time.Millisecond}
	got := errorOf(err)
	if want := "busy: too hot; try again in 8 s"; got.Name != ownErrors+"Busy" || got.Body[0] != want {
		t.Errorf("got %s, %q", got.Name, got.Body)
	}
	err.RetryAfter = 0
	if got := errorOf(err); got.Body[0] != "busy: too hot" {
		t.Errorf("got %q, and nobody knows when", got.Body)
	}
}
