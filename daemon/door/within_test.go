package door_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/door"
)

// late is a context that ends after its deadline, as on a machine that has much to
// do.
type late struct {
	deadline time.Time
	done     chan struct{}
}

func (l late) Deadline() (time.Time, bool) { return l.deadline, true }
func (l late) Done() <-chan struct{}       { return l.done }
func (late) Value(any) any                 { return nil }

func (l late) Err() error {
	select {
	case <-l.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// unread is an answer that nobody reads.
type unread struct {
	http.ResponseWriter
	cut chan struct{}
}

func (u unread) SetWriteDeadline(time.Time) error {
	close(u.cut)
	return nil
}

func TestADeadlineEndsAWriteOnlyOnceItHasEndedItsJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, to := time.Now(), unread{httptest.NewRecorder(), make(chan struct{})}
		job := late{began.Add(time.Second), make(chan struct{})}
		time.AfterFunc(5*time.Second, func() { close(job.done) })
		err := door.Within(job, http.NewResponseController(to), time.Hour, func() error {
			<-to.cut
			return job.Err()
		})
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != 5*time.Second {
			t.Errorf("after %v it fails with %v", took, err)
		}
	})
}

func TestAWriteEndsAtItsLimitOrSoonAfterTheDeadline(t *testing.T) {
	for limit, want := range map[time.Duration]time.Duration{time.Second: time.Second, time.Hour: time.Minute + 100*time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			began, to := time.Now(), unread{httptest.NewRecorder(), make(chan struct{})}
			_ = door.Within(ctx, http.NewResponseController(to), limit, func() error { <-to.cut; return nil })
			if took := time.Since(began); took != want {
				t.Errorf("within %v: it took %v, want %v", limit, took, want)
			}
		})
	}
}
