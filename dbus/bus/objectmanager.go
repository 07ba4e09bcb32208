package bus

import (
	"context"
	"errors"
	"maps"
	"slices"

	godbus "github.com/godbus/dbus/v5"
)

const managerName = "org.freedesktop.DBus.ObjectManager"

// Manager returns org.freedesktop.DBus.ObjectManager for an object above these
// branches. Before it lists their objects it calls look, so that the list is
// of this moment.
func Manager(look func(context.Context), branches ...Branch) (*Interface, error) {
	list := func(ctx context.Context, _ Call) (map[godbus.ObjectPath]map[string]map[string]godbus.Variant, error) {
		look(ctx)
		return managed(ctx, branches), nil
	}
	contracts, err := parse(standardXML)
	if err != nil {
		return nil, err
	}
	return join(contracts[managing], Code{Methods: map[string]any{"GetManagedObjects": list}})
}

func managed(ctx context.Context, branches []Branch) map[godbus.ObjectPath]map[string]map[string]godbus.Variant {
	all := make(map[godbus.ObjectPath]map[string]map[string]godbus.Variant)
	for _, b := range branches {
		for _, name := range b.Names() {
			path := b.Object(name)
			states := make(map[*Interface]any)
			var gone error
			for _, i := range b.Interfaces {
				state, err := i.read(ctx, path)
				states[i], gone = state, errors.Join(gone, err)
			}
			if gone == nil {
				all[path] = described(states)
			}
		}
	}
	return all
}

// described returns the properties of an object by interface.
func described(states map[*Interface]any) map[string]map[string]godbus.Variant {
	all := make(map[string]map[string]godbus.Variant)
	for i, state := range states {
		all[i.Name] = i.values(state)
	}
	return all
}

// Added tells the bus of a new object below the one with the Manager. states
// are the structs with its properties.
func Added(conn *godbus.Conn, manager, object godbus.ObjectPath, states map[*Interface]any) error {
	return conn.Emit(manager, managerName+".InterfacesAdded", object, described(states))
}

// Removed tells the bus that an object with those interfaces is no more.
func Removed(conn *godbus.Conn, manager, object godbus.ObjectPath, interfaces ...*Interface) error {
	names := make(map[string]bool)
	for _, i := range interfaces {
		names[i.Name] = true
	}
	return conn.Emit(manager, managerName+".InterfacesRemoved", object, slices.Sorted(maps.Keys(names)))
}
