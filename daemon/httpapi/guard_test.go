package httpapi_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

func TestForeignHostsAndOriginsAreRefusedOnThePort(t *testing.T) {
	r := newRig(t)
	r.door.Configure(door.Settings{Origins: []string{"https://chat.example.com", "https://*.example.org"}})
	for header, want := range map[string]int{
		"Host: localhost":                      200,
		"Host: LOCALHOST.:8080":                200,
		"Host: app.localhost:8080":             200,
		"Host: [::1]:8080":                     200,
		"Host: 127.1.2.3":                      200,
		"Host: evil.example.com":               403,
		"Host: localhost.example.com":          403,
		"Host: 192.168.1.7:8080":               403,
		"Host: 127.0.0.1.example.com":          403,
		"Origin: http://localhost:3000":        200,
		"Origin: https://127.0.0.1":            200,
		"Origin: http://[::1]:3000":            200,
		"Origin: app://obsidian.md":            200,
		"Origin: file://":                      200,
		"Origin: tauri://localhost":            200,
		"Origin: vscode-webview://abc":         200,
		"Origin: https://chat.example.com":     200,
		"Origin: https://a.example.org":        200,
		"Origin: null":                         403,
		"Origin: https://evil.example.com":     403,
		"Origin: https://example.org.evil.com": 403,
		"Origin: http://localhost.evil.com":    403,
		"Origin: http://evil.com/localhost":    403,
		"Origin: %zz":                          403,
	} {
		name, value, _ := strings.Cut(header, ": ")
		got := r.over(r.overTCP, "GET", "/healthz", "", header)
		if got.status != want {
			t.Errorf("%s: got %d %s", header, got.status, got.body)
		}
		if want == 403 {
			if e := read[wire.Error](t, got.body); e.Code != wire.CodeForbidden || e.Field != name {
				t.Errorf("%s: got %+v", header, e)
			}
			if got.header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: is allowed after all", header)
			}
		}
		if want == 200 && name == "Origin" && got.header.Get("Access-Control-Allow-Origin") != value {
			t.Errorf("%s: allowed is %q", header, got.header.Get("Access-Control-Allow-Origin"))
		}
		if got := r.ask("GET", "/healthz", "", header); got.status != 200 {
			t.Errorf("%s: got %d on the socket, where no page can come from", header, got.status)
		}
	}
	r.door.Configure(door.Settings{Origins: []string{"*"}})
	if got := r.over(r.overTCP, "GET", "/healthz", "", "Origin: null"); got.status != 200 {
		t.Errorf("got %+v though all origins are allowed", got)
	}
}

func TestABrowserMayAskBeforeItAsks(t *testing.T) {
	r := newRig(t)
	got := r.over(r.overTCP, http.MethodOptions, "/api/chat", "",
		"Origin: http://localhost:3000", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type, x-priority")
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": "http://localhost:3000", "Access-Control-Allow-Headers": "content-type, x-priority",
		"Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, HEAD, OPTIONS", "Vary": "Origin",
	} {
		if got.header.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, got.header.Get(name), want)
		}
	}
	if got.status != 204 || !strings.Contains(got.header.Get("Access-Control-Expose-Headers"), "X-Backend-Used") {
		t.Errorf("got %+v", got)
	}
	if got := r.over(r.overTCP, http.MethodOptions, "/api/chat", "", "Origin: https://evil.example.com"); got.status != 403 {
		t.Errorf("got %+v", got)
	}
}

func TestOtherUsersAreRefused(t *testing.T) {
	if os.Getuid() != 0 {
		if testing.Short() {
			t.Skip("it takes root to be somebody else")
		}
		t.Fatal("it takes root to be somebody else: run as root, or with -short")
	}
	for _, program := range []string{"setpriv", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t)
	// The guard is not the permissions, which are gone here, but who connects.
	for path, perm := range map[string]os.FileMode{filepath.Dir(r.socket): 0o755, r.socket: 0o666} {
		if err := os.Chmod(path, perm); err != nil {
			t.Fatal(err)
		}
	}
	for name, how := range map[string][]string{
		"the port": {"http://" + r.addr + "/healthz"}, "the socket": {"--unix-socket", r.socket, "http://x/healthz"},
	} {
		for uid, want := range map[int]string{1000: "403", 0: "200"} {
			args := append([]string{fmt.Sprintf("--reuid=%d", uid), fmt.Sprintf("--regid=%d", uid), "--clear-groups", "curl", "--silent", "--noproxy", "*", "--write-out", "\n%{http_code}"}, how...)
			out, err := exec.CommandContext(t.Context(), "setpriv", args...).CombinedOutput()
			if err != nil || !strings.HasSuffix(string(out), "\n"+want) {
				t.Errorf("user %d on %s: %v, %s", uid, name, err, out)
			}
			if want == "403" && !strings.Contains(string(out), wire.CodeForbidden) {
				t.Errorf("user %d on %s is not told why: %s", uid, name, out)
			}
		}
	}
}

func TestWhatIsNotThereIsToldInJSON(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/nothing", 404, ""},
		{"POST", "/", 405, "GET, HEAD"},
		{"GET", "/api/chat", 405, "POST"},
		{"DELETE", "/joulemux/v1/policy", 405, "GET, HEAD, PUT"},
		{"PATCH", "/api/tags", 405, "GET, HEAD"},
		{"GET", "/api/delete", 405, "DELETE"},
		{"GET", "/api//nothing/../x", 404, ""},
	} {
		got := r.ask(c.method, c.path, "")
		if e := read[wire.Error](t, got.body); got.status != c.status || got.header.Get("Allow") != c.allow || e.Code != wire.CodeInvalid || e.Text == "" {
			t.Errorf("%s %s: got %+v", c.method, c.path, got)
		}
	}
	if got := r.ask("HEAD", "/", ""); got.status != 200 {
		t.Errorf("got %+v", got)
	}
	if got := r.ask("GET", "/", ""); got.body != "Ollama is running" {
		t.Errorf("got %+v", got)
	}
}

func TestEveryAnswerIsMarkedAsAJoulemuxs(t *testing.T) {
	r := newRig(t)
	marks := make(map[string]bool)
	for _, path := range []string{"/", "/nothing", "/api/version", "/health", "/api/chat", "/joulemux/v1/status"} {
		marks[r.ask("GET", path, "").header.Get("X-Joulemux-Instance")] = true
	}
	marks[r.over(r.overTCP, "GET", "/", "", "Host: evil.example.com").header.Get("X-Joulemux-Instance")] = true
	if len(marks) != 1 || marks[""] {
		t.Errorf("the marks are %v", marks)
	}
	if other := newRig(t).ask("GET", "/", "").header.Get("X-Joulemux-Instance"); marks[other] {
		t.Errorf("two joulemuxes have the mark %q", other)
	}
}
