package latest_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/latest"
)

func TestSlowReaderSeesFirstAndLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l latest.Value[int]
		ctx, cancel := context.WithCancel(t.Context())
		var seen []int
		done := make(chan struct{})
		go func() {
			defer close(done)
			for v := range l.Watch(ctx) {
				seen = append(seen, v)
				time.Sleep(time.Minute)
			}
		}()
		synctest.Wait()
		for v := range 10 {
			l.Publish(v + 1)
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Minute)
		cancel()
		<-done
		if !slices.Equal(seen, []int{0, 10}) {
			t.Errorf("a minute-long reader saw %v", seen)
		}
	})
}

func TestReaderMayStop(t *testing.T) {
	var l latest.Value[string]
	l.Publish("a")
	for v := range l.Watch(t.Context()) {
		if v != "a" || l.Current() != "a" {
			t.Errorf("got %q and %q", v, l.Current())
		}
		break
	}
}
