package daemon_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/joulemux/joulemux/daemon"
	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/token"
)

const vendorKey = "sk-vendor-0815"

// vendor is a server of OpenAI's API behind TLS that answers whoever has its key,
// and says what it counted.
type vendor struct {
	*httptest.Server
	mu       sync.Mutex
	key      string
	asked    []*http.Request
	sent     []string // bodies
	redirect string
	busy     atomic.Bool
	next     http.Handler // which answers for it, if set
}

func startVendor(t *testing.T) *vendor {
	t.Helper()
	v := &vendor{key: vendorKey}
	v.Server = httptest.NewTLSServer(v)
	t.Cleanup(v.Close)
	return v
}

func (v *vendor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	v.mu.Lock()
	v.asked, v.sent = append(v.asked, r), append(v.sent, string(body))
	key, elsewhere := v.key, v.redirect
	v.mu.Unlock()
	switch {
	case v.busy.Load() && r.Method == http.MethodPost:
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"error":{"message":"Rate limit reached"}}`)
	case elsewhere != "":
		http.Redirect(w, r, elsewhere, http.StatusTemporaryRedirect)
	case r.Header.Get("Authorization") != "Bearer "+key:
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":{"message":"Incorrect API key provided: %s"}}`, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	case v.next != nil:
		v.next.ServeHTTP(w, r)
	case r.URL.Path == "/v1/models":
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"big-1"},{"id":"llama3.2:1b"},{"id":"other"}]}`)
	case r.URL.Path == "/v1/chat/completions" && strings.Contains(string(body), `"stream":true`):
		w.Header().Set("Content-Type", "text/event-stream")
		for _, word := range []string{"It ", "scatters."} {
			fmt.Fprintf(w, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"big-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":%q}}]}\n\n", word)
		}
		_, _ = io.WriteString(w, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"big-1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"+
			"data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"big-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":200,\"total_tokens\":1200}}\n\ndata: [DONE]\n\n")
	default:
		_, _ = io.WriteString(w, `{"id":"c","object":"chat.completion","model":"big-1","choices":[{"index":0,"message":{"role":"assistant","content":"It scatters."},"finish_reason":"stop"}],`+
			`"usage":{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200}}`)
	}
}

// count is how often it was asked.
func (v *vendor) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.asked)
}

// asks is how often it was asked for a path.
func (v *vendor) asks(path string) (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.asked {
		if r.URL.Path == path {
			n++
		}
	}
	return n
}

func (v *vendor) last() (*http.Request, string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.asked[len(v.asked)-1], v.sent[len(v.sent)-1]
}

// file writes a file that nobody else may read, unless mode says so.
func file(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// backend is the vendor as it is configured, with more said of it.
func (v *vendor) backend(t *testing.T, keyFile, more string) string {
	t.Helper()
	ca := file(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v.Certificate().Raw})), 0o600)
	return fmt.Sprintf("  - {id: vendor, hardware: cloud, endpoint: %q, type: openai, ca: %s, key_file: %s, models: {smart: big-1, %q: big-1}, "+
		"price: {per_million_input: 0.15, per_million_output: 0.6, currency: EUR}%s}\n", v.URL, ca, keyFile, model, more)
}

const (
	anybody = `, allow: {clients: ["*"], classes: [interactive]}`
	nobody  = `, allow: {clients: [somebody-else], classes: [interactive]}, when: cheaper`
)

const smart = `{"model":"smart","messages":[{"role":"user","content":"Why is the sky blue?"}],"stream":false,"joulemux":{"target":"cloud"}}`

func TestAJobLeavesForAVendorWithItsKeyAndItsPrice(t *testing.T) {
	v := startVendor(t)
	d := daemontest.Start(t, daemontest.Options{
		State:  t.TempDir(),
		Config: oneBackend(t) + v.backend(t, file(t, "key", vendorKey, 0o600), anybody) + "energy: {price_per_kwh: 0.32, currency: EUR}\n",
	})
	for range 3 {
		if where := ran(t, d); where != "ollama-cpu" {
			t.Errorf("a job that names nothing goes to %s", where)
		}
	}
	if n := v.count(); n != 0 {
		t.Fatalf("the vendor was asked %d times for jobs that stay here", n)
	}
	var said []string // whatever the daemon says to anybody
	for path, body := range map[string]string{
		"/api/chat":     smart,
		"/api/generate": `{"model":"smart","prompt":"Why is the sky blue?","stream":false,"joulemux":{"target":"vendor"}}`,
	} {
		a := ask(t, d, "POST", path, body)
		said = append(said, a.body, fmt.Sprint(a.header))
		if a.status != http.StatusOK || !strings.Contains(a.body, "It scatters.") {
			t.Fatalf("%s: %d %s", path, a.status, a.body)
		}
		for header, want := range map[string]string{"X-Backend-Used": "vendor", "X-Energy-Quality": "none", "X-Energy-Wh": "0", "X-Cost": "0.00027", "X-Cost-Currency": "EUR"} {
			if got := a.header.Get(header); got != want {
				t.Errorf("%s: %s is %q, want %q", path, header, got, want)
			}
		}
		if a.header.Get("X-Energy-Radio-Joules") == "" || !strings.Contains(a.header.Get("X-Routing-Reason"), "elsewhere") {
			t.Errorf("%s: it does not say where it ran: %v", path, a.header)
		}
		r, sent := v.last()
		if r.Header.Get("Authorization") != "Bearer "+vendorKey || !strings.Contains(sent, `"big-1"`) || strings.Contains(sent, "joulemux") {
			t.Errorf("%s: the vendor is asked %v %s", path, r.Header, sent)
		}
	}
	a := ask(t, d, "POST", "/api/chat", strings.Replace(smart, `"stream":false,`, "", 1))
	lines := strings.Split(strings.TrimSpace(a.body), "\n")
	if m := member(t, lines[len(lines)-1]); m["cost"] != 0.00027 || m["cost_currency"] != "EUR" || m["energy_quality"] != "none" || m["radio_joules"] == nil {
		t.Errorf("at the end of a stream it says %v", m)
	}
	over := overGRPC(t, d, `{"prompt":"Why is the sky blue?","model":"smart","annotations":{"target":"cloud"}}`)
	var answered struct {
		Stats struct {
			Cost, RadioJoules           float64
			CostCurrency, EnergyQuality string
		}
	}
	if err := json.Unmarshal([]byte(over), &answered); err != nil || answered.Stats.Cost != 0.00027 || answered.Stats.CostCurrency != "EUR" ||
		answered.Stats.RadioJoules <= 0 || answered.Stats.EnergyQuality != "none" {
		t.Errorf("over gRPC it says %s, %v", over, err)
	}
	for _, path := range []string{"/joulemux/v1/status", "/backends", "/health", "/api/tags", "/joulemux/v1/models", "/joulemux/v1/energy?by=client", "/joulemux/v1/energy/" + a.header.Get("X-Request-Id")} {
		got := ask(t, d, "GET", path, "")
		said = append(said, got.body, fmt.Sprint(got.header))
		if path == "/api/tags" && (!strings.Contains(got.body, `"smart"`) || strings.Contains(got.body, `"other"`)) {
			t.Errorf("the models are %s", got.body)
		}
	}
	var e wire.Energy
	if err := json.Unmarshal([]byte(ask(t, d, "GET", "/joulemux/v1/energy", "").body), &e); err != nil {
		t.Fatal(err)
	}
	if c := e.All.Cost; len(c) != 1 || c[0].RemoteAmount != 0.00108 || c[0].EnergyAmount <= 0 || c[0].Amount != c[0].EnergyAmount+c[0].RemoteAmount || c[0].RemoteJobs != 4 {
		t.Errorf("it costs %+v", c)
	}
	scraped := ask(t, d, "GET", "/metrics", "").body
	for _, want := range []string{`joulemux_remote_cost_total{backend="vendor",model="smart:latest",class="interactive",currency="EUR"} 0.00108`, `joulemux_energy_price_per_kwh{currency="EUR"} 0.32`} {
		if !strings.Contains(scraped, want+"\n") {
			t.Errorf("the metrics have no %s", want)
		}
	}
	for _, text := range append(said, scraped, d.Log.String()) {
		if strings.Contains(text, vendorKey) {
			t.Errorf("the key is told: %s", text)
		}
	}
}

// overGRPC asks gRPC's Generate, in JSON.
func overGRPC(t *testing.T, d *daemontest.Daemon, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/compute.v1.ComputeService/Generate", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestWhatMayNotLeaveStays: neither by name, nor because nothing here has the model,
// nor because what is here has failed.
func TestWhatMayNotLeaveStays(t *testing.T) {
	v := startVendor(t)
	failing := daemontest.CannedOllama()
	here := daemontest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		failing.ServeHTTP(w, r)
	}))
	d := daemontest.Start(t, daemontest.Options{
		Config: backends(map[string]string{"cpu": here}) + v.backend(t, file(t, "key", vendorKey, 0o600), nobody),
	})
	a := ask(t, d, "POST", "/api/chat", smart)
	if a.status != http.StatusForbidden || !strings.Contains(a.body, "may not leave this machine: the client ") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := ask(t, d, "POST", "/api/generate", generate); a.status != http.StatusBadGateway && a.status != http.StatusInternalServerError {
		t.Errorf("after a failure here: %d %s", a.status, a.body)
	}
	if a := ask(t, d, "POST", "/api/show", `{"model":"smart"}`); a.status != http.StatusOK || !strings.Contains(a.body, `"remote_model":"big-1"`) {
		t.Errorf("a model there is shown as %d %s", a.status, a.body)
	}
	if n := v.count(); n != 0 {
		t.Errorf("the vendor was asked %d times", n)
	}
}

// TestNobodyLeavesByCallingHimselfSomebody: by a port a program, or a page, says
// itself what it is.
func TestNobodyLeavesByCallingHimselfSomebody(t *testing.T) {
	v := startVendor(t)
	who := fmt.Sprintf(`, allow: {clients: [zed, "http://localhost:3000", %q], classes: [interactive]}`, ourName(t))
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t) + v.backend(t, file(t, "key", vendorKey, 0o600), who)})
	secret := newToken(t, d, "zed", 0, token.Generate)
	for _, c := range []struct {
		who     string
		addr    string
		headers []string
		status  int
		says    string
	}{
		{"a program of that name", d.Addr, []string{"User-Agent: zed/1.0"}, 403, `calls itself \"zed\"`},
		{"a page of that name", d.Addr, []string{"Origin: http://localhost:3000"}, 403, `calls itself \"http://localhost:3000\"`},
		{"by gRPC", d.GRPCAddr, []string{"User-Agent: zed/1.0"}, 403, "calls itself"},
		{"another with a token", d.Addr, []string{"User-Agent: curl/8", "Authorization: Bearer " + secret}, 200, "It scatters."},
		{"by gRPC with a token", d.GRPCAddr, []string{"User-Agent: curl/8", "Authorization: Bearer " + secret}, 200, "It scatters."},
	} {
		path, body := "/api/chat", smart
		if c.addr == d.GRPCAddr {
			path, body = "/compute.v1.ComputeService/Generate", `{"prompt":"Why is the sky blue?","model":"smart","annotations":{"target":"cloud"}}`
		}
		asked := v.count()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		for _, h := range c.headers {
			name, value, _ := strings.Cut(h, ": ")
			req.Header.Set(name, value)
		}
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != c.status || !strings.Contains(string(text), c.says) || (v.count() > asked) != (c.status == 200) {
			t.Errorf("%s: %d %s; the vendor was asked %d times", c.who, resp.StatusCode, text, v.count()-asked)
		}
	}
	if a := ask(t, d, "POST", "/api/chat", smart); a.status != http.StatusOK {
		t.Errorf("by the socket, as the kernel says: %d %s", a.status, a.body)
	}
}

