package daemon_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// TestTwoGigabytesAreNotRead declares such a body, and sends one without saying how
// long it is. Both are answered, and most of it is not even taken.
func TestTwoGigabytesAreNotRead(t *testing.T) {
	const (
		twoGB = 2 << 30
		held  = 64 << 20 // by the kernel, for either side at most: the ends of tcp_wmem and tcp_rmem
	)
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	for what, c := range map[string]struct {
		head  string
		taken int64 // at most
	}{
		"declared": {fmt.Sprintf("Content-Length: %d\r\n\r\n", twoGB), held},
		"chunked":  {"Transfer-Encoding: chunked\r\n\r\n", maxBody + held},
	} {
		conn, err := net.Dial("tcp", d.Addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(daemontest.Patience))
		sent := make(chan int64, 1)
		go func() {
			n, _ := fmt.Fprintf(conn, "POST /api/generate HTTP/1.1\r\nHost: localhost\r\n%s", c.head)
			total := int64(n)
			piece := []byte(strings.Repeat("a", 64<<10))
			if what == "chunked" {
				piece = fmt.Appendf(nil, "%x\r\n%s\r\n", len(piece), piece)
			}
			for total < twoGB {
				n, err := conn.Write(piece)
				if total += int64(n); err != nil {
					break
				}
			}
			sent <- total
		}()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		} else {
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(body), wire.CodePromptTooLarge) {
				t.Errorf("%s: %d %s", what, resp.StatusCode, body)
			}
		}
		_ = conn.Close()
		if n := <-sent; n > c.taken {
			t.Errorf("%s: %d bytes were taken", what, n)
		}
	}
}
