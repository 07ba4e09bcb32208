package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/joulemux/joulemux/daemon/config"
	"github.com/joulemux/joulemux/systemd"
)

// entrance is a listener, and what answers on it.
type entrance struct {
	net.Listener
	handler http.Handler
}

// listen returns the sockets that were inherited, and opens what was not.
func (d *daemon) listen(ctx context.Context) ([]entrance, error) {
	unix := d.Inherited[systemd.API]
	if len(unix) == 0 {
		path, err := d.socketPath()
		if err != nil {
			return nil, err
		}
		l, err := listenUnix(ctx, path)
		if err != nil {
			for _, tcp := range d.Inherited[systemd.HTTP] {
				_ = tcp.Close()
			}
			return nil, err
		}
		unix = append(unix, l)
	}
	var all []entrance
	for _, l := range unix {
		all = append(all, entrance{l, http.HandlerFunc(d.either)})
	}
	for _, l := range d.Inherited[systemd.HTTP] {
		if wanted := portAddress(d.settings.Server, d.settings.Server.HTTPPort); wanted != l.Addr().String() {
			d.Log.Info("the HTTP port is the service manager's, not the configuration's", "address", l.Addr(), "configured", wanted)
		}
		all = append(all, entrance{l, d.http})
	}
	return append(all, d.openPorts(ctx, d.settings.Server)...), nil
}

// either answers where both front-ends share a listener.
func (d *daemon) either(w http.ResponseWriter, r *http.Request) {
	if d.grpc.Serves(r) {
		d.grpc.ServeHTTP(w, r)
		return
	}
	d.http.ServeHTTP(w, r)
}

// openPorts opens the ports, but for what the service manager has opened, what
// is not to be, and what cannot be.
func (d *daemon) openPorts(ctx context.Context, server config.Server) (all []entrance) {
	for _, port := range []struct {
		number  int
		what    string
		handler http.Handler
	}{
		{server.HTTPPort, "the HTTP port", d.http},
		{server.GRPCPort, "the gRPC port", d.grpc},
	} {
		if port.number == 0 || port.handler == d.http && len(d.Inherited[systemd.HTTP]) > 0 {
			continue
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", portAddress(server, port.number))
		if err != nil {
			d.Log.Error("this cannot be opened; joulemux goes on without it", "what", port.what, "err", err)
			continue
		}
		all = append(all, entrance{l, port.handler})
	}
	return all
}

// servePortsOnceMended serves the ports of a configuration that had faults when
// the daemon started.
func (d *daemon) servePortsOnceMended(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case server := <-d.mended:
		g, ctx := errgroup.WithContext(ctx)
		for _, e := range d.openPorts(ctx, server) {
			g.Go(func() error { return d.door.Serve(ctx, e.Listener, e.handler) })
		}
		return g.Wait()
	}
}

func portAddress(s config.Server, port int) string {
	return net.JoinHostPort(s.Host, strconv.Itoa(port))
}

// warnOfListeners says of each listener that the configuration has moved when
// that takes effect.
func (d *daemon) warnOfListeners(before, after config.Server) {
	for _, l := range []struct {
		moved                 bool
		what, inherited, unit string
	}{
		{before.Socket != after.Socket, "the Unix socket", systemd.API, "joulemux.socket"},
		{portAddress(before, before.HTTPPort) != portAddress(after, after.HTTPPort), "the HTTP port", systemd.HTTP, "joulemux-http.socket"},
		{portAddress(before, before.GRPCPort) != portAddress(after, after.GRPCPort), "the gRPC port", "", ""},
	} {
		switch {
		case !l.moved:
		case len(d.Inherited[l.inherited]) > 0:
			d.Log.Warn("the service manager opened this, and the configuration cannot move it", "what", l.what, "unit", l.unit)
		default:
			d.Log.Warn("the configuration moves this with the next restart", "what", l.what)
		}
	}
}

// socketPath returns the configured path, or the usual one.
func (d *daemon) socketPath() (string, error) {
	if path := d.settings.Server.Socket; path != "" {
		return path, nil
	}
	folder := os.Getenv("XDG_RUNTIME_DIR")
	if folder == "" {
		return "", errors.New("XDG_RUNTIME_DIR is not set; name a path in server.socket")
	}
	return filepath.Join(folder, "joulemux", "api.sock"), nil
}

// listenUnix listens at path, which nobody but the user may open. A socket that
// was left behind is replaced; one on which somebody answers is not.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		dialer := net.Dialer{Timeout: time.Second}
		conn, err := dialer.DialContext(ctx, "unix", path)
		if err == nil {
			_ = conn.Close()
		}
		// Whatever else goes wrong, as EAGAIN where many wait to be accepted,
		// somebody is there.
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("another daemon listens on %s", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
