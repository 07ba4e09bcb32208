package bus

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	godbus "github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
)

// Call tells a method who calls it.
type Call struct {
	Conn *godbus.Conn
	// Sender is the caller's unique name.
	Sender string
	// Path is the object that is called.
	Path godbus.ObjectPath

	answered *[]func()
}

// Answered has f called when the answer is on its way, or none is wanted: from
// then on the caller loses nothing if the connection ends. Only the method that
// is called may ask for it, before it returns.
func (c Call) Answered(f func()) { *c.answered = append(*c.answered, f) }

// PID asks the bus which process calls.
func (c Call) PID(ctx context.Context) (pid int, err error) {
	var id uint32
	err = c.Conn.BusObject().CallWithContext(ctx, busName+".GetConnectionUnixProcessID", 0, c.Sender).Store(&id)
	return int(id), err
}

// Code is what stands behind an interface.
type Code struct {
	// Methods are functions by the methods' names:
	//
	//	func(ctx context.Context, c Call, arguments…) (results…, error)
	//
	// The context ends with the connection. Descriptors among the arguments
	// are closed when the function returns.
	Methods map[string]any
	State   State
	// Setters are functions by the names of the properties that peers can
	// write:
	//
	//	func(ctx context.Context, c Call, value T) error
	Setters map[string]any
}

// Interface is an interface of the bus with the code behind it. Objects at
// many paths can share it.
type Interface struct {
	introspect.Interface
	methods map[string]function
	state   State
	setters map[string]function
}

// Implement joins code to the one interface in an introspection document. That
// the two fit is checked here, so that what is introspected is what is there.
func Implement(document []byte, code Code) (*Interface, error) {
	contracts, err := parse(document)
	if err != nil {
		return nil, err
	}
	if len(contracts) != 1 {
		return nil, fmt.Errorf("want one interface in the document, got %d", len(contracts))
	}
	return join(contracts[0], code)
}

func parse(document []byte) ([]introspect.Interface, error) {
	var node introspect.Node
	if err := xml.NewDecoder(bytes.NewReader(document)).Decode(&node); err != nil {
		return nil, fmt.Errorf("introspection document: %w", err)
	}
	return node.Interfaces, nil
}

// join joins code to a contract, or lists everything that does not fit.
func join(contract introspect.Interface, code Code) (*Interface, error) {
	i := &Interface{Interface: contract, state: code.State}
	var errs [3]error
	i.methods, errs[0] = functions(code.Methods)
	i.setters, errs[1] = functions(code.Setters)
	errs[2] = errors.Join(i.checkMethods(), i.checkProperties())
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("%s: %w", contract.Name, err)
	}
	return i, nil
}

func (i *Interface) checkMethods() error {
	var errs []error
	declared := make(map[string]bool)
	for _, m := range i.Methods {
		declared[m.Name] = true
		in, out := signatures(m.Args)
		f, ok := i.methods[m.Name]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s is not in Go", m.Name))
		case f.in != in || f.out != out:
			errs = append(errs, fmt.Errorf("%s is (%s) → (%s) in Go, (%s) → (%s) in the XML", m.Name, f.in, f.out, in, out))
		}
	}
	return errors.Join(append(errs, undeclared(i.methods, declared)...)...)
}

func (i *Interface) checkProperties() error {
	var errs []error
	declared, writable := make(map[string]bool), make(map[string]bool)
	for _, p := range i.Properties {
		declared[p.Name], writable[p.Name] = true, p.Access == "readwrite"
		set, ok := i.setters[p.Name]
		switch signature := i.state.signatures[p.Name]; {
		case signature != p.Type:
			errs = append(errs, fmt.Errorf("property %s is %q in Go, %q in the XML", p.Name, signature, p.Type))
		case writable[p.Name] && !ok:
			errs = append(errs, fmt.Errorf("property %s has no setter in Go", p.Name))
		case ok && (set.in != p.Type || set.out != ""):
			errs = append(errs, fmt.Errorf("property %s is set by (%s) → (%s)", p.Name, set.in, set.out))
		}
	}
	errs = append(errs, undeclared(i.state.signatures, declared)...)
	return errors.Join(append(errs, undeclared(i.setters, writable)...)...)
}

// undeclared lists what is in Go and not in the XML.
func undeclared[T any](all map[string]T, declared map[string]bool) (errs []error) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !declared[name] {
			errs = append(errs, fmt.Errorf("%s is not in the XML", name))
		}
	}
	return errs
}

// signatures returns those of a method's arguments and results.
func signatures(args []introspect.Arg) (in, out string) {
	for _, a := range args {
		if a.Direction == "out" {
			out += a.Type
		} else {
			in += a.Type
		}
	}
	return in, out
}

// annotation returns the value of a property's annotation, which holds for all
// properties of an interface if it is the interface's.
func (i *Interface) annotation(p introspect.Property, name string) string {
	for _, a := range slices.Concat(p.Annotations, i.Annotations) {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}

// function is a Go function that peers can call.
type function struct {
	reflect.Value
	in, out string // The signatures of its arguments and results.
}

var (
	contextType = reflect.TypeFor[context.Context]()
	callType    = reflect.TypeFor[Call]()
	errorType   = reflect.TypeFor[error]()
)

func functions(code map[string]any) (map[string]function, error) {
	var errs []error
	all := make(map[string]function)
	for name, f := range code {
		var err error
		if all[name], err = functionOf(f); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return all, errors.Join(errs...)
}

func functionOf(code any) (f function, err error) {
	f.Value = reflect.ValueOf(code)
	t := f.Type()
	if t.Kind() != reflect.Func || t.NumIn() < 2 || t.In(0) != contextType || t.In(1) != callType ||
		t.NumOut() < 1 || t.Out(t.NumOut()-1) != errorType {
		return f, fmt.Errorf("%v is no func(context.Context, bus.Call, …) (…, error)", t)
	}
	for i := 2; i < t.NumIn(); i++ {
		f.in += godbus.SignatureOfType(t.In(i)).String()
	}
	for i := range t.NumOut() - 1 {
		f.out += godbus.SignatureOfType(t.Out(i)).String()
	}
	return f, nil
}

// call calls the function with arguments as they were decoded. They may be of
// other Go types than its own, if only their signature is the same.
func (f function) call(ctx context.Context, c Call, arguments []any) ([]any, error) {
	in := []reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(c)}
	for i, a := range arguments {
		to := reflect.New(f.Type().In(2 + i))
		if err := godbus.Store([]any{a}, to.Interface()); err != nil {
			return nil, Errorf(InvalidArgs, "argument %d: %v", i+1, err)
		}
		in = append(in, to.Elem())
	}
	out := f.Call(in)
	last := len(out) - 1
	if err, _ := out[last].Interface().(error); err != nil {
		return nil, err
	}
	results := make([]any, last)
	for i := range results {
		results[i] = out[i].Interface()
	}
	return results, nil
}
