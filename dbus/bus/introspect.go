package bus

import (
	"context"
	_ "embed"
	"encoding/xml"
	"fmt"
	"os"
	"strings"

	"github.com/godbus/dbus/v5/introspect"
)

//go:embed standard.xml
var standardXML []byte

// introspectable is org.freedesktop.DBus.Introspectable.
func (t *Tree) introspectable() Code {
	return Code{Methods: map[string]any{"Introspect": t.introspect}}
}

// introspect describes an object, and names those right below it.
func (t *Tree) introspect(_ context.Context, c Call) (string, error) {
	interfaces, _ := t.interfaces(c.Path)
	var node introspect.Node
	for _, i := range interfaces {
		node.Interfaces = append(node.Interfaces, i.Interface)
	}
	for _, name := range t.children(c.Path) {
		node.Children = append(node.Children, introspect.Node{Name: name})
	}
	document, err := xml.MarshalIndent(node, "", "  ")
	return introspect.IntrospectDeclarationString + string(document) + "\n", err
}

// peer is org.freedesktop.DBus.Peer, for calls that name no interface: those
// that do never get here, since godbus answers them by itself.
func peer() Code {
	return Code{Methods: map[string]any{
		"Ping":         func(context.Context, Call) error { return nil },
		"GetMachineId": machineID,
	}}
}

func machineID(context.Context, Call) (string, error) {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return "", fmt.Errorf("this machine has no id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}
