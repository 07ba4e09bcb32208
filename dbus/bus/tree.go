package bus

import (
	"log/slog"
	"slices"
	"strings"

	godbus "github.com/godbus/dbus/v5"
)

// Tree is what one connection serves: objects at fixed paths, and branches
// where objects come and go. It is the Serving of Connect.
//
// The tree itself never changes, which is why it is not godbus's own: there,
// exporting an object while a peer introspects ends the program
// (https://github.com/godbus/dbus/issues/340).
type Tree struct {
	objects  map[godbus.ObjectPath][]*Interface
	branches []Branch
	standard []*Interface // What every object has.
	errorOf  func(error) *godbus.Error
	log      *slog.Logger
}

// Branch is a path under which objects come and go.
type Branch struct {
	Path godbus.ObjectPath
	// Interfaces are those that each of its objects has.
	Interfaces []*Interface
	// Names lists what follows Path in the paths of the objects there are: one
	// element or several. It is called by many goroutines.
	Names func() []string
}

// Object returns the path of the object with that name.
func (b Branch) Object(name string) godbus.ObjectPath {
	return b.Path + "/" + godbus.ObjectPath(name)
}

// NewTree returns a tree. Errors that are not of the bus yet become so by
// errorOf; log is told of methods that panic.
func NewTree(log *slog.Logger, errorOf func(error) *godbus.Error, objects map[godbus.ObjectPath][]*Interface, branches ...Branch) (*Tree, error) {
	t := &Tree{objects: objects, branches: branches, errorOf: errorOf, log: log}
	contracts, err := parse(standardXML)
	if err != nil {
		return nil, err
	}
	codes := []Code{peer(), t.introspectable(), t.propertied()}
	for n, code := range codes {
		i, err := join(contracts[n], code)
		if err != nil {
			return nil, err
		}
		t.standard = append(t.standard, i)
	}
	return t, nil
}

// interfaces returns those of the object at a path, and whether anything is
// there: paths on the way to an object can be introspected, and no more.
func (t *Tree) interfaces(path godbus.ObjectPath) (all []*Interface, ok bool) {
	if own, ok := t.own(path); ok {
		return slices.Concat(own, t.standard), true
	}
	if len(t.children(path)) > 0 || t.isBranch(path) {
		return t.standard[:introspection+1], true
	}
	return nil, false
}

// The places of some interfaces in standard.xml.
const (
	_             = iota // Peer
	introspection        // Introspectable
	_                    // Properties
	managing             // ObjectManager, which only some objects have
)

// own returns the interfaces of the object at a path that make it what it is.
func (t *Tree) own(path godbus.ObjectPath) ([]*Interface, bool) {
	if own, ok := t.objects[path]; ok {
		return own, true
	}
	for _, b := range t.branches {
		if name, below := strings.CutPrefix(string(path), string(b.Path)+"/"); below && slices.Contains(b.Names(), name) {
			return b.Interfaces, true
		}
	}
	return nil, false
}

func (t *Tree) isBranch(path godbus.ObjectPath) bool {
	return slices.ContainsFunc(t.branches, func(b Branch) bool { return b.Path == path })
}

// children returns the next elements of the paths below path, sorted.
func (t *Tree) children(path godbus.ObjectPath) []string {
	var names []string
	add := func(to godbus.ObjectPath) {
		rest, below := strings.CutPrefix(string(to), strings.TrimSuffix(string(path), "/")+"/")
		if name, _, _ := strings.Cut(rest, "/"); below && name != "" {
			names = append(names, name)
		}
	}
	for to := range t.objects {
		add(to)
	}
	for _, b := range t.branches {
		add(b.Path)
		for _, name := range b.Names() {
			add(b.Object(name))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Accepts returns the signature of a method that takes descriptors, which must
// have the same one wherever it is.
func (t *Tree) Accepts(iface, member string) (signature string, ok bool) {
	for _, i := range t.all() {
		f, found := i.methods[member]
		if found && (iface == "" || iface == i.Name) && strings.Contains(f.in, "h") {
			return f.in, true
		}
	}
	return "", false
}

// all returns every interface that an object has, some of them repeatedly.
func (t *Tree) all() (list []*Interface) {
	for _, own := range t.objects {
		list = append(list, own...)
	}
	for _, b := range t.branches {
		list = append(list, b.Interfaces...)
	}
	return list
}

// LookupObject finds something at every path, and so do the lookups that
// follow: what is not there is refused by the call itself, with the errors of
// the specification instead of godbus's.
func (t *Tree) LookupObject(godbus.ObjectPath) (godbus.ServerObject, bool) { return reception{t}, true }
