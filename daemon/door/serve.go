package door

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// headerTimeout ends connections that send no complete request.
	headerTimeout = 10 * time.Second
	// idleTimeout closes connections between requests, so that none is left
	// to wake anybody.
	idleTimeout = 2 * time.Minute
	// LastWords is what answers have to end in once the daemon stops.
	LastWords = time.Second
)

// Serve has h answer on a listener until ctx is done, and closes it.
func (d *Door) Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler:           h,
		Protocols:         protocols(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       d.meet,
		ConnState:         (&crowd{}).watch,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), LastWords)
		defer cancel()
		if server.Shutdown(limit) != nil {
			_ = server.Close()
		}
	})
	err := server.Serve(l)
	if !stop() {
		<-over
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// mostForeign is how many connections to one port other machines may have, all
// together, at once. Programs of this machine have other ways to use up its memory.
const mostForeign = 256

// crowd counts the connections of other machines to one listener.
type crowd struct {
	mu   sync.Mutex
	open map[net.Conn]bool
}

// watch closes what is one too many. It is told of each connection when that
// opens and when it has closed.
func (c *crowd) watch(conn net.Conn, s http.ConnState) {
	if s != http.StateNew && s != http.StateClosed {
		return
	}
	if a := addrPort(conn.RemoteAddr()); !a.IsValid() || a.Addr().IsLoopback() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s == http.StateClosed:
		delete(c.open, conn)
	case len(c.open) >= mostForeign:
		_ = conn.Close()
	default:
		if c.open == nil {
			c.open = make(map[net.Conn]bool)
		}
		c.open[conn] = true
	}
}

// protocols are HTTP/1.1, and HTTP/2 for clients that begin with it, as gRPC's
// do.
func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}
