package helper

import (
	"net"
	"testing"
)

func TestWhoCannotBeNamedMayNotAsk(t *testing.T) {
	one, other := net.Pipe()
	defer one.Close()
	defer other.Close()
	if p, err := PeerOf(one); err == nil {
		t.Errorf("got %+v", p)
	}
}
