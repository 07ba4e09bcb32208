package httpapi

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

func TestRetryAfterIsInWholeSeconds(t *testing.T) {
	for _, c := range []struct {
		rule  string
		code  job.Code
		after time.Duration
		want  string
	}{
		{"what is known is told", job.NoBackend, 8 * time.Second, "8"},
		{"nobody comes back too early", job.Busy, 7001 * time.Millisecond, "8"},
		{"nor at once", job.Busy, 1, "1"},
		{"the tier may be better then", job.PowerPolicy, time.Minute, "60"},
		{"what passes does so soon", job.Busy, 0, "5"},
		{"or there is no telling", job.NoBackend, 0, "5"},
		{"what is not there will not be", job.ModelNotFound, 0, ""},
	} {
		w := httptest.NewRecorder()
		fail(w, &job.Error{Code: c.code, RetryAfter: c.after})
		if got := w.Header().Get("Retry-After"); got != c.want {
			t.Errorf("%s: Retry-After is %q, want %q", c.rule, got, c.want)
		}
		// In a stream there is no header any more.
		want := c.want
		if c.after == 0 {
			want = ""
		}
		if _, told, _ := strings.Cut(w.Body.String(), `"retry_after_seconds":`); strings.TrimSuffix(told, "}\n") != want {
			t.Errorf("%s: the body is %q", c.rule, w.Body)
		}
	}
}
