package daemon_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/joulemux/joulemux/daemon"
	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/token"
)

// tokensOf returns the tokens of a daemon.
func tokensOf(d *daemontest.Daemon) *token.File {
	return token.Open(filepath.Join(filepath.Dir(d.ConfigPath()), token.FileName))
}

// newToken makes one that is good for that time, or for ever.
func newToken(t *testing.T, d *daemontest.Daemon, name string, good time.Duration, rights ...token.Right) string {
	t.Helper()
	tok := token.Token{Name: name, Rights: rights, Created: time.Now()}
	if good != 0 {
		tok.Expires = time.Now().Add(good)
	}
	secret, err := tokensOf(d).Create(tok)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// asStranger has another user of this machine run curl, whose output ends in the
// answer's status. It takes root to be one.
func asStranger(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	if os.Getuid() != 0 {
		if testing.Short() {
			t.Skip("it takes root to be somebody else")
		}
		t.Fatal("it takes root to be somebody else: run as root, or with -short")
	}
	args = append([]string{"--reuid", "1000", "--regid", "1000", "--clear-groups", "curl", "-sS", "--noproxy", "*", "--max-time", "20", "-w", "\n%{http_code}"}, args...)
	all, err := exec.CommandContext(t.Context(), "setpriv", args...).CombinedOutput()
	return string(all), err
}

// stranger is asStranger where there has to be an answer.
func stranger(t *testing.T, args ...string) (body string, status string) {
	t.Helper()
	out, err := asStranger(t, args...)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	at := strings.LastIndex(out, "\n")
	return out[:at], out[at+1:]
}

func TestAnotherUserComesInWithAToken(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	job := []string{"-d", `{"model":"` + model + `","prompt":"Why?","stream":false}`, "http://" + d.Addr + "/api/generate"}
	with := func(header string, args ...string) []string { return append([]string{"-H", header}, args...) }
	if body, status := stranger(t, job...); status != "403" {
		t.Errorf("without any: %s %s", status, body)
	}
	phone := newToken(t, d, "phone", time.Hour, token.Generate)
	old := newToken(t, d, "old", -time.Minute, token.Generate, token.Admin)
	prometheus := newToken(t, d, "prometheus", 0, token.Metrics)
	admin := newToken(t, d, "admin", 0, token.Admin)
	control := newToken(t, d, "control", 0, token.Control)
	policy := []string{"http://" + d.Addr + "/joulemux/v1/policy"}
	remove := []string{"-X", "DELETE", "-d", `{"model":"no-such-model"}`, "http://" + d.Addr + "/api/delete"}
	for _, c := range []struct {
		what   string
		args   []string
		status string
		says   string
	}{
		{"without one", job, "401", wire.CodeUnauthenticated},
		{"with one", with("Authorization: Bearer "+phone, job...), "200", `"done":true`},
		{"as Anthropic's clients", with("X-Api-Key: "+phone, job...), "200", `"done":true`},
		{"with an old one", with("Authorization: Bearer "+old, job...), "401", `the token \"old\" expired on`},
		{"with one for Prometheus", with("Authorization: Bearer "+prometheus, job...), "403", `right \"generate\"`},
		{"which may look", with("Authorization: Bearer "+prometheus, "http://"+d.Addr+"/healthz"), "200", ""},
		{"the policy with one for jobs", with("Authorization: Bearer "+phone, policy...), "403", `right \"control\"`},
		{"with one for that", with("Authorization: Bearer "+control, policy...), "200", "auto"},
		{"models with one for jobs", with("Authorization: Bearer "+phone, remove...), "403", `right \"admin\"`},
		{"the model is not there, says the backend", with("Authorization: Bearer "+admin, remove...), "404", ""},
		{"with one, from a foreign page", with("Authorization: Bearer "+phone, with("Origin: https://evil.example.com", job...)...), "403", "Origin"},
		{"with one, by a foreign name", with("Authorization: Bearer "+phone, with("Host: rebound.example.com", job...)...), "403", "Host"},
	} {
		body, status := stranger(t, c.args...)
		if status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s: %s %s", c.what, status, body)
		}
	}
	if err := tokensOf(d).Revoke("phone"); err != nil {
		t.Fatal(err)
	}
	if body, status := stranger(t, with("Authorization: Bearer "+phone, job...)...); status != "401" {
		t.Errorf("once it is revoked: %s %s", status, body)
	}
	for _, secret := range []string{phone, old, prometheus, admin, control} {
		if strings.Contains(d.Log.String(), secret) {
			t.Error("a token is in the log")
		}
	}
	var spent wire.Energy
	if err := json.Unmarshal([]byte(ask(t, d, "GET", "/joulemux/v1/energy?by=client", "").body), &spent); err != nil {
		t.Fatal(err)
	}
	clients := map[string]int64{}
	for _, total := range spent.Totals {
		clients[total.Key] = total.Jobs
	}
	if clients["phone"] != 2 {
		t.Errorf("the ledger has %v", clients)
	}
}

