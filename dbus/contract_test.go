package dbus

import (
	"encoding/xml"
	"io/fs"
	"path"
	"reflect"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/joulemux/joulemux/dbus/dbustest"
)

// contract reads an interface from its file.
func contract(t *testing.T, file string) introspect.Interface {
	t.Helper()
	document, err := contracts.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var node introspect.Node
	if err := xml.Unmarshal(document, &node); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if len(node.Interfaces) != 1 {
		t.Fatalf("%s has %d interfaces", file, len(node.Interfaces))
	}
	return node.Interfaces[0]
}

// TestIntrospectionIsTheContract compares what peers are told with the files.
// That the code does what they say is checked whenever the front-end starts.
func TestIntrospectionIsTheContract(t *testing.T) {
	r := newRig(t, nil)
	cancelled := make(chan error, 1)
	r.runner.set(hangs("", cancelled))
	peer := r.bus.Connect(t)
	request, _, err := generateTo(peer, newSink(t, "pipe"), options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		object godbus.BusObject
		file   string
	}{
		{inferenceOf(peer), "io.github.joulemux.Inference1.xml"},
		{peer.Object(InferenceName, request), "io.github.joulemux.Request1.xml"},
		{routerOf(peer), "io.github.joulemux.Router1.xml"},
		{peer.Object(RouterName, backendPath("ollama-npu")), "io.github.joulemux.Backend1.xml"},
		{peer.Object(RouterName, logControlPath), "freedesktop/org.freedesktop.LogControl1.xml"},
	} {
		want := contract(t, c.file)
		got := introspected(t, c.object, want.Name)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s is told as %+v, its file has %+v", want.Name, got, want)
		}
		if path.Base(c.file) != want.Name+".xml" {
			t.Errorf("%s is in %s", want.Name, c.file)
		}
	}
	files, err := fs.Glob(contracts, "*.xml")
	if err != nil || len(files) != 4 {
		t.Errorf("there are the files %q, %v; is one not served?", files, err)
	}
}

func introspected(t *testing.T, o godbus.BusObject, iface string) introspect.Interface {
	t.Helper()
	node, err := introspect.Call(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range node.Interfaces {
		if i.Name == iface {
			return i
		}
	}
	t.Fatalf("%s has no %s", o.Path(), iface)
	return introspect.Interface{}
}

func TestInferenceIsNotOnTheConnectionForControl(t *testing.T) {
	r := newRig(t, nil)
	peer := r.bus.Connect(t)
	if a, b := owner(t, peer, InferenceName), owner(t, peer, RouterName); a == b {
		t.Errorf("%s owns both", a)
	}
	err := peer.Object(InferenceName, routerPath).Call(RouterName+".Hold", 0, "low", "x").Err
	expectError(t, "control by the name for applications", err, "org.freedesktop.DBus.Error.UnknownObject", "")
}

func owner(t *testing.T, p *dbustest.Peer, name string) (unique string) {
	t.Helper()
	if err := p.BusObject().Call("org.freedesktop.DBus.GetNameOwner", 0, name).Store(&unique); err != nil {
		t.Fatal(err)
	}
	return unique
}

func TestElement(t *testing.T) {
	for name, want := range map[string]string{
		"ollama-npu": "ollama_2dnpu", "": "_", "7b": "_37b", "x7": "x7", "grün": "gr_c3_bcn", "a_b": "a_5fb", "..": "_2e_2e",
	} {
		got := element(name)
		if got != want || !godbus.ObjectPath("/"+got).IsValid() {
			t.Errorf("%q became %q, want %q", name, got, want)
		}
	}
}

func TestContractIsDocumented(t *testing.T) {
	files, err := fs.Glob(contracts, "*.xml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		i, text := contract(t, file), must(contracts.ReadFile(file))
		names := []string{i.Name}
		for _, m := range i.Methods {
			names = append(names, m.Name)
			for _, a := range m.Args {
				names = append(names, "@"+a.Name)
			}
		}
		for _, p := range i.Properties {
			names = append(names, p.Name)
		}
		for _, name := range names {
			if !strings.Contains(string(text), "\n      "+name+":") && !strings.Contains(string(text), "\n    "+name+":") {
				t.Errorf("%s has nothing to say of %s", file, name)
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
