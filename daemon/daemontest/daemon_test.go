package daemontest_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/joulemux/joulemux/daemon/daemontest"
)

// TestFreePortsAreKept draws so many that some would come twice if each were given
// back before it is used.
func TestFreePortsAreKept(t *testing.T) {
	drawn := make(map[int]bool)
	for range 500 {
		port := daemontest.FreePort(t)
		if drawn[port] {
			t.Fatalf("%d was given twice", port)
		}
		drawn[port] = true
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = conn.Close()
			t.Errorf("somebody listens on %d", port)
		}
		for _, host := range []string{"127.0.0.1", "0.0.0.0"} { // one after the other
			l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, port))
			if err != nil {
				t.Fatal(err)
			}
			_ = l.Close()
		}
	}
}
