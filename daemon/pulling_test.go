package daemon_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/dbus"
	"github.com/joulemux/joulemux/dbus/dbustest"
	"github.com/joulemux/joulemux/packaging/rig"
	"github.com/joulemux/joulemux/packaging/rig/rigtest"
)

// fetching is a real Ollama without models, and a stub of a registry with one.
type fetching struct {
	*daemontest.StubRegistry
	config string
}

// startFetching starts both. The model has a licence of so many bytes for each
// nine of its weights.
func startFetching(t *testing.T) *fetching {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a real Ollama")
	}
	path, err := rig.TinyModel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	weights, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := &fetching{StubRegistry: daemontest.ServeRegistry(t,
		daemontest.Layer{Type: daemontest.ModelLayer, Bytes: weights},
		daemontest.Layer{Type: daemontest.LicenseLayer, Bytes: []byte(strings.Repeat("You may. ", len(weights)/9/9))},
	)}
	ollama := rigtest.EmptyOllama(t, "SSL_CERT_FILE="+f.Certificate)
	f.config = backends(map[string]string{"cpu": strings.TrimPrefix(ollama.URL(), "http://")})
	return f
}

// fetchModel asks for a model, tells each of what is heard of it, and returns the last.
func fetchModel(t *testing.T, d *daemontest.Daemon, body string, each func(wire.Event)) (status int, last wire.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*daemontest.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/joulemux/v1/pull", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := d.Client().Do(req)
	if err != nil {
		t.Error(err)
		return 0, last
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		last.Error = new(wire.Error)
		_ = json.NewDecoder(resp.Body).Decode(last.Error)
		return resp.StatusCode, last
	}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		last = wire.Event{}
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
			t.Error(err)
		}
		if each != nil {
			each(last)
		}
	}
	return resp.StatusCode, last
}

// auto is a configuration by which jobs have models fetched from the stub.
func (f *fetching) auto() string {
	host, _, _ := strings.Cut(f.Name("x"), "/")
	return fmt.Sprintf("models: {auto_pull: on, pull: {registries: [%q]}}\n", host)
}

func order(name string) string { return fmt.Sprintf(`{"model":%q}`, name) }

// answers reports whether a model answers a job.
func answers(t *testing.T, d *daemontest.Daemon, name string) {
	t.Helper()
	a := ask(t, d, "POST", "/api/generate", fmt.Sprintf(`{"model":%q,"prompt":"Why?","stream":false,"options":{"num_predict":4}}`, name))
	if a.status != http.StatusOK || !strings.Contains(a.body, `"response":"`) {
		t.Errorf("a job is answered %d: %s", a.status, a.body)
	}
}

func TestTwoWhoWantAModelHaveItPulledOnceAndThenItAnswers(t *testing.T) {
	f := startFetching(t)
	began, second := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f.Hold = func(string, int64) bool {
		once.Do(func() { close(began) })
		<-second
		return true
	}
	d := daemontest.Start(t, daemontest.Options{Config: f.config})
	var both sync.WaitGroup
	for i := range 2 {
		both.Go(func() {
			if i == 1 {
				receive(t, began)
			}
			status, last := fetchModel(t, d, order(f.Name("latest")), func(e wire.Event) {
				if i == 1 {
					once.Do(func() {})
					select {
					case <-second:
					default:
						close(second)
					}
				}
			})
			if status != http.StatusOK || last.End["bytes"] != float64(f.Size) || last.End["backend"] != "ollama-cpu" {
				t.Errorf("%d, %+v", status, last)
			}
		})
	}
	both.Wait()
	if manifests, sent := f.Asked(); manifests != 1 || sent != f.Size {
		t.Errorf("it was begun %d times, and %d of %d bytes were sent", manifests, sent, f.Size)
	}
	answers(t, d, f.Name("latest"))
	var list wire.Models
	if err := json.Unmarshal([]byte(ask(t, d, "GET", "/joulemux/v1/models", "").body), &list); err != nil || len(list.Models) != 1 {
		t.Fatalf("listed are %+v, %v", list, err)
	}
	m := list.Models[0]
	if m.Quantisation != "F32" || m.Family != "llama" || m.Parameters != "120K" || m.MaxContext != 8192 || !slices.Contains(m.Abilities, "completion") ||
		len(m.Digest) != 64 || !slices.Equal(m.Resident, []string{"ollama-cpu"}) || len(m.Fits) != 1 || m.Fits[0].Verdict != "fits" {
		t.Errorf("it is %+v", m)
	}
}

