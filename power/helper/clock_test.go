package helper

import (
	"strings"
	"testing"
	"time"
)

func TestTimesCrossProcesses(t *testing.T) {
	at := time.Now().Add(-42 * time.Second)
	got := FromWire(ToWire(at))
	if off := got.Sub(at).Abs(); off > time.Second {
		t.Errorf("the time is off by %v", off)
	}
	if !strings.Contains(got.String(), "m=") {
		t.Errorf("%v would move with the wall clock", got)
	}
	if ahead := FromWire(ToWire(time.Now()) + int64(time.Hour)); ahead.After(time.Now()) {
		t.Errorf("%v is in the future", ahead)
	}
}
