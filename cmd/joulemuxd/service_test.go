package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/daemontest"
)

const (
	service  = "joulemuxd.service"
	overUnix = `curl -sS --max-time 20 --unix-socket "$XDG_RUNTIME_DIR/joulemux/api.sock" http://localhost`
	endless  = `/api/generate -N -d '{"model":"llama3.2:1b","prompt":"endless"}'`
)

// TestServiceOfAUser is what systemd makes of us: installed as packagers do,
// under a real user manager. The parts share one login; each starts from a
// daemon that it has stopped, or started, itself.
func TestServiceOfAUser(t *testing.T) {
	if testing.Short() {
		t.Skip("it installs joulemux, and starts a user manager")
	}
	backend, nvidia := daemontest.Serve(t, endlessOllama()), nvidiaLaptop(t)
	wakes := waking(t, nvidia)
	l := logIn(t)
	port := daemontest.FreePort(t)
	l.configure(t, oneBackend("canned", backend))
	l.run(t, fmt.Sprintf(`mkdir -p ~/.config/systemd/user/joulemux-http.socket.d
		printf '[Socket]\nListenStream=\nListenStream=127.0.0.1:%d\n' >~/.config/systemd/user/joulemux-http.socket.d/port.conf
		systemctl --user daemon-reload
		systemctl --user enable joulemuxd.service joulemux-http.socket
		systemctl --user start joulemux.socket joulemux-http.socket`, port))

	t.Run("the sockets are there before the daemon, and the user's alone", func(t *testing.T) {
		l.expectState(t, "inactive")
		l.run(t, "systemctl --user is-enabled joulemux.socket", "enabled")
		l.run(t, `stat -c '%a %U %F' "$XDG_RUNTIME_DIR/joulemux" "$XDG_RUNTIME_DIR/joulemux/api.sock"`,
			"700 joule directory", "600 joule socket")
	})
	overTCP := fmt.Sprintf("curl -sS --max-time 20 http://127.0.0.1:%d", port)
	starters := []struct{ name, command, says string }{
		{"a request on the Unix socket starts the daemon", overUnix + "/health", `"status":"healthy"`},
		{"a request on the port starts the daemon", overTCP + "/api/tags", "llama3.2:1b"},
		{"a look at Router1 starts the daemon", "busctl --user --no-pager introspect io.github.joulemux.Router1 /io/github/joulemux/Router1", `"mains"`},
		{
			"a call of Inference1 starts the daemon",
			"busctl --user --timeout=20 call io.github.joulemux.Inference1 /io/github/joulemux/Inference1 io.github.joulemux.Inference1 ListModels",
			`"llama3.2:1b"`,
		},
	}
	for _, tt := range starters {
		t.Run(tt.name, func(t *testing.T) {
			l.stop(t)
			t.Log(l.run(t, tt.command, tt.says))
			l.expectState(t, "active")
		})
	}
	t.Run("jobs are answered", func(t *testing.T) {
		for _, base := range []string{overUnix, overTCP} {
			l.run(t, base+`/api/generate -d '{"model":"llama3.2:1b","prompt":"why is the sky blue?","stream":false}'`, "Rayleigh")
		}
	})
	t.Run("the status says the tier and where jobs go", func(t *testing.T) { expectStatus(t, l) })
	t.Run("what goes well is no warning", func(t *testing.T) { expectQuiet(t, l) })
	t.Run("a good file is taken by a reload", func(t *testing.T) {
		l.configure(t, oneBackend("another", backend))
		l.run(t, "systemctl --user reload joulemuxd.service")
		expectBackend(t, l, "another")
	})
	t.Run("a bad file fails the reload, and the daemon goes on with the old", func(t *testing.T) { expectBadReload(t, l, backend) })
	t.Run("the level of the log is systemctl's to change", func(t *testing.T) {
		l.run(t, "systemctl --user service-log-level joulemuxd.service", "info")
		l.run(t, "systemctl --user service-log-level joulemuxd.service debug")
		l.run(t, "systemctl --user service-log-level joulemuxd.service", "debug")
		l.run(t, "systemctl --user service-log-target joulemuxd.service", "journal")
	})
	t.Run("it stops at once with a stream open", func(t *testing.T) { expectQuickStop(t, l) })
	t.Run("on a bad file it starts and says so to whoever asks, until that is mended", func(t *testing.T) { expectMendable(t, l, backend, overTCP) })
	t.Run("a connection starts the reader of NVIDIA GPUs, which ends with it", func(t *testing.T) { expectNVIDIA(t, l, nvidia) })
	var opened string
	t.Run("a job that wakes a GPU up is measured, and then nobody holds it", func(t *testing.T) { opened = expectMeasured(t, l, nvidia, wakes) })
	t.Run("what the GPU takes to hold a model is measured while it does", func(t *testing.T) { expectHeld(t, l, nvidia, opened) })
	t.Run("it stays confined", func(t *testing.T) {
		expectConfined(t, l, service)
		expectConfined(t, l, "joulemux-nvml.service")
	})
}

// oneBackend leaves gRPC's port to a joulemux that whoever runs the tests may have.
func oneBackend(id, backend string) string {
	return fmt.Sprintf("server: {grpc_port: 0}\nbackends:\n  - {id: %s, type: ollama, hardware: cpu, slots: 64, endpoint: 'http://%s'}", id, backend)
}

