package daemontest

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// Levels are what a process has open, to see whether something leaks.
type Levels struct{ Descriptors, Goroutines int }

// Count counts those of this process.
func Count() Levels {
	open, _ := os.ReadDir("/proc/self/fd")
	return Levels{Descriptors: len(open), Goroutines: runtime.NumGoroutine()}
}

// String formats the levels for people.
func (l Levels) String() string {
	return fmt.Sprintf("%d descriptors, %d goroutines", l.Descriptors, l.Goroutines)
}

// Settle waits until no more is open than was, and returns what is then. The
// test fails if that does not come.
func (d *Daemon) Settle(before Levels) (now Levels) {
	d.t.Helper()
	Eventually(d.t, "no more open than "+before.String(), func() bool {
		now = Count()
		return now.Descriptors <= before.Descriptors && now.Goroutines <= before.Goroutines
	})
	if now.Descriptors > before.Descriptors || now.Goroutines > before.Goroutines {
		stacks := make([]byte, 1<<20)
		d.t.Logf("open are %v\n%s", now, stacks[:runtime.Stack(stacks, true)])
	}
	return now
}

// Eventually waits for what the parts do in their own time. The test fails,
// and goes on, if that does not come.
func Eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	late := time.After(Patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-late:
			t.Errorf("waited in vain for this: %s", what)
			return
		}
	}
}
