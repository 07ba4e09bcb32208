package bus

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"syscall"

	godbus "github.com/godbus/dbus/v5"
)

// reception takes the calls on a tree, each in a goroutine of godbus's.
type reception struct{ *Tree }

// LookupInterface returns r.
func (r reception) LookupInterface(string) (godbus.Interface, bool) { return r, true }

// LookupMethod returns r.
func (r reception) LookupMethod(string) (godbus.Method, bool) { return r, true }

// NumArguments and what follows it are of no use to godbus where there is
// DecodeArguments.
func (reception) NumArguments() int     { return 0 }
func (reception) NumReturns() int       { return 0 }
func (reception) ArgumentValue(int) any { return nil }
func (reception) ReturnValue(int) any   { return nil }

// arrival is a call as it came.
type arrival struct {
	Call
	*godbus.Message
}

// DecodeArguments hands the whole message to Call.
func (reception) DecodeArguments(conn *godbus.Conn, sender string, m *godbus.Message, _ []any) ([]any, error) {
	path, _ := m.Headers[godbus.FieldPath].Value().(godbus.ObjectPath)
	return []any{arrival{Call{conn, sender, path, new([]func())}, m}}, nil
}

// Call answers a call, by itself: godbus answers later, and does not tell when
// it has.
func (r reception) Call(args ...any) ([]any, error) {
	a := args[0].(arrival)
	results, err := r.attempt(a)
	if a.Flags&godbus.FlagNoReplyExpected == 0 {
		_ = a.Conn.Send(r.reply(a, results, err), nil) // Fails with the connection alone.
		a.Flags |= godbus.FlagNoReplyExpected          // Not from godbus, too.
	}
	for _, f := range *a.answered {
		f()
	}
	return nil, nil
}

// attempt calls the method. Whatever becomes of it, its descriptors are closed,
// and a panic is the caller's problem alone.
func (r reception) attempt(a arrival) (results []any, err error) {
	defer closeDescriptors(a.Body)
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("method panicked", slog.String("member", text(a.Message, godbus.FieldMember)),
				slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
			err = Errorf(Failed, "internal error")
		}
	}()
	return r.answer(a)
}

// reply returns the answer to a call.
func (r reception) reply(a arrival, results []any, err error) *godbus.Message {
	m := &godbus.Message{Type: godbus.TypeMethodReply, Body: results, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(a.Sender),
		godbus.FieldReplySerial: godbus.MakeVariant(a.Serial()),
	}}
	if err != nil {
		refused := r.refusal(err)
		m.Type, m.Body = godbus.TypeError, refused.Body
		m.Headers[godbus.FieldErrorName] = godbus.MakeVariant(refused.Name)
	}
	if len(m.Body) > 0 {
		m.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(m.Body...))
	}
	return m
}

// answer finds the method, and calls it if the arguments are right.
func (r reception) answer(a arrival) ([]any, error) {
	interfaces, ok := r.interfaces(a.Path)
	if !ok {
		return nil, Errorf(UnknownObject, "there is no object at %s", a.Path)
	}
	iface, member := text(a.Message, godbus.FieldInterface), text(a.Message, godbus.FieldMember)
	known := iface == "" // Then any interface will do.
	for _, i := range interfaces {
		if iface != "" && iface != i.Name {
			continue
		}
		known = true
		f, ok := i.methods[member]
		if !ok {
			continue
		}
		if got := signatureOf(a.Message); got != f.in || len(a.Body) != f.Type().NumIn()-2 {
			return nil, Errorf(InvalidArgs, "%s.%s takes (%s), got (%s)", i.Name, member, f.in, got)
		}
		return f.call(a.Conn.Context(), a.Call, a.Body)
	}
	if !known {
		return nil, Errorf(UnknownInterface, "the object at %s has no interface %s", a.Path, iface)
	}
	return nil, Errorf(UnknownMethod, "the object at %s has no method %s", a.Path, member)
}

// refusal returns err as an error of the bus.
func (t *Tree) refusal(err error) *godbus.Error {
	if refused, ok := err.(*godbus.Error); ok { //nolint:errorlint // Only an error that is one of the bus already is to pass.
		return refused
	}
	return t.errorOf(err)
}

// closeDescriptors closes the descriptors among the arguments of a call.
func closeDescriptors(arguments []any) {
	for _, a := range arguments {
		if fd, ok := a.(godbus.UnixFD); ok {
			_ = syscall.Close(int(fd))
		}
	}
}
