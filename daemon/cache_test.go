package daemon_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/packaging/rig"
	"github.com/joulemux/joulemux/packaging/rig/rigtest"
)

// fromCache reports whether an answer over HTTP was given before.
func (a answer) fromCache() bool { return a.header.Get("X-From-Cache") == "true" }

func TestRealAnswersAreGivenAgainOnEveryWire(t *testing.T) {
	server := rigtest.Ollama(t)
	there, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	config := backends(map[string]string{"cpu": there.Host})
	d := daemontest.Start(t, daemontest.Options{Config: config})

	for _, c := range []struct{ path, body string }{
		{"/api/chat", `{"model":"tiny","messages":[{"role":"user","content":"hi"}],"options":{"temperature":0,"num_predict":8},"joulemux":false}`},
		{"/api/generate", `{"model":"tiny","prompt":"hi","stream":false,"options":{"seed":7,"num_predict":8}}`},
		{"/api/embed", `{"model":"tiny","input":["hi","ho"]}`},
	} {
		first, second := ask(t, d, "POST", c.path, c.body), ask(t, d, "POST", c.path, c.body)
		if first.status != http.StatusOK || first.fromCache() || !second.fromCache() || first.body != second.body || second.header.Get("X-Backend-Used") != "ollama-cpu" {
			t.Errorf("%s: %d %q, then %q, %v", c.path, first.status, first.body, second.body, second.header)
		}
	}

	// One client over three wires, of which each has words of its own for it.
	text := native(t, d, false)
	if again := native(t, d, true); again != text {
		t.Errorf("%q becomes %q", text, again)
	}
	a := new(computev1.GenerateResponse)
	err = dial(t, "unix:"+d.Socket).Invoke(t.Context(), computev1.ComputeServiceGenerateProcedure, &computev1.GenerateRequest{
		Prompt: "Why?", Model: "tiny", Options: &computev1.GenerationOptions{Greedy: true, MaxTokens: 8},
	}, a)
	if err != nil || !a.FromCache || a.Response != text || a.Stats.EnergyQuality != "none" {
		t.Errorf("over gRPC: %v, %v", a, err)
	}
	var said string
	var info options
	err = call(t, inference(d.Bus.Connect(t)), "Generate", "Why?", options{
		"model": godbus.MakeVariant("tiny"), "temperature": godbus.MakeVariant(0.0), "max_tokens": godbus.MakeVariant(8),
	}).Store(&said, &info)
	if err != nil || said != text || info["from_cache"].Value() != true || info["energy_wh"].Value() != 0.0 {
		t.Errorf("over D-Bus: %q, %v, %v", said, info, err)
	}

	var energy wire.Energy
	if err := json.Unmarshal([]byte(ask(t, d, "GET", "/joulemux/v1/energy", "").body), &energy); err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%+v", energy); !strings.Contains(text, "(cache)") {
		t.Errorf("the ledger has %s", text)
	}

	replaceModel(t, d, server)

	whole := `{"model":"tiny","prompt":"once more","stream":false,"options":{"temperature":0,"num_predict":8}}`
	first := ask(t, d, "POST", "/api/generate", whole)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	<-server.Done()
	if a := ask(t, d, "POST", "/api/generate", whole); !a.fromCache() || a.body != first.body {
		t.Errorf("without the server: %d %s", a.status, a.body)
	}
	d.Configure(config + "cache: {size_mib: 0}\n")
	d.Reload()
	d.Await("the configuration has changed")
	if a := ask(t, d, "POST", "/api/generate", whole); a.fromCache() || a.status == http.StatusOK {
		t.Errorf("without the cache: %d %s", a.status, a.body)
	}
}

// native asks over our own API, and returns the text.
func native(t *testing.T, d *daemontest.Daemon, cached bool) (text string) {
	t.Helper()
	a := ask(t, d, "POST", "/joulemux/v1/generate", `{"prompt":"Why?","options":{"model":"tiny","temperature":0,"max_tokens":8}}`)
	var last wire.Event
	for line := range strings.Lines(a.body) {
		last = wire.Event{}
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Fatal(err)
		}
		text += last.Text
	}
	if last.End["from_cache"] != cached || a.fromCache() != cached {
		t.Errorf("the end is %v, want one from the cache: %v", last.End, cached)
	}
	return text
}

// replaceModel gives the model's name to another, and waits until what was
// answered is gone.
func replaceModel(t *testing.T, d *daemontest.Daemon, server *rig.Ollama) {
	t.Helper()
	const body = `{"model":"tiny","prompt":"hi","stream":false,"options":{"seed":7,"num_predict":8}}`
	if !ask(t, d, "POST", "/api/generate", body).fromCache() {
		t.Fatal("what was answered is gone too early")
	}
	a, err := request(t, briefly(), "POST", server.URL()+"/api/create", strings.NewReader(`{"model":"tiny","from":"tiny","system":"Be brief.","stream":false}`))
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("%v, %v", a, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), daemontest.Patience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for ask(t, d, "POST", "/api/generate", body).fromCache() {
		select {
		case <-tick.C:
			ask(t, d, "GET", "/backends", "") // whoever looks has the servers asked
		case <-ctx.Done():
			t.Fatal("the answers of a model that is gone are given")
		}
	}
	if !ask(t, d, "POST", "/api/generate", body).fromCache() {
		t.Error("the new model's answer is not kept")
	}
}

func TestMetricsCountWhatIsGivenAgain(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	body := `{"model":"` + model + `","prompt":"Why?","stream":false,"options":{"seed":1}}`
	for range 3 {
		if a := ask(t, d, "POST", "/api/generate", body); a.status != http.StatusOK {
			t.Fatalf("%d: %s", a.status, a.body)
		}
	}
	told := ask(t, d, "GET", "/metrics", "").body
	for _, want := range []string{
		`joulemux_cache_jobs_total{outcome="hit"} 2`, `joulemux_cache_jobs_total{outcome="miss"} 1`,
		`joulemux_cache_jobs_total{outcome="joined"} 0`, "joulemux_cache_entries 1", `backend="(cache)"`,
	} {
		if !strings.Contains(told, want) {
			t.Errorf("there is no %s", want)
		}
	}
}
