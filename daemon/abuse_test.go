package daemon_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// What the limits are unless configured.
const (
	maxPrompt = 8 << 20
	maxBody   = 64 << 20
)

// huge is more text than a prompt may have, and less than a body may.
func huge() string { return strings.Repeat("a", maxPrompt+1) }

func TestBadRequestsOverHTTP(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	overTCP := &http.Client{Transport: new(http.Transport)}
	bases := map[string]*http.Client{"http://localhost": d.Client(), "http://" + d.Addr: overTCP}
	before := warm(t, d)
	for _, bad := range []struct {
		name, path string
		body       io.Reader
		status     int
		code, says string
	}{
		{"an empty body", "/api/generate", text(""), 400, wire.CodeInvalid, "the body is empty"},
		{"an empty body of ours", "/joulemux/v1/chat", text(""), 400, wire.CodeInvalid, "the body is empty"},
		{"an empty prompt", "/joulemux/v1/generate", text(`{"prompt":""}`), 400, wire.CodeInvalid, "prompt"},
		{"no messages", "/joulemux/v1/chat", text(`{"messages":[]}`), 400, wire.CodeInvalid, "messages"},
		{"broken JSON", "/api/chat", text(`{"model":"` + model), 400, wire.CodeInvalid, "no JSON at byte"},
		{"broken JSON of ours", "/joulemux/v1/hold", text(`{"tier":`), 400, wire.CodeInvalid, "no JSON at byte"},
		{"a prompt that is a number", "/api/generate", text(`{"prompt":5}`), 400, wire.CodeInvalid, "string, got number"},
		{"a prompt that is not UTF-8", "/api/generate", text("{\"prompt\":\"\xff\"}"), 400, wire.CodeInvalid, "not UTF-8 at byte 11"},
		{"the same to us", "/joulemux/v1/generate", text("{\"prompt\":\"\xff\"}"), 400, wire.CodeInvalid, "not UTF-8 at byte 11"},
		{"a huge prompt", "/api/generate", text(`{"model":"` + model + `","prompt":"` + huge() + `"}`), 413, wire.CodePromptTooLarge, "8388608"},
		{"a huge prompt to us", "/joulemux/v1/generate", text(`{"prompt":"` + huge() + `"}`), 413, wire.CodePromptTooLarge, "8388608"},
		{"a huge body", "/api/generate", endless(strings.Repeat("a", 64<<10)), 413, wire.CodePromptTooLarge, "67108864"},
		{"an unknown model", "/api/generate", text(`{"model":"nessie","prompt":"Why?"}`), 404, wire.CodeModelNotFound, "nessie"},
		{"an unknown target", "/api/generate", text(`{"model":"` + model + `","prompt":"Why?","joulemux":{"target":"abacus"}}`), 404, wire.CodeBackendNotFound, "abacus"},
		{"an unknown annotation", "/api/generate", text(`{"prompt":"Why?","joulemux":{"targte":"x"}}`), 400, wire.CodeInvalid, "targte"},
		{"an unknown option", "/joulemux/v1/generate", text(`{"prompt":"Why?","options":{"temprature":1}}`), 400, wire.CodeInvalid, "temprature"},
		{"an unknown member", "/joulemux/v1/generate", text(`{"promt":"Why?"}`), 400, wire.CodeInvalid, "promt"},
		{"an unknown tier", "/joulemux/v1/hold", text(`{"tier":"turbo","reason":"x"}`), 400, wire.CodeInvalid, "turbo"},
		{"an unknown path", "/api/divine", text(`{}`), 404, wire.CodeInvalid, "/api/divine"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			for base, client := range bases {
				body := bad.body
				if again, ok := body.(io.Seeker); ok {
					_, _ = again.Seek(0, io.SeekStart)
				} else {
					body = io.LimitReader(bad.body, maxBody+1)
				}
				got, err := request(t, client, "POST", base+bad.path, body)
				if err != nil {
					t.Errorf("%s: %v", base, err)
					continue
				}
				var e wire.Error
				if err := json.Unmarshal([]byte(got.body), &e); err != nil || got.status != bad.status || e.Code != bad.code || !strings.Contains(e.Text, bad.says) {
					t.Errorf("%s: %d, %.300s", base, got.status, got.body)
				}
			}
		})
	}
	overTCP.CloseIdleConnections()
	settled(t, d, before)
}

// text is a body that can be sent again.
func text(s string) io.Reader { return strings.NewReader(s) }

// endless is a body of one text over and over.
type endless string

// Read never ends.
func (e endless) Read(p []byte) (int, error) { return copy(p, e), nil }

