package bus

import (
	"fmt"
	"strings"

	godbus "github.com/godbus/dbus/v5"
)

// The standard errors that calls are refused with
// (https://dbus.freedesktop.org/doc/dbus-specification.html).
const (
	Failed           = "org.freedesktop.DBus.Error.Failed"
	UnknownObject    = "org.freedesktop.DBus.Error.UnknownObject"
	UnknownInterface = "org.freedesktop.DBus.Error.UnknownInterface"
	UnknownMethod    = "org.freedesktop.DBus.Error.UnknownMethod"
	UnknownProperty  = "org.freedesktop.DBus.Error.UnknownProperty"
	PropertyReadOnly = "org.freedesktop.DBus.Error.PropertyReadOnly"
	InvalidArgs      = "org.freedesktop.DBus.Error.InvalidArgs"
	AccessDenied     = "org.freedesktop.DBus.Error.AccessDenied"
	NotSupported     = "org.freedesktop.DBus.Error.NotSupported"
	LimitsExceeded   = "org.freedesktop.DBus.Error.LimitsExceeded"
	Timeout          = "org.freedesktop.DBus.Error.Timeout"
)

// Errorf returns an error of that name with a formatted text.
func Errorf(name, format string, args ...any) *godbus.Error {
	return godbus.NewError(name, []any{Text(fmt.Sprintf(format, args...))})
}

// Text returns s as a bus can carry it: one that is not UTF-8, or has a zero
// byte, would cost its sender the connection.
func Text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
