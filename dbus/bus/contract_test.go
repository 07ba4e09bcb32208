package bus_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/joulemux/joulemux/dbus/bus"
)

func TestIntrospectionLeadsToEveryObject(t *testing.T) {
	l, serving, peer := serveLamps(t)
	l.set("one", "two")
	for _, c := range []struct {
		path       godbus.ObjectPath
		children   []string
		interfaces int
	}{
		{"/", []string{"test"}, 2},
		{"/test", []string{"Lamp1"}, 2},
		{lampPath, []string{"other"}, 5},
		{othersPath, []string{"one", "two"}, 2},
		{othersPath + "/two", nil, 4},
	} {
		node, err := introspect.Call(lampAt(peer, serving, c.path))
		if err != nil {
			t.Fatalf("%s: %v", c.path, err)
		}
		var children []string
		for _, child := range node.Children {
			children = append(children, child.Name)
		}
		if !slices.Equal(children, c.children) || len(node.Interfaces) != c.interfaces {
			t.Errorf("%s has %d interfaces and the children %v", c.path, len(node.Interfaces), children)
		}
	}
	l.set()
	if _, err := introspect.Call(lampAt(peer, serving, othersPath)); err != nil {
		t.Errorf("a branch without objects: %v", err)
	}
	var document string
	if err := lampAt(peer, serving, lampPath).Call("org.freedesktop.DBus.Introspectable.Introspect", 0).Store(&document); err != nil || strings.Contains(document, "comments") {
		t.Errorf("got %v, %s", err, document)
	}
}

func TestCodeThatIsNotAsTheXMLIsRefused(t *testing.T) {
	for _, c := range []struct {
		rule     string
		old, new string // in the XML
		says     string
	}{
		{"an argument of another type", `name="by" type="u"`, `name="by" type="t"`, "Dim is (us) → (us) in Go, (ts) → (us) in the XML"},
		{"a result of another type", `name="left" type="u"`, `name="left" type="t"`, "(us) → (us) in Go, (us) → (ts) in the XML"},
		{"a method without code", `<method name="Fail"/>`, `<method name="Fail"/><method name="Glow"/>`, "Glow is not in Go"},
		{"code without a method", `<method name="Fail"/>`, ``, "Fail is not in the XML"},
		{"a property of another type", `name="Level" type="u"`, `name="Level" type="t"`, `property Level is "u" in Go, "t" in the XML`},
		{"a property that can be set after all", `name="Maker" type="s" access="read"`, `name="Maker" type="s" access="readwrite"`, "Maker has no setter in Go"},
		{"a setter too many", `name="Level" type="u" access="readwrite"`, `name="Level" type="u" access="read"`, "Level is not in the XML"},
		{"no XML at all", `<node>`, `<`, "introspection document"},
		{"two interfaces", `</node>`, `<interface name="a.b"/></node>`, "want one interface"},
	} {
		if !strings.Contains(lampXML, c.old) {
			t.Fatalf("%s: %q is not in the XML", c.rule, c.old)
		}
		_, err := bus.Implement([]byte(strings.Replace(lampXML, c.old, c.new, 1)), new(lamps).code())
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v; want an error that says %q", c.rule, err, c.says)
		}
	}
	code := new(lamps).code()
	code.Methods["Fail"] = func() {}
	if _, err := bus.Implement([]byte(lampXML), code); err == nil || !strings.Contains(err.Error(), "func() is no func(") {
		t.Errorf("another function: %v", err)
	}
}

func TestIntrospectingWhileObjectsComeAndGo(t *testing.T) {
	l, serving, b := serveLampsOn(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var hammering sync.WaitGroup
	for range 3 {
		peer := b.Connect(t)
		hammering.Go(func() {
			for ctx.Err() == nil {
				if _, err := introspect.Call(lampAt(peer, serving, othersPath)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := 0; ctx.Err() == nil; n++ {
		l.set([]string{"a", "b", "c"}[:n%4]...)
	}
	hammering.Wait()
}