func TestAKeyThatIsNotTakenSaysSoAndIsReplacedWhileJobsRun(t *testing.T) {
	v := startVendor(t)
	path := file(t, "key", "sk-wrong-4711", 0o600)
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t) + v.backend(t, path, anybody)})
	a := ask(t, d, "POST", "/api/chat", smart)
	if a.status < 500 || !strings.Contains(a.body, "401 Unauthorized: it does not take the key in "+path) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if strings.Contains(a.body+d.Log.String(), "sk-wrong") {
		t.Error("the key is told")
	}
	if err := os.WriteFile(path, []byte(vendorKey), 0o600); err != nil {
		t.Fatal(err)
	}
	daemontest.Eventually(t, "the new key is taken", func() bool { return ask(t, d, "POST", "/api/chat", smart).status == http.StatusOK })
}

func TestAKeyThatOthersMayReadIsRefusedByEverybody(t *testing.T) {
	v := startVendor(t)
	path := file(t, "key", vendorKey, 0o644)
	text := oneBackend(t) + v.backend(t, path, anybody)
	const want = "others may read it (mode 0644): chmod 600"
	if _, err := daemon.Check(file(t, "config.yaml", text, 0o600)); err == nil || !strings.Contains(err.Error(), "backend vendor: the key in "+path+": "+want) {
		t.Errorf("--check says %v", err)
	}
	d := daemontest.Start(t, daemontest.Options{Config: text})
	if a := ask(t, d, "POST", "/api/chat", smart); a.status < 500 || !strings.Contains(a.body, want) {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, b := range status(t, d).Backends {
		if b.ID == "vendor" && (b.Remote == nil || b.Remote.When != "named" || b.Remote.OutputPrice != 0.6) {
			t.Errorf("who may leave is %+v", b.Remote)
		}
		if b.ID == "vendor" && (b.Status.State != "unhealthy" || !strings.Contains(b.Status.Message, want)) {
			t.Errorf("its status is %+v", b.Status)
		}
	}
	if n := v.count(); n != 0 {
		t.Errorf("the vendor was asked %d times", n)
	}
}

func TestARedirectionIsNotFollowed(t *testing.T) {
	v, thief := startVendor(t), startVendor(t)
	v.redirect = thief.URL + "/v1/chat/completions"
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t) + v.backend(t, file(t, "key", vendorKey, 0o600), anybody)})
	a := ask(t, d, "POST", "/api/chat", smart)
	if a.status < 500 || !strings.Contains(a.body, "it sends its clients to "+thief.URL) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if n := thief.count(); n != 0 || v.count() == 0 {
		t.Errorf("the other server was asked %d times", n)
	}
}

