// Package door lets clients in over HTTP: it serves listeners, finds out who is
// at the other end of a connection, turns away other users and foreign web
// pages, and reads what the head of a request says of its job.
//
// What is asked for, and the words in which somebody is turned away, are the
// front-ends'.
package door

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/joulemux/joulemux/daemon/job"
)

// Door is where clients come in.
type Door struct {
	uid     func(local, remote netip.AddrPort) (uid int, known bool)
	program func(pid int) string
	origins atomic.Pointer[[]string]
	log     *slog.Logger
}

// New returns a door. Uid tells the user behind a loopback connection, and
// program names what a process runs, or returns "".
func New(uid func(local, remote netip.AddrPort) (uid int, known bool), program func(pid int) string, log *slog.Logger) *Door {
	d := &Door{uid: uid, program: program, log: log}
	d.Allow(nil)
	return d
}

// Allow lets in pages of other origins than this machine's own; "*" in one
// stands for anything. It replaces those of the last call.
func (d *Door) Allow(origins []string) { d.origins.Store(&origins) }

// caller is who is at the other end of a connection. Finding that out takes
// reading a table of the kernel, so it is done once, when a request comes.
type caller struct {
	// tcp connections can come from a browser, and so from any web page.
	tcp bool
	who func() (uid, pid int, known bool)
	// program names what runs there, or is "".
	program func() string
}

type callerKey struct{}

// meet attaches the caller to the context of a connection.
func (d *Door) meet(ctx context.Context, conn net.Conn) context.Context {
	c := &caller{who: func() (int, int, bool) { return 0, 0, false }, program: func() string { return "" }}
	switch conn := conn.(type) {
	case *net.UnixConn:
		c.who = func() (int, int, bool) { return credentials(conn) }
		c.program = sync.OnceValue(func() string {
			_, pid, _ := credentials(conn)
			return d.program(pid)
		})
	case *net.TCPConn:
		c.tcp = true
		local, remote := addrPort(conn.LocalAddr()), addrPort(conn.RemoteAddr())
		// As seen from the other end, its own address is the local one.
		uid := sync.OnceValues(func() (int, bool) { return d.uid(remote, local) })
		c.who = func() (int, int, bool) {
			id, known := uid()
			return id, 0, known
		}
	}
	return context.WithValue(ctx, callerKey{}, c)
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

// credentials asks the kernel who connected (SO_PEERCRED, unix(7)).
func credentials(conn *net.UnixConn) (uid, pid int, known bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, false
	}
	_ = raw.Control(func(fd uintptr) {
		if c, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			uid, pid, known = int(c.Uid), int(c.Pid), true
		}
	})
	return uid, pid, known
}

// Admit refuses requests of other users and of foreign web pages. A loopback
// port is open to both: to a page by its own requests, and by a name that it
// has made to point here (DNS rebinding). Browsers are told that pages of this
// machine may ask, and read the exposed headers.
func (d *Door) Admit(w http.ResponseWriter, r *http.Request, exposed string) error {
	c, ok := r.Context().Value(callerKey{}).(*caller)
	if !ok {
		return job.Errorf(job.Forbidden, "nobody knows who asks")
	}
	uid, _, known := c.who()
	if !known || uid != os.Getuid() && uid != 0 {
		return job.Errorf(job.Forbidden, "this joulemux serves the user %d alone", os.Getuid())
	}
	if !c.tcp {
		return nil
	}
	if !localHost(r.Host) {
		return &job.Error{Code: job.Forbidden, Field: "Host", Detail: fmt.Sprintf("%q is not this machine", r.Host)}
	}
	return d.admitOrigin(w, r, exposed)
}

// localHost reports whether a Host header names this machine's loopback.
func localHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// admitOrigin lets the pages and apps of this machine in, and tells browsers so.
func (d *Door) admitOrigin(w http.ResponseWriter, r *http.Request, exposed string) error {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	if !d.allows(origin) {
		return &job.Error{Code: job.Forbidden, Field: "Origin", Detail: fmt.Sprintf("%q is not allowed; server.origins in the configuration can", origin)}
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Expose-Headers", exposed)
	if r.Method == http.MethodOptions {
		h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, HEAD, OPTIONS")
		h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
		h.Set("Access-Control-Max-Age", "600")
	}
	return nil
}

// appSchemes are the origins of local apps, as in Ollama's defaults.
var appSchemes = []string{"app", "file", "tauri", "vscode-webview", "vscode-file"}

// allows reports whether pages of an origin may ask.
func (d *Door) allows(origin string) bool {
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	web := u.Scheme == "http" || u.Scheme == "https"
	return web && localHost(u.Host) || slices.Contains(appSchemes, u.Scheme) ||
		slices.ContainsFunc(*d.origins.Load(), func(pattern string) bool { return matches(pattern, origin) })
}

// matches reports whether a configured origin stands for this one.
func matches(pattern, origin string) bool {
	if pattern == "*" || pattern == origin {
		return true
	}
	// The stars of path.Match stop at slashes, as they do at the end of a host.
	ok, err := path.Match(pattern, origin)
	return err == nil && ok
}

// Holder names a caller in lists of holds.
func Holder(ctx context.Context) string {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		if _, pid, known := c.who(); known && pid != 0 {
			return fmt.Sprintf("pid %d", pid)
		}
	}
	return "a client of the HTTP port"
}

// Client names the program that asks. One that comes by the port says itself
// what it is, like any that browses the web.
func Client(ctx context.Context, head http.Header) string {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		if name := c.program(); name != "" {
			return name
		}
	}
	product, _, _ := strings.Cut(head.Get("User-Agent"), "/")
	product, _, _ = strings.Cut(strings.TrimSpace(product), " ")
	return product
}
