package dbus

import (
	"context"
	"embed"
	"fmt"
	"strings"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/dbus/bus"
)

// contracts are the XML files, one for each interface.
//
//go:embed *.xml freedesktop/*.xml
var contracts embed.FS

// Where things are on the bus.
const (
	inferencePath  godbus.ObjectPath = "/io/github/joulemux/Inference1"
	routerPath     godbus.ObjectPath = "/io/github/joulemux/Router1"
	logControlPath godbus.ObjectPath = "/org/freedesktop/LogControl1"
)

// implement joins code to the interface in an XML file.
func implement(file string, code bus.Code) (*bus.Interface, error) {
	document, err := contracts.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return bus.Implement(document, code)
}

// always returns a state that is the same for ever, but for its functions.
func always[T any](state T) bus.State {
	return bus.StateOf(func(context.Context, godbus.ObjectPath) (T, bool) { return state, true })
}

// variants returns fields of a decision or a report for the bus.
func variants(fields map[string]any) map[string]godbus.Variant {
	all := make(map[string]godbus.Variant, len(fields))
	for name, v := range fields {
		switch v := v.(type) {
		case string:
			all[name] = godbus.MakeVariant(bus.Text(v))
		case []string:
			all[name] = godbus.MakeVariant(texts(v))
		default:
			all[name] = godbus.MakeVariant(v)
		}
	}
	return all
}

// texts returns a list of strings that a bus can carry, and never nil.
func texts(list []string) []string {
	all := make([]string, len(list))
	for i, s := range list {
		all[i] = bus.Text(s)
	}
	return all
}

// element returns a name as an element of an object path: whatever is neither
// a letter nor a digit becomes an underscore and two hexadecimal digits, as in
// sd_bus_path_encode(3).
func element(name string) string {
	if name == "" {
		return "_"
	}
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}
