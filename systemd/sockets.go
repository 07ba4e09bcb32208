package systemd

import (
	"errors"
	"fmt"
	"net"

	sdactivation "github.com/coreos/go-systemd/v22/activation"
)

// The names of inherited sockets, as FileDescriptorName= in the socket units.
const (
	API    = "api"    // joulemux.socket
	HTTP   = "http"   // joulemux-http.socket
	NVML   = "nvml"   // joulemux-nvml.socket
	Energy = "energy" // system/joulemux-energyd.socket
)

// Listeners returns the sockets that we were started with, by name. It is for
// the start of the program: the environment no longer tells of them afterwards,
// and no child inherits them. Closing one leaves its path in place, which is
// the service manager's.
//
// On an error there are none: what is no listener was not meant for us, and
// then nobody knows about the others.
func Listeners() (map[string][]net.Listener, error) {
	listeners := make(map[string][]net.Listener)
	var errs []error
	for _, f := range sdactivation.Files(true) {
		l, err := net.FileListener(f) // A duplicate, which closes on exec as well.
		if err != nil {
			errs = append(errs, fmt.Errorf("inherited socket %s: %w", f.Name(), err))
		} else {
			listeners[f.Name()] = append(listeners[f.Name()], l)
		}
		_ = f.Close()
	}
	if errs == nil {
		return listeners, nil
	}
	for _, named := range listeners {
		for _, l := range named {
			_ = l.Close()
		}
	}
	return nil, errors.Join(errs...)
}

// Listener returns the one socket that a program was started with to serve, which
// by itself it cannot.
func Listener(name, unit string) (net.Listener, error) {
	inherited, err := Listeners()
	if err != nil {
		return nil, err
	}
	sockets := inherited[name]
	if len(sockets) != 1 {
		return nil, fmt.Errorf("%d sockets called %q were handed on: the service manager starts this, by %s", len(sockets), name, unit)
	}
	return sockets[0], nil
}
