package dbus

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
)

// client runs a program that nobody here wrote, on the bus of the rig.
func (r *rig) client(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed; packaging/rig/install check does", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "DBUS_SESSION_BUS_ADDRESS="+r.bus.Address(), "XDG_RUNTIME_DIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func expectAll(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("there is no %q in:\n%s", part, text)
		}
	}
}

func TestBusctl(t *testing.T) {
	r := newRig(t, nil)
	busctl := func(args ...string) string {
		return r.client(t, "busctl", append([]string{"--user", "--no-pager"}, args...)...)
	}
	inference := []string{InferenceName, string(inferencePath), InferenceName}
	router := []string{RouterName, string(routerPath), RouterName}
	out := busctl(append(append([]string{"call"}, inference...), "Generate", "sa{sv}", "Why?", "1", "max_tokens", "i", "5")...)
	expectAll(t, out, `sa{sv} "Hello, world"`, `"backend_used" s "ollama-npu"`)
	out = busctl("introspect", RouterName, string(routerPath))
	for _, member := range []string{
		".ActiveBackend property o", ".Charge property d 80 emits-change", ".Policy property s \"auto\" emits-change writable",
		".Version property s \"1.2.3\" const", ".DrawWatts property d nan -", ".Hold method ss u -", ".HoldReleased signal u - -",
		".GetManagedObjects method - a{oa{sa{sv}}} -",
	} {
		expectAll(t, strings.Join(strings.Fields(out), " "), member)
	}
	busctl(append(append([]string{"set-property"}, router...), "Policy", "s", "saver")...)
	expectAll(t, busctl(append(append([]string{"get-property"}, router...), "Tier")...), `s "saver"`)
	expectAll(t, busctl("tree", RouterName), "/io/github/joulemux/Router1/backend/ollama_2dnpu", "/org/freedesktop/LogControl1")
}

func TestGdbus(t *testing.T) {
	r := newRig(t, nil)
	gdbus := func(verb string, args ...string) string {
		return r.client(t, "gdbus", append([]string{verb, "--session"}, args...)...)
	}
	out := gdbus("call", "--dest", InferenceName, "--object-path", string(inferencePath), "--method", InferenceName+".Generate", "Why?", "{'deadline_ms': <1000>}")
	expectAll(t, out, `'Hello, world'`, `'tokens_generated': <3>`)
	out = gdbus("introspect", "--recurse", "--dest", RouterName, "--object-path", "/")
	expectAll(t, out, "interface io.github.joulemux.Backend1", "readonly s Hardware = 'npu';", "readwrite s Policy = 'auto';", `EmitsChangedSignal("invalidates")`)
	out = gdbus("call", "--dest", InferenceName, "--object-path", string(inferencePath), "--method", InferenceName+".ListModels")
	expectAll(t, out, `'resident': <['ollama-npu', 'ollama-igpu']>`)
}

// reader is what an application would do to show an answer as it comes.
const reader = `
import dbus, os, sys
bus = dbus.SessionBus()
inference = dbus.Interface(bus.get_object('io.github.joulemux.Inference1', '/io/github/joulemux/Inference1'), 'io.github.joulemux.Inference1')
near, far = os.pipe()
request, route = inference.GenerateTo(dbus.types.UnixFd(far), [{'role': 'user', 'content': 'Why?'}], dbus.Dictionary({}, signature='sv'))
os.close(far)
print(route['backend_used'])
while True:
    piece = os.read(near, 4096)
    if not piece:
        break
    if b'STOP' in piece:
        bus.get_object('io.github.joulemux.Inference1', request).Cancel(dbus_interface='io.github.joulemux.Request1')
    sys.stdout.write(piece.decode().replace('\x04', '<end>').replace('\x18', '<failed>'))
`

// python returns a Python that has D-Bus: the system's, if another is in its
// way.
func python(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(path, "-c", "import dbus").Run() == nil {
			return path
		}
	}
	t.Fatal("python3-dbus is not installed; packaging/rig/install check does")
	return ""
}

func TestPython(t *testing.T) {
	r := newRig(t, nil)
	if out := r.client(t, python(t), "-c", reader); out != "ollama-npu\nHello, world<end>" {
		t.Errorf("got %q", out)
	}
	r.runner.set(func(ctx context.Context, _ job.Job, sink dispatch.Sink) error {
		sink.Routed(decision)
		if err := sink.Chunk(ctx, job.Chunk{Text: "STOP"}, nil); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if out := r.client(t, python(t), "-c", reader); out != "ollama-npu\nSTOP<failed>cancelled: by its caller" {
		t.Errorf("got %q", out)
	}
}