func TestTokensOverGRPC(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: "limits: {clients: {phone: {jobs_per_minute: 1}}}\n" + oneBackend(t)})
	phone, old := newToken(t, d, "phone", 0, token.Generate), newToken(t, d, "old", -time.Second, token.Generate)
	prometheus := newToken(t, d, "prometheus", 0, token.Metrics)
	conn, err := grpc.NewClient(d.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	generate := func(secret string) error {
		ctx, cancel := context.WithTimeout(t.Context(), daemontest.Patience)
		defer cancel()
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+secret)
		return conn.Invoke(ctx, "/"+computev1.ComputeServiceName+"/Generate", &computev1.GenerateRequest{Prompt: "Why?", Model: model}, new(computev1.GenerateResponse))
	}
	for _, c := range []struct {
		secret string
		want   codes.Code
	}{
		{"ollama", codes.OK},
		{old, codes.Unauthenticated},
		{token.NewSecret(), codes.Unauthenticated},
		{prometheus, codes.PermissionDenied},
		{phone, codes.OK},
		{phone, codes.ResourceExhausted},
	} {
		if err := generate(c.secret); grpcstatus.Code(err) != c.want {
			t.Errorf("got %v, want %v", err, c.want)
		}
	}
	for kind, says := range map[string]string{"application/json": `"code":"unauthenticated"`, "application/grpc-web+proto": "16"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+d.GRPCAddr+"/"+computev1.ComputeServiceName+"/Generate", strings.NewReader(`{"prompt":"Why?"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", kind)
		req.Header.Set("X-Api-Key", old)
		resp, err := briefly().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if !strings.Contains(string(body)+resp.Header.Get("Grpc-Status"), says) {
			t.Errorf("%s: %d %v %s", kind, resp.StatusCode, resp.Header, body)
		}
	}
}

func TestClientOverItsLimitIsToldSoOnEveryWire(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: "limits: {per_client: {jobs_per_minute: 1}}\n" + oneBackend(t)})
	body := `{"model":"` + model + `","prompt":"Why?","stream":false}`
	if a := ask(t, d, "POST", "/api/generate", body); a.status != http.StatusOK {
		t.Fatalf("got %+v", a)
	}
	a := ask(t, d, "POST", "/api/generate", body)
	var e wire.Error
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || a.status != http.StatusTooManyRequests || e.Code != wire.CodeOverLimit ||
		e.RetryAfterSeconds < 1 || e.RetryAfterSeconds > 60 || !strings.Contains(e.Text, "jobs_per_minute") {
		t.Errorf("over HTTP: %v, %+v", err, a)
	}
	peer := d.Bus.Connect(t)
	generate := func() error {
		return call(t, inference(peer), "Generate", "Why?", options{}).Err
	}
	var refused godbus.Error
	if err := generate(); !errors.As(err, &refused) || refused.Name != "org.freedesktop.DBus.Error.LimitsExceeded" || !strings.Contains(refused.Error(), "jobs_per_minute") {
		t.Errorf("over D-Bus, for the same program: %v", err)
	}
	d.Configure(oneBackend(t))
	d.Await("the configuration has changed")
	if a := ask(t, d, "POST", "/api/generate", body); a.status != http.StatusOK {
		t.Errorf("without the limit: %+v", a)
	}
}

// TestNoKeyReachesABackend has clients show keys with jobs, with what is passed on
// and with administration, to a server that keeps all that it is sent.
func TestNoKeyReachesABackend(t *testing.T) {
	var mu sync.Mutex
	var seen strings.Builder
	paths := map[string]bool{}
	canned := daemontest.CannedOllama()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		_ = r.Header.Write(&seen)
		fmt.Fprintln(&seen, r.URL)
		paths[r.URL.Path] = true
		mu.Unlock()
		canned.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	d := daemontest.Start(t, daemontest.Options{Config: backends(map[string]string{"cpu": strings.TrimPrefix(server.URL, "http://")})})
	secret := newToken(t, d, "all", 0, token.Rights()...)
	for path, body := range map[string]string{
		"/api/generate": `{"model":"llama3.2:1b","prompt":"Why?"}`, "/api/chat": `{"model":"llama3.2:1b","messages":[{"role":"user","content":"x"}]}`,
		"/api/show": `{"model":"llama3.2:1b"}`, "/api/pull": `{"model":"x"}`,
	} {
		for _, key := range []string{secret, "sk-somebody-elses"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+d.Addr+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range map[string]string{"Authorization": "Bearer " + key, "X-Api-Key": key, "Api-Key": key, "Cookie": "session=" + key, "Proxy-Authorization": "Basic " + key} {
				req.Header.Set(name, value)
			}
			resp, err := briefly().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, path := range []string{"/api/generate", "/api/chat", "/api/show", "/api/pull"} {
		if !paths[path] {
			t.Errorf("nothing came to %s", path)
		}
	}
	for _, word := range []string{secret, "sk-somebody-elses", "Cookie", "Authorization", "Api-Key"} {
		if strings.Contains(seen.String(), word) {
			t.Errorf("the server was sent %q:\n%s", word, &seen)
		}
	}
}

func TestOtherMachinesAreLetInOnlyIfThereIsAToken(t *testing.T) {
	// It has nothing in force at first, so that what mends it opens the ports.
	d := daemontest.Start(t, daemontest.Options{Config: "nonsense: 1\n"})
	port := daemontest.FreePort(t)
	exposed := fmt.Sprintf("server:\n  host: 0.0.0.0\n  hosts: [desk.example.org]\n  http_port: %d\n  grpc_port: 0\n", port)
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(exposed+oneBackend(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := daemon.Check(path); err == nil || !strings.Contains(err.Error(), "line 2: server.host: 0.0.0.0 is not a loopback address, which takes a token first") {
		t.Errorf("without one: %v", err)
	}
	if _, err := token.Open(filepath.Join(filepath.Dir(path), "tokens")).Create(token.Token{Name: "phone", Rights: []token.Right{token.Generate}}); err != nil {
		t.Fatal(err)
	}
	if notes, err := daemon.Check(path); err != nil || !strings.Contains(strings.Join(notes, "\n"), "nothing is encrypted") {
		t.Errorf("with one: %v, %v", notes, err)
	}
	if err := os.Chmod(filepath.Join(filepath.Dir(path), "tokens"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := daemon.Check(path); err == nil || !strings.Contains(err.Error(), "mode 0600") {
		t.Errorf("with a file that others may read: %v", err)
	}

	// The same while it runs.
	if err := os.WriteFile(d.ConfigPath(), []byte(exposed+oneBackend(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Await("which takes a token first")
	secret := newToken(t, d, "phone", 0, token.Generate)
	d.Reload()
	d.Await("the configuration has changed")
	d.Await("nothing is encrypted")
	url := fmt.Sprintf("http://%s:%d/api/tags", otherAddress(t), port)
	get := func(url string, headers ...string) (status int, text string) {
		t.Helper()
		var body string
		daemontest.Eventually(t, "the port", func() bool {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range headers {
				name, value, _ := strings.Cut(h, ": ")
				if name == "Host" {
					req.Host = value
				}
				req.Header.Set(name, value)
			}
			resp, err := briefly().Do(req)
			if err != nil {
				return false // not yet open
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			status, body = resp.StatusCode, string(text)
			return true
		})
		return status, body
	}
	bearer := "Authorization: Bearer " + secret
	for _, c := range []struct {
		what    string
		headers []string
		status  int
	}{
		{"without a token", nil, 401},
		{"with one", []string{bearer}, 200},
		{"by its name", []string{bearer, "Host: desk.example.org:1"}, 200},
		{"by another name", []string{bearer, "Host: rebound.example.com"}, 403},
		{"by another address", []string{bearer, "Host: 198.51.100.1"}, 403},
	} {
		if status, text := get(url, c.headers...); status != c.status {
			t.Errorf("%s: %d %s", c.what, status, text)
		}
	}
	if status, text := get(fmt.Sprintf("http://127.0.0.1:%d/api/tags", port)); status != 200 {
		t.Errorf("from this machine: %d %s", status, text)
	}
}

// otherAddress returns an address of this machine that is not of the loopback.
func otherAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
			return ip.IP.String()
		}
	}
	t.Fatal("this machine has no address but those of the loopback")
	return ""
}
