package bus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	godbus "github.com/godbus/dbus/v5"
)

// SystemAddress returns where the system bus is: what DBUS_SYSTEM_BUS_ADDRESS
// says, else the place that the specification gives it.
func SystemAddress() string {
	if address := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); address != "" {
		return address
	}
	return "unix:path=/var/run/dbus/system_bus_socket"
}

// ErrNoSessionBus says that we run outside of a desktop session.
var ErrNoSessionBus = errors.New("no session bus: DBUS_SESSION_BUS_ADDRESS is not set, and there is no bus in XDG_RUNTIME_DIR")

// SessionAddress returns where the session bus is: what
// DBUS_SESSION_BUS_ADDRESS says, else the socket of systemd's user manager.
//
// It never has a bus launched: over ssh that would be one of its own on which
// nobody looks for us.
func SessionAddress() (string, error) {
	address := os.Getenv("DBUS_SESSION_BUS_ADDRESS")
	if address != "" && !strings.HasPrefix(address, "autolaunch:") {
		return address, nil
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		return "", ErrNoSessionBus
	}
	path := filepath.Join(dir, "bus")
	if _, err := os.Stat(path); err != nil {
		return "", ErrNoSessionBus
	}
	return "unix:path=" + godbus.EscapeBusAddressValue(path), nil
}

// dial opens a socket to the first of the places in address that has a bus
// (D-Bus specification, "Server Addresses").
func dial(ctx context.Context, address string) (*net.UnixConn, error) {
	var errs []error
	for place := range strings.SplitSeq(address, ";") {
		name, err := socketName(place)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", name)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// socketName returns the name by which Go knows the socket at one place of an
// address. Buses on other machines have no descriptors, no credentials, and no
// business with the power of this one.
func socketName(place string) (string, error) {
	keys, ok := strings.CutPrefix(place, "unix:")
	if !ok {
		return "", fmt.Errorf("bus address %q is not of a Unix socket", place)
	}
	for pair := range strings.SplitSeq(keys, ",") {
		key, value, _ := strings.Cut(pair, "=")
		value, err := godbus.UnescapeBusAddressValue(value)
		if err != nil {
			return "", fmt.Errorf("bus address %q: %w", place, err)
		}
		switch key {
		case "path":
			return value, nil
		case "abstract":
			return "@" + value, nil
		}
	}
	return "", fmt.Errorf("bus address %q has neither path nor abstract", place)
}
