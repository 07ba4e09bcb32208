// Package network tells whether somebody pays for what the machine transfers, as
// NetworkManager knows or guesses.
//
// It listens only as long as somebody wants to know: at rest it has no
// connection to any bus. It opens no network, and starts no daemon.
package network

import (
	"context"
	"log/slog"

	"github.com/joulemux/joulemux/dbus/bus"
)

// Metered is what NetworkManager says of the connection that is in use.
type Metered string

// What it says. A guess is told as what is guessed.
const (
	Yes     Metered = "yes"
	No      Metered = "no"
	Unknown Metered = "unknown" // NetworkManager does not know, or is not there
)

const (
	name     = "org.freedesktop.NetworkManager"
	path     = "/org/freedesktop/NetworkManager"
	property = "Metered"
)

// Watch calls report with what the bus at address has to say of the connection,
// and again when that becomes another, until ctx is done.
func Watch(ctx context.Context, address string, log *slog.Logger, report func(Metered)) error {
	var told Metered
	monitor := bus.NewMonitor(address, log, bus.Service{
		Name:    name,
		Objects: []bus.Object{{Path: path, Interface: name, Wanted: []string{property}}},
		Changed: func(_ context.Context, objects []bus.Mirror) {
			now := Unknown
			if objects != nil {
				now = read(objects[0])
			}
			if now != told {
				told = now
				report(now)
			}
		},
	})
	return monitor.Run(ctx)
}

// read understands the enumeration NMMetered: unknown, yes, no, and what is
// guessed to be yes or no.
func read(manager bus.Mirror) Metered {
	const yes, no, guessYes, guessNo = 1, 2, 3, 4
	value, _ := bus.Value[uint32](manager, property)
	switch value {
	case yes, guessYes:
		return Yes
	case no, guessNo:
		return No
	default:
		return Unknown
	}
}