// endlessOllama is a canned Ollama that does not come to an end if it is asked
// to be endless.
func endlessOllama() http.Handler {
	canned := daemontest.CannedOllama()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || !strings.Contains(string(body), `"endless"`) {
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			canned.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		_, _ = io.WriteString(w, `{"model":"llama3.2:1b","response":"On","done":false}`+"\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
}

func expectStatus(t *testing.T, l *login) {
	t.Helper()
	const want = "mains (no battery), jobs go to canned"
	daemontest.Eventually(t, want, func() bool { return l.property(t, "StatusText") == want })
	t.Log(l.run(t, "systemctl --user --no-pager --lines=3 status joulemuxd.service",
		"Active: active (running)", `Status: "`+want+`"`, "app.slice/joulemuxd.service", "joulemux-http.socket"))
	for name, want := range map[string]string{"Type": "notify", "NRestarts": "0", "Result": "success"} {
		if got := l.property(t, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// expectQuiet checks the journal's lines: their priority is the journal's, and
// what they say is all that is in them.
func expectQuiet(t *testing.T, l *login) {
	t.Helper()
	lines := l.run(t, "journalctl --user --no-pager -u joulemuxd.service -o cat _COMM=joulemuxd", "joulemux is ready")
	for line := range strings.Lines(lines) {
		if !strings.HasPrefix(line, "msg=") {
			t.Errorf("a line does not begin with what it says: %s", line)
		}
	}
	// The machine has no system bus, and it does say that.
	if warned := l.run(t, "journalctl --user --no-pager -q -u joulemuxd.service -p warning -o cat | grep -v 'no bus to watch' || true"); warned != "" {
		t.Errorf("it warns of this:\n%s", warned)
	}
}

func expectBadReload(t *testing.T, l *login, backend string) {
	t.Helper()
	before := l.property(t, "MainPID")
	l.configure(t, "server:\n  http_prt: 1")
	if said, code := l.try(t, "systemctl --user reload joulemuxd.service"); code == 0 {
		t.Errorf("the reload did not fail: %s", said)
	}
	const warning = "configuration has faults, the old one is in force"
	daemontest.Eventually(t, warning, func() bool { return strings.HasPrefix(l.property(t, "StatusText"), warning) })
	l.expectState(t, "active")
	if after := l.property(t, "MainPID"); after != before {
		t.Errorf("process %s became %s", before, after)
	}
	l.run(t, overUnix+"/backends", `"another"`)
	daemontest.Eventually(t, "what is wrong, in the journal", func() bool {
		return strings.Contains(l.run(t, "journalctl --user --no-pager -u joulemuxd.service -o cat"), `did you mean "http_port"?`)
	})
	l.configure(t, oneBackend("canned", backend))
	l.run(t, "systemctl --user reload joulemuxd.service")
	expectBackend(t, l, "canned")
}

// expectBackend waits until a backend is there. A reload does not: before 253
// the service manager takes it for done once the signal is sent.
func expectBackend(t *testing.T, l *login, id string) {
	t.Helper()
	daemontest.Eventually(t, "a backend "+id, func() bool {
		return strings.Contains(l.run(t, overUnix+"/backends"), `"id":"`+id+`"`)
	})
}

func expectQuickStop(t *testing.T, l *login) {
	t.Helper()
	l.run(t, `systemctl --user start joulemuxd.service; mkfifo ~/stream
		`+overUnix+endless+` >~/stream 2>~/failed & client=$!
		exec 3<~/stream; read -r -u 3 first; echo "$first"`, `"response":"On"`)
	start := time.Now()
	l.run(t, "systemctl --user stop joulemuxd.service")
	took := time.Since(start)
	if took > 10*time.Second { // one, and what a loaded machine adds
		t.Errorf("it took %v", took)
	}
	t.Logf("it took %v; then the client read:\n%s", took, l.run(t, "cat <&3; exec 3<&-; wait $client; echo curl: $? $(cat ~/failed)"))
	for name, want := range map[string]string{"Result": "success", "ExecMainCode": "1", "ExecMainStatus": "0", "ActiveState": "inactive"} {
		if got := l.property(t, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func expectMendable(t *testing.T, l *login, backend, overTCP string) {
	t.Helper()
	l.stop(t)
	l.configure(t, "server:\n  http_prt: 1")
	for _, base := range []string{overUnix, overTCP} {
		l.run(t, base+`/api/generate -d '{"model":"llama3.2:1b","prompt":"Why?"}'`, `"code":"no_backend"`, "config.yaml: line 2: server.http_prt: no such key")
	}
	said, _ := l.try(t, "busctl --user --timeout=20 call io.github.joulemux.Inference1 /io/github/joulemux/Inference1 io.github.joulemux.Inference1 ListModels")
	if !strings.Contains(said, "config.yaml: line 2: server.http_prt: no such key") {
		t.Errorf("over D-Bus it says %s", said)
	}
	l.expectState(t, "active") // which answers may come before
	t.Log(l.run(t, "systemctl --user --no-pager --lines=3 status joulemuxd.service",
		"Active: active (running)", `Status: "configuration has faults, jobs are refused: `))
	l.configure(t, oneBackend("canned", backend))
	expectBackend(t, l, "canned")
	expectStatus(t, l)
}

// expectConfined holds how much systemd thinks a service could do. What would
// lower it further needs privileges that a user manager does not have.
func expectConfined(t *testing.T, l *login, service string) {
	t.Helper()
	const budget = 6.5
	said := l.run(t, "systemd-analyze --user --no-pager security "+service)
	found := regexp.MustCompile(`Overall exposure level for ` + service + `: ([0-9.]+).*`).FindStringSubmatch(said)
	if found == nil {
		t.Fatalf("there is no score in\n%s", said)
	}
	t.Log(found[0])
	if score, err := strconv.ParseFloat(found[1], 64); err != nil || score > budget {
		t.Errorf("the score is %s, %v; want at most %v", found[1], err, budget)
	}
}
