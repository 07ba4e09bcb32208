// Package door lets clients in over HTTP: it serves listeners, finds out who is
// at the other end of a connection, turns away foreign web pages and, unless they
// show a token, other users and machines, and reads what the head of a request
// says of its job.
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
	"github.com/joulemux/joulemux/daemon/token"
)

// Door is where clients come in.
type Door struct {
	uid      func(local, remote netip.AddrPort) (uid int, known bool)
	program  func(pid int) string
	settings atomic.Pointer[Settings]
	failed   tries
	log      *slog.Logger
}

// Settings are the user's choices about who comes in.
type Settings struct {
	// Origins are of pages that may ask beside this machine's own; "*" in one
	// stands for anything.
	Origins []string
	// Hosts are names, in lower case, by which others know this machine.
	Hosts []string
	// Tokens are those that there are; nil is none.
	Tokens Tokens
	// RequireToken has this user's own programs need one on TCP, too.
	RequireToken bool
}

// New returns a door. Uid tells the user behind a loopback connection, and
// program names what a process runs, or returns "".
func New(uid func(local, remote netip.AddrPort) (uid int, known bool), program func(pid int) string, log *slog.Logger) *Door {
	d := &Door{uid: uid, program: program, log: log}
	d.Configure(Settings{})
	return d
}

// Configure replaces the settings for requests to come.
func (d *Door) Configure(s Settings) { d.settings.Store(&s) }

// caller is who is at the other end of a connection. Finding that out takes
// reading a table of the kernel, so it is done once, when a request comes.
type caller struct {
	// tcp connections can come from a browser, and so from any web page.
	tcp bool
	who func() peer
	// here is the address of this machine that was called, and from where.
	here netip.Addr
	from netip.AddrPort
	// program names what runs there, or is "".
	program func() string
}

// ours reports whether the caller is this user or root, as the kernel says. It
// knows that of callers on this machine alone.
func (c *caller) ours() bool {
	if c.tcp && !c.from.Addr().IsLoopback() {
		return false
	}
	p := c.who()
	return p.known && (p.uid == os.Getuid() || p.uid == 0)
}

type callerKey struct{}

// meet attaches the caller to the context of a connection.
func (d *Door) meet(ctx context.Context, conn net.Conn) context.Context {
	c := &caller{who: func() peer { return peer{} }, program: func() string { return "" }}
	switch conn := conn.(type) {
	case *net.UnixConn:
		c.who = sync.OnceValue(func() peer { return credentials(conn) }) // it stays the same
		c.program = sync.OnceValue(func() string { return d.program(c.who().pid) })
	case *net.TCPConn:
		c.tcp = true
		local, remote := addrPort(conn.LocalAddr()), addrPort(conn.RemoteAddr())
		c.here, c.from = local.Addr().Unmap().WithZone(""), netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
		// As seen from the other end, its own address is the local one.
		c.who = sync.OnceValue(func() peer {
			uid, known := d.uid(remote, local)
			return peer{uid: uid, known: known}
		})
	}
	return context.WithValue(ctx, callerKey{}, c)
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

// peer is a user's process, unless the kernel does not tell. Of connections over TCP
// it tells the user alone, and pid is zero.
type peer struct {
	uid, pid int
	known    bool
}

// credentials asks the kernel who connected (SO_PEERCRED, unix(7)).
func credentials(conn *net.UnixConn) (p peer) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return peer{}
	}
	_ = raw.Control(func(fd uintptr) {
		if c, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			p = peer{int(c.Uid), int(c.Pid), true}
		}
	})
	return p
}

// Admit lets in a request for what takes a right, or says why not. It returns
// the request with what is known of who asks, and without what he has shown for
// it, which is nobody's below to see.
//
// A port is open to other users and to web pages: to a page by its own requests,
// and by a name that it has made to point here (DNS rebinding). So users are
// told apart, by the kernel or by a token, and hosts and origins are looked at
// whoever asks. Browsers are told that pages which may ask may read the exposed
// headers.
func (d *Door) Admit(w http.ResponseWriter, r *http.Request, right token.Right, exposed string) (*http.Request, error) {
	c, ok := r.Context().Value(callerKey{}).(*caller)
	if !ok {
		return r, job.Errorf(job.Forbidden, "nobody knows who asks")
	}
	shown := presented(r.Header)
	forget(r.Header)
	s := d.settings.Load()
	if !c.tcp {
		if !c.ours() {
			return r, strange()
		}
		return d.identify(w, r, c, s, right, shown)
	}
	if !s.isHere(r.Host, c.here) {
		return r, &job.Error{Code: job.Forbidden, Field: "Host", Detail: fmt.Sprintf("%q is not this machine; server.hosts in the configuration can have its names", r.Host)}
	}
	if err := s.admitOrigin(w, r, exposed); err != nil {
		return r, err
	}
	if preflight(r) {
		return r, nil // in which browsers show nothing; it does nothing, either
	}
	return d.identify(w, r, c, s, right, shown)
}

// preflight reports whether a browser asks whether it may ask.
func preflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// isHere reports whether a Host header names this machine, for a connection to
// that address of it. A page can have any name point here, but no address and
// not localhost.
func (s *Settings) isHere(host string, here netip.Addr) bool {
	if localHost(host) {
		return true
	}
	host = hostName(host)
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().WithZone("") == here
	}
	return slices.Contains(s.Hosts, host)
}

// hostName returns a Host header without its port, in lower case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// localHost reports whether a Host header names this machine's loopback.
func localHost(host string) bool {
	host = hostName(host)
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// admitOrigin lets the pages and apps of this machine in, and tells browsers so.
func (s *Settings) admitOrigin(w http.ResponseWriter, r *http.Request, exposed string) error {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	if !s.allows(origin) {
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
func (s *Settings) allows(origin string) bool {
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	web := u.Scheme == "http" || u.Scheme == "https"
	return web && localHost(u.Host) || slices.Contains(appSchemes, u.Scheme) ||
		slices.ContainsFunc(s.Origins, func(pattern string) bool { return matches(pattern, origin) })
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

// Here reports whether a request came by the Unix socket, which nobody but the
// user can open.
func Here(ctx context.Context) bool {
	c, ok := ctx.Value(callerKey{}).(*caller)
	return ok && !c.tcp
}

// Holder names a caller in lists of holds.
func Holder(ctx context.Context) string {
	if t, ok := tokenOf(ctx); ok {
		return "the token " + t.Name
	}
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		if p := c.who(); p.known && p.pid != 0 {
			return fmt.Sprintf("pid %d", p.pid)
		}
	}
	return "a client of the HTTP port"
}

// longestName is in bytes. What calls itself more is not remembered by all.
const longestName = 64

// Client names who asks: by the token that was shown, or else the program. It
// tells whether somebody vouches for that: a token or, on the Unix socket, the
// kernel. One that comes by the port says itself what it is, as may a sandboxed
// one that has nothing but the network. Whoever runs as the user outside of any
// sandbox could take another's place, and his keys, in other ways as well.
//
// A page is called after its origin: of that browsers do not let it lie, as they
// do of the program.
func Client(ctx context.Context, head http.Header) (name string, vouched bool) {
	if t, ok := tokenOf(ctx); ok {
		return t.Name, true
	}
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		if name := c.program(); name != "" {
			return name, true
		}
	}
	name = head.Get("Origin")
	if name == "" {
		name, _, _ = strings.Cut(head.Get("User-Agent"), "/")
		name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
	}
	return name[:min(len(name), longestName)], false
}
