package door_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/door"
)

// pipes is a listener for connections within the test.
type pipes struct {
	waiting chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.waiting:
		return c, nil
	case <-p.closed:
		return nil, errors.New("closed")
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// comesFrom is a connection from some address.
type comesFrom struct {
	net.Conn
	addr netip.AddrPort
}

func (c comesFrom) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.addr) }

// serve serves connections within a bubble, until stop is called.
func serve(t *testing.T, h http.Handler) (dial func(from string) net.Conn, stop func()) {
	t.Helper()
	p := &pipes{waiting: make(chan net.Conn), closed: make(chan struct{})}
	d := door.New(func(_, _ netip.AddrPort) (int, bool) { return 0, false }, func(int) string { return "" }, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = d.Serve(ctx, p, h) }()
	return func(from string) net.Conn {
		ours, theirs := net.Pipe()
		p.waiting <- comesFrom{theirs, netip.MustParseAddrPort(from)}
		return ours
	}, func() { cancel(); <-ended }
}

// TestSlowHeadsEnd has clients who send a byte of their request each second, and
// never all of it.
func TestSlowHeadsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(t, http.NotFoundHandler())
		defer stop()
		var all sync.WaitGroup
		for range 100 {
			conn := dial("127.0.0.1:1000")
			all.Go(func() {
				defer conn.Close()
				go func() { _, _ = io.Copy(io.Discard, conn) }()
				began := time.Now()
				_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nX-Slow: ")
				for err == nil {
					time.Sleep(time.Second)
					_, err = io.WriteString(conn, "x")
				}
				if took := time.Since(began); took > 12*time.Second {
					t.Errorf("it takes %v to be closed", took)
				}
			})
		}
		all.Wait()
	})
}

// TestOtherMachinesHaveBoundedConnections opens far too many, and then as many
// again once those have closed. They are in nobody else's way.
func TestOtherMachinesHaveBoundedConnections(t *testing.T) {
	const most = 256
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
		defer stop()
		answered := func(conn net.Conn) bool {
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				return false
			}
			n, err := conn.Read(make([]byte, 4096))
			return n > 0 && err == nil
		}
		for range 2 {
			var all []net.Conn
			served := 0
			for i := range 2 * most {
				conn := dial(fmt.Sprintf("198.51.100.%d:1000", 1+i%200))
				all = append(all, conn)
				if answered(conn) {
					served++
				}
			}
			if served != most {
				t.Errorf("%d are served at once, want %d", served, most)
			}
			own := dial("127.0.0.1:1000")
			if !answered(own) {
				t.Error("this machine's own programs are turned away with them")
			}
			for _, conn := range append(all, own) {
				_ = conn.Close()
			}
			synctest.Wait()
		}
	})
}