func TestPullGoesOnAfterACut(t *testing.T) {
	f := startFetching(t)
	var cut atomic.Bool
	f.Hold = func(_ string, written int64) bool { return written < 200_000 || cut.Swap(true) }
	d := daemontest.Start(t, daemontest.Options{Config: f.config})
	if status, last := fetchModel(t, d, order(f.Name("cut")), nil); status != http.StatusOK || last.End == nil {
		t.Fatalf("%d, %+v", status, last)
	}
	if _, sent := f.Asked(); !cut.Load() || sent != f.Size {
		t.Errorf("%d bytes were sent for %d", sent, f.Size)
	}
	answers(t, d, f.Name("cut"))
}

func TestPullThatFailsAt90PercentSaysSoOnEveryWire(t *testing.T) {
	f := startFetching(t)
	var none atomic.Bool
	f.Manifest = func(w http.ResponseWriter, r *http.Request) bool {
		if none.Load() {
			http.NotFound(w, r)
		}
		return none.Load()
	}
	heard := make(chan struct{})
	// What the registry says of the licence has Ollama give up.
	f.Blob = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead || !f.Is(r.URL.Path, daemontest.LicenseLayer) {
			return false
		}
		<-heard
		http.Redirect(w, r, "https://localhost/gone", http.StatusSeeOther)
		return true
	}
	d := daemontest.Start(t, daemontest.Options{Config: f.config + f.auto()})
	const says = "ollama-cpu: unexpected status code 303, at 90 % of "
	var once sync.Once
	status, last := fetchModel(t, d, order(f.Name("gone")), func(e wire.Event) {
		if e.Pull != nil && e.Pull.TotalBytes > e.Pull.CompletedBytes && e.Pull.CompletedBytes > 400_000 {
			once.Do(func() { close(heard) })
		}
	})
	if status != http.StatusOK || last.Error == nil || last.Error.Code != wire.CodeBackendFailed || !strings.Contains(last.Error.Text, says) {
		t.Errorf("our own: %d, %+v", status, last.Error)
	}
	if a := ask(t, d, "POST", "/api/pull", order(f.Name("gone"))); !strings.Contains(a.body, "unexpected status code 303") || !strings.Contains(a.body, `"code":"backend_failed"`) {
		t.Errorf("Ollama's: %d: %s", a.status, a.body)
	}
	err := pullOverBus(t, d, f.Name("gone"), nil)
	var e godbus.Error
	if !errors.As(err, &e) || e.Name != "io.github.joulemux.Error.BackendFailed" || !strings.Contains(err.Error(), "unexpected status code 303") {
		t.Errorf("D-Bus: %v", err)
	}
	none.Store(true)
	if status, last := fetchModel(t, d, order(f.Name("none")), nil); last.Error == nil || last.Error.Code != wire.CodeModelNotFound {
		t.Errorf("a model that is not there: %d, %+v", status, last)
	}
}

// pullOverBus has a model pulled over D-Bus.
func pullOverBus(t *testing.T, d *daemontest.Daemon, name string, options map[string]godbus.Variant) error {
	t.Helper()
	peer := d.Bus.Connect(t)
	return peer.Object(dbus.RouterName, "/io/github/joulemux/Router1").Call(dbus.RouterName+".Pull", 0, name, options).Err
}

func TestPullWaitsForLinePower(t *testing.T) {
	f := startFetching(t)
	m, address := startMachine(t)
	half, release := make(chan struct{}, 1), make(chan struct{})
	f.Hold = func(_ string, written int64) bool {
		if written != 40*4096 {
			return true
		}
		select {
		case half <- struct{}{}:
		default:
		}
		<-release
		return true
	}
	defer func() {
		select {
		case <-release:
		default:
			close(release)
		}
	}()
	d := daemontest.Start(t, daemontest.Options{
		SystemBus: address, Sys: os.DirFS(m.SysDir()), Config: "thresholds: {steady_line_seconds: 0}\n" + f.config,
	})
	daemontest.Eventually(t, "tier battery at the start", func() bool { return status(t, d).Tier == "battery" })
	if status, last := fetchModel(t, d, order(f.Name("power")), nil); status != http.StatusConflict || last.Error.Code != wire.CodePowerPolicy || !strings.Contains(last.Error.Text, "on battery") {
		t.Fatalf("on battery: %d, %+v", status, last.Error)
	}
	if err := m.Plug(); err != nil {
		t.Fatal(err)
	}
	daemontest.Eventually(t, "line power", func() bool { return status(t, d).Tier == "mains" })
	var states []string
	paused, done := make(chan struct{}), make(chan wire.Event, 1)
	go func() {
		_, last := fetchModel(t, d, order(f.Name("power")), func(e wire.Event) {
			if e.Pull == nil || len(states) > 0 && states[len(states)-1] == e.Pull.State {
				return
			}
			states = append(states, e.Pull.State)
			if e.Pull.State == "paused" {
				close(paused)
			}
		})
		done <- last
	}()
	receive(t, half)
	if err := m.Unplug(); err != nil {
		t.Fatal(err)
	}
	receive(t, paused)
	if err := m.Plug(); err != nil {
		t.Fatal(err)
	}
	close(release)
	if last := receive(t, done); last.End == nil || last.End["bytes"] != float64(f.Size) {
		t.Errorf("it ended in %+v", last)
	}
	if got := strings.Join(states, " "); got != "pulling paused pulling" {
		t.Errorf("it was %s", got)
	}
	// What was on its way when it was cut is sent again.
	if manifests, sent := f.Asked(); manifests != 2 || sent > f.Size+64<<10 {
		t.Errorf("begun %d times, %d bytes sent for %d", manifests, sent, f.Size)
	}
	answers(t, d, f.Name("power"))
}

