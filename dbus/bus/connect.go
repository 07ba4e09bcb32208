package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// Serving is what a connection offers to its peers.
type Serving interface {
	godbus.Handler
	// Accepts returns the signature with which a method takes descriptors,
	// and whether it takes any. Only arguments that are descriptors by
	// themselves (h) are meant, none inside of arrays or variants.
	//
	// A call with exactly that signature, if the lookups lead to a method,
	// brings them as UnixFD, which the method closes even where it refuses
	// the call. With any other signature, or with descriptors that were
	// announced and not sent, it arrives without a body. iface is "" where
	// the caller leaves it out.
	Accepts(iface, member string) (signature string, ok bool)
}

// Connect opens a connection of our own to the bus at address, never one that
// is shared with others in this program, and says hello. Once ctx is done, the
// connection has a moment to be closed in: on a bus that is frozen it could not
// be, with something to say to it, nor would what has been asked be answered.
//
// Signals arrive in the order in which they were sent: godbus's default
// handler starts a goroutine for each that a channel has no room for.
// Descriptors that nobody accepts are closed, and none can be sent. If serving
// is nil then the bus lets nobody send us any, and every call is refused.
func Connect(ctx context.Context, address string, serving Serving) (*godbus.Conn, error) {
	return connect(ctx, ctx, address, serving, godbus.NewSequentialSignalHandler())
}

// connect connects for as long as ctx, if that can be done within connecting.
func connect(ctx, connecting context.Context, address string, serving Serving, signals godbus.SignalHandler) (*godbus.Conn, error) {
	s, err := dial(connecting, address)
	if err != nil {
		return nil, fmt.Errorf("connect to the bus at %s: %w", address, err)
	}
	conn, err := introduce(connecting, &socket{UnixConn: s, wanted: serving != nil}, serving, signals)
	if err != nil {
		return nil, fmt.Errorf("introduce ourselves to the bus at %s: %w", address, err)
	}
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(lastWords, func() { _ = s.Close() }) })
	context.AfterFunc(conn.Context(), func() { stop() })
	return conn, nil
}

// lastWords is how long a connection may outlive its context. A stop has two
// seconds for everything, and readers who are told why have half of one.
const lastWords = 750 * time.Millisecond

// introduce makes a connection of a socket, and says hello.
func introduce(ctx context.Context, s *socket, serving Serving, signals godbus.SignalHandler) (*godbus.Conn, error) {
	conn, err := fit(s, serving, signals)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	// Neither Auth nor Hello takes a context.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = conn.Auth(nil)
	if err == nil {
		err = conn.Hello()
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// fit fits a connection with what it needs.
func fit(s *socket, serving Serving, signals godbus.SignalHandler) (*godbus.Conn, error) {
	options := []godbus.ConnOption{godbus.WithSignalHandler(signals), godbus.WithHandler(nothing{})}
	if serving != nil {
		options = append(options, godbus.WithHandler(serving), godbus.WithIncomingInterceptor(s.admit(serving)))
	}
	return godbus.NewConn(s, options...)
}

// nothing is at every path, so that calls are refused with the error that the
// specification has for it; godbus has one of its own.
type nothing struct{}

func (n nothing) LookupObject(godbus.ObjectPath) (godbus.ServerObject, bool) { return n, true }
func (n nothing) LookupInterface(string) (godbus.Interface, bool)            { return n, true }
func (n nothing) LookupMethod(string) (godbus.Method, bool)                  { return n, true }
func (nothing) Call(...any) ([]any, error)                                   { return nil, nil }
func (nothing) NumArguments() int                                            { return 0 }
func (nothing) NumReturns() int                                              { return 0 }
func (nothing) ArgumentValue(int) any                                        { return nil }
func (nothing) ReturnValue(int) any                                          { return nil }

// DecodeArguments refuses the call, unless the caller wants no answer.
func (nothing) DecodeArguments(_ *godbus.Conn, _ string, m *godbus.Message, _ []any) ([]any, error) {
	if m.Flags&godbus.FlagNoReplyExpected != 0 {
		return nil, nil
	}
	return nil, godbus.NewError("org.freedesktop.DBus.Error.UnknownObject", []any{"nothing is served here"})
}