// TestAVendorThatHasEnoughIsLeftAlone for as long as it says, and so is the client
// told.
func TestAVendorThatHasEnoughIsLeftAlone(t *testing.T) {
	v := startVendor(t)
	v.busy.Store(true)
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t) + v.backend(t, file(t, "key", vendorKey, 0o600), anybody)})
	if a := ask(t, d, "POST", "/api/chat", smart); a.status != http.StatusTooManyRequests || !strings.Contains(a.body, "Rate limit reached") {
		t.Errorf("%d %s", a.status, a.body)
	}
	asked := v.count()
	a := ask(t, d, "POST", "/api/chat", smart)
	seconds, _ := strconv.Atoi(a.header.Get("Retry-After"))
	if a.status != http.StatusServiceUnavailable || seconds < 25 || seconds > 30 || v.count() != asked {
		t.Errorf("%d after %d s: %s; the vendor was asked %d times more", a.status, seconds, a.body, v.count()-asked)
	}
	if where := ran(t, d); where != "ollama-cpu" {
		t.Errorf("what stays here goes to %s", where)
	}
}

// TestALoopEndsBeforeItBegins: a joulemux that is told to go home to itself.
func TestALoopEndsBeforeItBegins(t *testing.T) {
	port := daemontest.FreePort(t)
	d := daemontest.Start(t, daemontest.Options{Port: port, Config: oneBackend(t) +
		fmt.Sprintf("  - {id: home, hardware: cloud, endpoint: \"http://127.0.0.1:%d\", type: ollama, models: {smart: smart}%s}\n", port, anybody)})
	a := ask(t, d, "POST", "/api/chat", smart)
	if a.status < 500 || !strings.Contains(a.body, "it is a joulemux, and no backend") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestWhoMayLeaveIsReadAgain(t *testing.T) {
	v := startVendor(t)
	key := file(t, "key", vendorKey, 0o600)
	local := oneBackend(t)
	d := daemontest.Start(t, daemontest.Options{Config: local})
	if a := ask(t, d, "POST", "/api/chat", smart); a.status != http.StatusNotFound {
		t.Errorf("without a remote backend: %d %s", a.status, a.body)
	}
	d.Configure(local + v.backend(t, key, anybody))
	daemontest.Eventually(t, "jobs may leave", func() bool { return ask(t, d, "POST", "/api/chat", smart).status == http.StatusOK })
	d.Configure(local + v.backend(t, key, ""))
	daemontest.Eventually(t, "none may any more", func() bool { return ask(t, d, "POST", "/api/chat", smart).status == http.StatusForbidden })
}

// TestARealOllamaAtHome: the daemon's own Ollama plays the home server, behind a
// proxy that wants a key, as people put before it; nothing is known of it but that.
func TestARealOllamaAtHome(t *testing.T) {
	home := startVendor(t)
	home.next = proxyOf(t, realOllama(t))
	ca := file(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: home.Certificate().Raw})), 0o600)
	d := daemontest.Start(t, daemontest.Options{State: t.TempDir(), Config: fmt.Sprintf(
		"backends:\n  - {id: home, hardware: cloud, endpoint: %q, ca: %s, key_file: %s, models: {mine: \"tiny:latest\"}, allow: {clients: [\"*\"], classes: [interactive]}, when: needed}\n",
		home.URL, ca, file(t, "key", vendorKey, 0o600))})
	if n := home.count(); n != 0 {
		t.Errorf("at rest it was asked %d times", n)
	}
	a := ask(t, d, "POST", "/api/generate", `{"model":"mine","prompt":"Why?","options":{"num_predict":8}}`)
	lines := strings.Split(strings.TrimSpace(a.body), "\n")
	m := member(t, lines[len(lines)-1])
	if a.status != http.StatusOK || m["backend_used"] != "home" || m["tokens_generated"] == 0.0 || m["energy_quality"] != "none" || m["cost"] != nil {
		t.Errorf("%d %v", a.status, m)
	}
	for range 3 {
		if a := ask(t, d, "GET", "/joulemux/v1/models", ""); a.status != http.StatusOK || !strings.Contains(a.body, `"mine"`) {
			t.Errorf("the models are %d %s", a.status, a.body)
		}
	}
	if n := home.asks("/api/show"); n != 0 {
		t.Errorf("it is asked %d times about a model because somebody lists them", n)
	}
	if a := ask(t, d, "POST", "/api/embed", `{"model":"mine","input":"Why?"}`); a.status != http.StatusForbidden || !strings.Contains(a.body, "embeddings do only for the target that names it") {
		t.Errorf("an embedding: %d %s", a.status, a.body)
	}
}