func TestNothingIsPulledWhereSomebodyPaysForIt(t *testing.T) {
	f := startFetching(t)
	system := dbustest.Start(t)
	manager := system.Connect(t)
	metered := func(v uint32) map[string]any { return map[string]any{"Metered": v} }
	const name, path = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
	manager.Serve(path, func(string) map[string]any { return metered(3) }) // it guesses so
	manager.Own(name)
	d := daemontest.Start(t, daemontest.Options{Config: f.config, SystemBus: system.Address()})
	if status, last := fetchModel(t, d, order(f.Name("metered")), nil); status != http.StatusConflict || !strings.Contains(last.Error.Text, "metered") {
		t.Errorf("%d, %+v", status, last.Error)
	}
	if manifests, _ := f.Asked(); manifests != 0 {
		t.Error("the registry was asked")
	}
	d.Configure(f.config + "models: {pull: {on_metered: true}}\n")
	d.Await("the configuration has changed")
	if status, last := fetchModel(t, d, order(f.Name("metered")), nil); status != http.StatusOK || last.End == nil {
		t.Errorf("by configuration: %d, %+v", status, last.Error)
	}
}

func TestAJobHasItsModelPulled(t *testing.T) {
	f := startFetching(t)
	d := daemontest.Start(t, daemontest.Options{Config: f.config})
	body := fmt.Sprintf(`{"model":%q,"prompt":"Why?","stream":false,"options":{"num_predict":4}}`, f.Name("job"))
	if a := ask(t, d, "POST", "/api/generate", body); a.status != http.StatusNotFound || strings.Contains(a.body, "joulemux pull") {
		t.Errorf("by default: %d: %s", a.status, a.body)
	}
	d.Configure(f.config + "models: {auto_pull: ask}\n")
	daemontest.Eventually(t, "the answer says how to fetch it", func() bool {
		a := ask(t, d, "POST", "/api/generate", body)
		return a.status == http.StatusNotFound && strings.Contains(a.body, "joulemux pull "+f.Name("job"))
	})
	if manifests, _ := f.Asked(); manifests != 0 {
		t.Error("the registry was asked")
	}
	d.Configure(f.config + "models: {auto_pull: on}\n")
	daemontest.Eventually(t, "its registry is none of those that are named", func() bool {
		a := ask(t, d, "POST", "/api/generate", body)
		return a.status == http.StatusNotFound && strings.Contains(a.body, "models.pull.registries")
	})
	if manifests, _ := f.Asked(); manifests != 0 {
		t.Error("the registry was asked")
	}
	d.Configure(f.config + f.auto())
	daemontest.Eventually(t, "clients may have models fetched", func() bool {
		return ask(t, d, "POST", "/api/generate", body).status == http.StatusOK
	})
	answers(t, d, f.Name("job"))
	if manifests, _ := f.Asked(); manifests != 1 {
		t.Errorf("it was pulled %d times", manifests)
	}
	a := ask(t, d, "POST", "/joulemux/v1/generate", fmt.Sprintf(`{"prompt":"Why?","options":{"model":%q,"max_tokens":4}}`, f.Name("other")))
	if !strings.Contains(a.body, `{"pull":{"model"`) || !strings.Contains(a.body, `{"end":`) {
		t.Errorf("in our own dialect: %s", a.body)
	}
}