// warm has the daemon open what it keeps open, and counts that.
func warm(t *testing.T, d *daemontest.Daemon) daemontest.Levels {
	t.Helper()
	if got := ran(t, d); got != "ollama-cpu" {
		t.Fatalf("a job ran on %s", got)
	}
	return levels(t, d)
}

// levels counts what is open.
func levels(t *testing.T, d *daemontest.Daemon) daemontest.Levels {
	t.Helper()
	d.Client().CloseIdleConnections()
	// What ends in its own time has ended once two counts agree.
	now := daemontest.Count()
	daemontest.Eventually(t, "a level", func() bool {
		before := now
		now = daemontest.Count()
		return now == before
	})
	return now
}

// settled sees to it that the daemon lives and has nothing open that it had not
// before.
func settled(t *testing.T, d *daemontest.Daemon, before daemontest.Levels) {
	t.Helper()
	if got := ran(t, d); got != "ollama-cpu" {
		t.Errorf("a job ran on %s", got)
	}
	d.Client().CloseIdleConnections()
	during := daemontest.Count()
	after := d.Settle(before)
	t.Logf("before: %v; at the end: %v; after: %v", before, during, after)
}

func TestBadCallsOverDBus(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	peer, other := d.Bus.Connect(t), d.Bus.Connect(t)
	plain, err := os.Create(t.TempDir() + "/plain")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Close() })
	read, _ := pipe(t)
	var cookie uint32
	if err := call(t, router(peer), "Hold", "saver", "a test").Store(&cookie); err != nil {
		t.Fatal(err)
	}
	before := warm(t, d)
	is := func(key string, v any) options { return options{key: godbus.MakeVariant(v)} }
	for _, bad := range []struct {
		name       string
		object     godbus.BusObject
		method     string
		args       []any
		code, says string
	}{
		{"an empty prompt", inference(peer), "Generate", []any{"", options{}}, invalidArgs, "prompt"},
		{"a huge prompt", inference(peer), "Generate", []any{huge(), options{}}, own + "PromptTooLarge", "8388608"},
		{"an unknown model", inference(peer), "Generate", []any{"Why?", is("model", "nessie")}, own + "ModelNotFound", "nessie"},
		{"an unknown target", inference(peer), "Generate", []any{"Why?", is("target", "abacus")}, invalidArgs, "abacus"},
		{"an unknown option", inference(peer), "Generate", []any{"Why?", is("temprature", 1.0)}, invalidArgs, "temprature"},
		{"an option of a wrong type", inference(peer), "Generate", []any{"Why?", is("max_tokens", "many")}, invalidArgs, "max_tokens"},
		{"arguments of wrong types", inference(peer), "Generate", []any{uint32(1), true}, invalidArgs, "takes (sa{sv}), got (ub)"},
		{"no arguments", inference(peer), "Embed", nil, invalidArgs, "takes (asa{sv}), got ()"},
		{"an unknown method", inference(peer), "Divine", nil, "org.freedesktop.DBus.Error.UnknownMethod", "Divine"},
		{"no messages", inference(peer), "GenerateTo", []any{godbus.UnixFD(plain.Fd()), []options{}, options{}}, invalidArgs, "messages"},
		{"a sink that is a file", inference(peer), "GenerateTo", []any{godbus.UnixFD(plain.Fd()), message(), options{}}, invalidArgs, "sink"},
		{"a sink that is for reading", inference(peer), "GenerateTo", []any{godbus.UnixFD(read.Fd()), message(), options{}}, invalidArgs, "sink"},
		{"a hold of an unknown tier", router(peer), "Hold", []any{"turbo", "x"}, invalidArgs, "turbo"},
		{"a hold released by somebody else", router(other), "Release", []any{cookie}, "org.freedesktop.DBus.Error.AccessDenied", fmt.Sprint(cookie)},
		{"a hold that there is not", router(other), "Release", []any{cookie + 7}, invalidArgs, fmt.Sprint(cookie + 7)},
	} {
		t.Run(bad.name, func(t *testing.T) {
			var e godbus.Error
			err := call(t, bad.object, bad.method, bad.args...).Err
			if !errors.As(err, &e) || e.Name != bad.code || !strings.Contains(e.Error(), bad.says) {
				t.Errorf("got %T %.300v", err, err)
				if e.Name != "" {
					t.Log(e.Name)
				}
			}
		})
	}
	if holds := status(t, d).Holds; len(holds) != 1 {
		t.Errorf("the holds are %v", holds)
	}
	settled(t, d, before)
}

const (
	invalidArgs = "org.freedesktop.DBus.Error.InvalidArgs"
	own         = "io.github.joulemux.Error."
)
