package dbus

import (
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/backend/ollama"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
)

// idleOllama is a server that has a model, and is to be asked for no more than
// to say so.
func idleOllama(t *testing.T) url.URL {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/api/version":
			_, _ = io.WriteString(w, `{"version":"0.17.4"}`)
		case "/api/tags", "/api/ps":
			_, _ = io.WriteString(w, `{"models":[{"name":"m:latest","model":"m:latest","digest":"d","size":7}]}`)
		default:
			t.Errorf("a backend gets %s %s", q.Method, q.URL.Path)
		}
	}))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return *u
}

// explainingRig is one whose explanations are of a real dispatcher, which has
// an NPU, an integrated and a discrete GPU.
func explainingRig(t *testing.T) *rig {
	t.Helper()
	return newRig(t, func(r *rig) {
		set := backend.New(func(s backend.Spec) backend.Server { return ollama.New(&s.Endpoint) },
			func(s backend.Spec, _ job.Facts) power.DeviceClass { return s.Class }, r.Log)
		t.Cleanup(set.Close)
		var specs []backend.Spec
		for id, class := range map[string]power.DeviceClass{"npu": power.NPU, "igpu": power.IntegratedGPU, "nvidia": power.NVIDIA} {
			specs = append(specs, backend.Spec{ID: "ollama-" + id, Type: "ollama", Class: class, Endpoint: idleOllama(t)})
		}
		set.Configure(specs)
		d := dispatch.New(dispatch.Parts{
			Tiers: r.tiers, Backends: set, Meter: meter.New(meter.Options{}), Ledger: ledger.New("", ledger.DefaultKeep(), r.Log), Log: r.Log,
		}, dispatch.DefaultSettings())
		background(t, d.Drive)
		r.Backends, r.Explainer = set, d
	})
}

// explain asks what would become of a job.
func (r *rig) explain(t *testing.T, asked options) (decision options, backends []options) {
	t.Helper()
	err := inferenceOf(r.bus.Connect(t)).Call(InferenceName+".Explain", 0, "Why is the sky blue?", asked).Store(&decision, &backends)
	if err != nil {
		t.Fatalf("%v: %v", asked, err)
	}
	return decision, backends
}

func TestExplain(t *testing.T) {
	r := explainingRig(t)
	decision, backends := r.explain(t, options{"max_tokens": option(10)})
	for name, want := range map[string]any{
		"backend_used": "ollama-igpu", "hardware": "igpu", "model": "m:latest", "tier": "battery", "waits": false, "second_watts": 15.0,
		"prompt_tokens": int32(5), "median_tokens": int32(10), "lengths_learned": false, "estimate_quality": "estimated", "error": nil,
	} {
		if got := decision[name].Value(); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if len(backends) != 3 {
		t.Fatalf("there are %v", backends)
	}
	for i, want := range []struct {
		id, verdict string
		fit         bool
	}{
		{"ollama-igpu", "least cost", true},
		{"ollama-npu", "costs ", true},
		{"ollama-nvidia", "a discrete GPU runs on tier battery only what is in time nowhere else, latency-critical jobs, or when named", false},
	} {
		b := backends[i]
		number := func(name string) float64 { f, _ := b[name].Value().(float64); return f }
		if b["id"].Value() != want.id || b["fit"].Value() != want.fit || !strings.HasPrefix(b["verdict"].Value().(string), want.verdict) {
			t.Errorf("got %v, want %+v", b, want)
		}
		sum := number("load_joules") + number("work_joules") + number("tail_joules")
		if math.Abs(sum-number("energy_joules")) > 1e-9 || sum == 0 || number("joules_per_token") == 0 || number("cost_joules") <= sum {
			t.Errorf("of %s the parts come to %v J: %v", want.id, sum, b)
		}
	}
	if n := r.runner.count(); n != 0 {
		t.Errorf("%d jobs came", n)
	}
}

func TestExplainSupposesATier(t *testing.T) {
	r := explainingRig(t)
	for tier, want := range map[string]any{"mains": "ollama-nvidia", "low": "ollama-npu", "unknown": "ollama-nvidia"} {
		decision, _ := r.explain(t, options{"tier": option(option(tier)), "max_tokens": option(10)})
		if decision["tier"].Value() != tier || decision["backend_used"].Value() != want {
			t.Errorf("on %s: %v, want %v", tier, decision, want)
		}
	}
	if d, _ := r.explain(t, options{"latency_critical": option(true)}); d["second_watts"].Value() != math.Inf(1) {
		t.Errorf("to who is in a hurry a second is worth %v", d["second_watts"])
	}
	background := options{"class": option("background"), "tier": option("low")}
	if d, _ := r.explain(t, background); d["waits"].Value() != true {
		t.Errorf("a background job does not wait: %v", d)
	}
	background["tier"] = option("critical")
	d, backends := r.explain(t, background)
	if d["error_name"].Value() != ownErrors+"PowerPolicy" || d["error"].Value() != "power policy: background jobs are refused on tier critical" || len(backends) != 3 {
		t.Errorf("it is refused with %v", d)
	}
	if _, told := d["backend_used"]; told {
		t.Errorf("and yet goes to %v", d["backend_used"])
	}
}

func TestWhatExplainRefuses(t *testing.T) {
	r := explainingRig(t)
	inference := inferenceOf(r.bus.Connect(t))
	for _, c := range []struct {
		rule, prompt string
		options      options
		says         string
	}{
		{"an empty prompt", "", options{}, "prompt: is empty"},
		{"a tier that there is not", "x", options{"tier": option("turbo")}, `tier: "turbo" is none of`},
		{"a number for a tier", "x", options{"tier": option(5)}, "tier: want a string (s), got i"},
		{"an unknown option", "x", options{"max_token": option(5)}, `did you mean "max_tokens"?`},
	} {
		expectError(t, c.rule, inference.Call(InferenceName+".Explain", 0, c.prompt, c.options).Err, bus.InvalidArgs, c.says)
	}
	expectError(t, "a tier for Generate", inference.Call(InferenceName+".Generate", 0, "x", options{"tier": option("low")}).Err, bus.InvalidArgs, "tier: no such option")
}

func TestBusctlExplains(t *testing.T) {
	r := explainingRig(t)
	out := r.client(t, "busctl", "--user", "--no-pager", "call", InferenceName, string(inferencePath), InferenceName,
		"Explain", "sa{sv}", "Why?", "2", "tier", "s", "mains", "max_tokens", "i", "10")
	expectAll(t, out, "a{sv}aa{sv} ", `"backend_used" s "ollama-nvidia"`, `"second_watts" d 100`, `"id" s "ollama-npu"`, `"verdict" s "costs `)
}
