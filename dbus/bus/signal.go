package bus

import (
	"fmt"

	godbus "github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
)

// Signal sends a signal of the interface to one peer alone.
func (i *Interface) Signal(conn *godbus.Conn, to string, path godbus.ObjectPath, member string, args ...any) error {
	signature := godbus.SignatureOf(args...)
	if want, ok := i.signalSignature(member); !ok || want != signature.String() {
		return fmt.Errorf("signal %s.%s is (%s) in Go, (%s) in the XML", i.Name, member, signature, want)
	}
	m := &godbus.Message{
		Type: godbus.TypeSignal,
		Headers: map[godbus.HeaderField]godbus.Variant{
			godbus.FieldDestination: godbus.MakeVariant(to),
			godbus.FieldPath:        godbus.MakeVariant(path),
			godbus.FieldInterface:   godbus.MakeVariant(i.Name),
			godbus.FieldMember:      godbus.MakeVariant(member),
			godbus.FieldSignature:   godbus.MakeVariant(signature),
		},
		Body: args,
	}
	return conn.Send(m, nil).Err
}

func (i *Interface) signalSignature(member string) (signature string, ok bool) {
	for _, s := range i.Signals {
		if s.Name == member {
			return argSignature(s.Args), true
		}
	}
	return "", false
}

func argSignature(args []introspect.Arg) (signature string) {
	for _, a := range args {
		signature += a.Type
	}
	return signature
}
