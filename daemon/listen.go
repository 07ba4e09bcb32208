package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/joulemux/joulemux/daemon/config"
	"github.com/joulemux/joulemux/systemd"
)

// listen returns the sockets that were inherited, and opens what was not.
func (d *daemon) listen(ctx context.Context) ([]net.Listener, error) {
	listeners := d.Inherited[systemd.API]
	if len(listeners) == 0 {
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
		listeners = append(listeners, l)
	}
	for _, l := range d.Inherited[systemd.HTTP] {
		if wanted := portAddress(d.settings.Server); wanted != l.Addr().String() {
			d.Log.Info("the HTTP port is the service manager's, not the configuration's", "address", l.Addr(), "configured", wanted)
		}
		listeners = append(listeners, l)
	}
	if l := d.openPort(ctx, d.settings.Server); l != nil {
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// openPort opens the HTTP port. It returns nil where the service manager has,
// where there is to be none, and where there can be none.
func (d *daemon) openPort(ctx context.Context, server config.Server) net.Listener {
	if server.HTTPPort == 0 || len(d.Inherited[systemd.HTTP]) > 0 {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", portAddress(server))
	if err != nil {
		d.Log.Error("the HTTP port cannot be opened; joulemux goes on without it", "err", err)
		return nil
	}
	return l
}

// servePortOnceMended serves the HTTP port of a configuration that had faults
// when the daemon started.
func (d *daemon) servePortOnceMended(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case server := <-d.mended:
		if l := d.openPort(ctx, server); l != nil {
			return d.door.Serve(ctx, l, d.http)
		}
		return nil
	}
}

func portAddress(s config.Server) string { return net.JoinHostPort(s.Host, strconv.Itoa(s.HTTPPort)) }

// warnOfListeners says of each listener that the configuration has moved when
// that takes effect.
func (d *daemon) warnOfListeners(before, after config.Server) {
	for _, l := range []struct {
		moved                 bool
		what, inherited, unit string
	}{
		{before.Socket != after.Socket, "the Unix socket", systemd.API, "joulemux.socket"},
		{portAddress(before) != portAddress(after), "the HTTP port", systemd.HTTP, "joulemux-http.socket"},
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
