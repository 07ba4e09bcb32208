package bus

import (
	"context"
	"maps"
	"reflect"

	godbus "github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
)

// State is where the properties of an interface come from.
type State struct {
	signatures map[string]string // By the properties' names.
	read       func(context.Context, godbus.ObjectPath) (any, bool)
}

// StateOf returns a state whose properties are the fields of the struct T, by
// their names. read returns their values at a path, and whether an object is
// there still.
//
// A field that is a function is a property whose value is what the function
// returns; it is called only if that property is asked for. It can have no
// change signals.
func StateOf[T any](read func(context.Context, godbus.ObjectPath) (T, bool)) State {
	s := State{
		signatures: make(map[string]string),
		read:       func(ctx context.Context, path godbus.ObjectPath) (any, bool) { return read(ctx, path) },
	}
	for field := range reflect.TypeFor[T]().Fields() {
		t := field.Type
		if t.Kind() == reflect.Func {
			t = t.Out(0)
		}
		s.signatures[field.Name] = godbus.SignatureOfType(t).String()
	}
	return s
}

// value returns the value of the property with that name in a struct.
func value(of any, name string) any {
	v := reflect.ValueOf(of).FieldByName(name)
	if v.Kind() == reflect.Func {
		v = v.Call(nil)[0]
	}
	return v.Interface()
}

// values returns the values of all properties in a struct.
func (i *Interface) values(of any) map[string]godbus.Variant {
	all := make(map[string]godbus.Variant, len(i.Properties))
	for _, p := range i.Properties {
		all[p.Name] = godbus.MakeVariant(value(of, p.Name))
	}
	return all
}

// read reads the struct with an object's properties.
func (i *Interface) read(ctx context.Context, path godbus.ObjectPath) (any, error) {
	if len(i.Properties) == 0 {
		return nil, nil
	}
	state, ok := i.state.read(ctx, path)
	if !ok {
		return nil, Errorf(UnknownObject, "there is no object at %s any more", path)
	}
	return state, nil
}

// propertied is org.freedesktop.DBus.Properties.
func (t *Tree) propertied() Code {
	return Code{Methods: map[string]any{"Get": t.get, "GetAll": t.getAll, "Set": t.set}}
}

func (t *Tree) get(ctx context.Context, c Call, iface, name string) (godbus.Variant, error) {
	i, p, err := t.property(c.Path, iface, name)
	if err != nil {
		return godbus.Variant{}, err
	}
	state, err := i.read(ctx, c.Path)
	if err != nil {
		return godbus.Variant{}, err
	}
	return godbus.MakeVariant(value(state, p.Name)), nil
}

func (t *Tree) getAll(ctx context.Context, c Call, iface string) (map[string]godbus.Variant, error) {
	interfaces, err := t.named(c.Path, iface)
	if err != nil {
		return nil, err
	}
	all := make(map[string]godbus.Variant)
	for _, i := range interfaces {
		state, err := i.read(ctx, c.Path)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, i.values(state))
	}
	return all, nil
}

func (t *Tree) set(ctx context.Context, c Call, iface, name string, v godbus.Variant) error {
	i, p, err := t.property(c.Path, iface, name)
	if err != nil {
		return err
	}
	set, ok := i.setters[p.Name]
	if !ok {
		return Errorf(PropertyReadOnly, "%s.%s cannot be set", i.Name, p.Name)
	}
	if got := v.Signature().String(); got != set.in {
		return Errorf(InvalidArgs, "%s.%s is of type %s, got %s", i.Name, p.Name, set.in, got)
	}
	_, err = set.call(ctx, c, []any{v.Value()})
	return err
}

// property finds a property by its name. The interface may be left empty.
func (t *Tree) property(path godbus.ObjectPath, iface, name string) (*Interface, introspect.Property, error) {
	interfaces, err := t.named(path, iface)
	if err != nil {
		return nil, introspect.Property{}, err
	}
	for _, i := range interfaces {
		for _, p := range i.Properties {
			if p.Name == name {
				return i, p, nil
			}
		}
	}
	return nil, introspect.Property{}, Errorf(UnknownProperty, "the object at %s has no property %s", path, Text(name))
}

// named returns the interface of that name, or all if there is no name.
func (t *Tree) named(path godbus.ObjectPath, name string) ([]*Interface, error) {
	interfaces, _ := t.interfaces(path)
	if name == "" {
		return interfaces, nil
	}
	for _, i := range interfaces {
		if i.Name == name {
			return []*Interface{i}, nil
		}
	}
	return nil, Errorf(UnknownInterface, "the object at %s has no interface %s", path, name)
}

// What a property's annotation says of its change signal, other than that it
// is sent with the new value.
const (
	emitsChanged = "org.freedesktop.DBus.Property.EmitsChangedSignal"
	never        = "false"
	constant     = "const"
	invalidates  = "invalidates"
)

// Changed tells the bus which properties of an object are other ones in the
// struct after than in the struct before. It sends one signal, or none if
// there is nothing to tell.
func (i *Interface) Changed(conn *godbus.Conn, path godbus.ObjectPath, before, after any) error {
	changed, invalidated := make(map[string]godbus.Variant), []string{}
	for _, p := range i.Properties {
		emits := i.annotation(p, emitsChanged)
		if emits == never || emits == constant || equal(value(before, p.Name), value(after, p.Name)) {
			continue
		}
		if emits == invalidates {
			invalidated = append(invalidated, p.Name)
		} else {
			changed[p.Name] = godbus.MakeVariant(value(after, p.Name))
		}
	}
	if len(changed)+len(invalidated) == 0 {
		return nil
	}
	return conn.Emit(path, propertiesChanged, i.Name, changed, invalidated)
}

// equal reports whether two values are the same on the bus, where a list that
// is nil is an empty one.
func equal(a, b any) bool {
	v, w := reflect.ValueOf(a), reflect.ValueOf(b)
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0 && w.Len() == 0 || reflect.DeepEqual(a, b)
	default:
		return reflect.DeepEqual(a, b)
	}
}
