package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	prometheus "github.com/prometheus/common/model"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/power/powertest"
)

// scraped is what Prometheus' own library reads in a scrape, by family.
type scraped map[string]*dto.MetricFamily

// scrape scrapes the daemon over its Unix socket.
func scrape(t *testing.T, d *daemontest.Daemon) scraped {
	t.Helper()
	return readMetrics(t, ask(t, d, "GET", "/metrics", ""))
}

func readMetrics(t *testing.T, a answer) scraped {
	t.Helper()
	parser := expfmt.NewTextParser(prometheus.UTF8Validation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(a.body))
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("%d, %v: %s", a.status, err, a.body)
	}
	return all
}

// sum adds up the series of a family that have all those labels, as in
// "backend=npu", and says how many they are.
func (s scraped) sum(name string, labels ...string) (all float64, series int) {
	for _, m := range s[name].GetMetric() {
		has := make(map[string]bool)
		for _, l := range m.GetLabel() {
			has[l.GetName()+"="+l.GetValue()] = true
		}
		fits := true
		for _, l := range labels {
			fits = fits && has[l]
		}
		if fits {
			all += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			series++
		}
	}
	return all, series
}

// expect complains if a sum is another.
func (s scraped) expect(t *testing.T, want float64, name string, labels ...string) {
	t.Helper()
	if got, _ := s.sum(name, labels...); got != want {
		t.Errorf("%s%v is %v, want %v", name, labels, got, want)
	}
}

// broken is a server that has the model "tiny", and fails every job.
func broken(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/api/version":
		_, _ = io.WriteString(w, `{"version":"0.17.4"}`)
	case "/api/tags", "/api/ps":
		_, _ = io.WriteString(w, `{"models":[{"name":"tiny:latest","model":"tiny:latest","size":7}]}`)
	default:
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `{"error":"out of order"}`)
	}
}

func TestMetricsAndTheLedgerAgree(t *testing.T) {
	gone := make(chan struct{}, 1)
	d := daemontest.Start(t, daemontest.Options{State: t.TempDir(), Config: fmt.Sprintf(`
backends:
  - {id: real, hardware: cpu, endpoint: %q}
  - {id: broken, hardware: npu, endpoint: "http://%s"}
  - {id: hanging, hardware: igpu, endpoint: "http://%s"}
`, realOllama(t), daemontest.Serve(t, http.HandlerFunc(broken)), daemontest.Serve(t, hanging(gone)))})
	const few = `"options":{"num_predict":4}`
	for _, q := range []struct {
		path, body string
		status     int
	}{
		{"/api/generate", `{"model":"tiny","prompt":"hi","stream":false,` + few + `,"joulemux":{"target":"real"}}`, 200},
		{"/api/chat", `{"model":"tiny","messages":[{"role":"user","content":"hi"}],` + few + `,"joulemux":{"target":"real","class":"background"}}`, 200},
		{"/api/embed", `{"model":"tiny","input":"hi","joulemux":{"target":"real"}}`, 200},
		{"/joulemux/v1/generate", `{"prompt":"hi","options":{"model":"tiny","target":"real","max_tokens":4}}`, 200},
		// The NPU takes the least, and fails.
		{"/api/generate", `{"model":"tiny","prompt":"hi",` + few + `,"joulemux":{"prefer_power_efficiency":true}}`, 200},
		{"/api/generate", `{"model":"tiny","prompt":"hi",` + few + `,"joulemux":{"target":"broken"}}`, 500},
		{"/api/generate", `{"model":"nobody-has-it","prompt":"hi"}`, 404},
		{"/api/generate", `{"model":"tiny","prompt":"hi","joulemux":{"max_power_watts":0.001}}`, 503},
		{"/api/generate", `{"model":"tiny","prompt":"hi","options":5}`, 400},
	} {
		if a := ask(t, d, "POST", q.path, q.body); a.status != q.status {
			t.Errorf("%s %s: %d %s", q.path, q.body, a.status, a.body)
		}
	}
	if err := dial(t, d.GRPCAddr).Invoke(t.Context(), computev1.ComputeServiceGenerateProcedure,
		&computev1.GenerateRequest{Prompt: "hi", Model: "tiny", Options: &computev1.GenerationOptions{MaxTokens: 4}, Annotations: &computev1.JobAnnotations{Target: "real"}}, new(computev1.GenerateResponse)); err != nil {
		t.Error(err)
	}
	peer := d.Bus.Connect(t)
	err := call(t, inference(peer), "Generate", "hi", options{
		"model": godbus.MakeVariant("tiny"), "target": godbus.MakeVariant("real"), "max_tokens": godbus.MakeVariant(int32(4)),
	}).Err
	if err != nil {
		t.Error(err)
	}
	leave(t, d, gone)

	var s scraped
	daemontest.Eventually(t, "every job in the metrics", func() bool {
		s = scrape(t, d)
		jobs, _ := s.sum("joulemux_jobs_total")
		return jobs >= 11
	})
	for outcome, n := range map[string]float64{
		"ok": 7, "backend failed": 1, "model not found": 1, "no backend": 1, "cancelled": 1,
	} {
		s.expect(t, n, "joulemux_jobs_total", "outcome="+outcome)
	}
	s.expect(t, 11, "joulemux_jobs_total")
	s.expect(t, 1, "joulemux_jobs_total", "class=background", "outcome=ok")
	s.expect(t, 1, "joulemux_jobs_total", "kind=embed", "outcome=ok", "model=tiny:latest")
	s.expect(t, 2, "joulemux_jobs_total", "backend=", "model=")
	s.expect(t, 1, "joulemux_fallbacks_total", "backend=broken", "reason=backend failed")
	s.expect(t, 7, "joulemux_job_duration_seconds")
	s.expect(t, 0, "joulemux_jobs_running")
	s.expect(t, 1, "joulemux_backend_up", "backend=real", "hardware=cpu")
	s.expect(t, 1, "joulemux_tier", "tier=mains")
	s.agree(t, d)
	lint(t, ask(t, d, "GET", "/metrics", "").body)
}

// leave has a job begin, and goes away.
func leave(t *testing.T, d *daemontest.Daemon, gone <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/api/generate", strings.NewReader(`{"model":"`+model+`","prompt":"hi"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := d.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = resp.Body.Read(make([]byte, 1))
	cancel()
	_ = resp.Body.Close()
	select {
	case <-gone:
	case <-time.After(daemontest.Patience):
		t.Error("the job goes on")
	}
}

// agree compares the metrics with what the ledger says of the same attempts:
// exactly, but for the tenth of a joule that each sum is told to.
func (s scraped) agree(t *testing.T, d *daemontest.Daemon) {
	t.Helper()
	var e wire.Energy
	decode(t, ask(t, d, "GET", "/joulemux/v1/energy?by=backend", ""), &e)
	if len(e.Totals) != 3 {
		t.Errorf("the ledger has %d backends", len(e.Totals))
	}
	for _, total := range e.Totals {
		at := "backend=" + total.Key
		s.expect(t, float64(total.Jobs), "joulemux_attempts_total", at)
		well, _ := s.sum("joulemux_attempts_total", at, "outcome=ok")
		if well != float64(total.Jobs-total.Failed) {
			t.Errorf("%v attempts at %s went well, and %d of %d failed", well, total.Key, total.Failed, total.Jobs)
		}
		s.expect(t, float64(total.PromptTokens), "joulemux_prompt_tokens_total", at)
		s.expect(t, float64(total.Tokens), "joulemux_generated_tokens_total", at)
		for quality, sum := range map[string]wire.EnergySum{"measured": total.Measured, "derived": total.Derived, "estimated": total.Estimated} {
			s.expect(t, float64(sum.Jobs), "joulemux_attempts_total", at, "quality="+quality)
			for name, joules := range map[string]float64{
				"joulemux_energy_joules_total": sum.Joules, "joulemux_energy_load_joules_total": sum.LoadJoules, "joulemux_energy_tail_joules_total": sum.TailJoules,
			} {
				got, series := s.sum(name, at, "quality="+quality)
				if got < joules-0.1 || got > joules+0.1*float64(series) {
					t.Errorf("%s of %s, %s: %v J, and %v J in the ledger", name, total.Key, quality, got, joules)
				}
			}
		}
	}
}

func lint(t *testing.T, text string) {
	t.Helper()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "joulemux_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	if err != nil {
		t.Error(err)
	}
}

func TestMetricsOfMeasuredJobsAgreeToo(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{
		State: t.TempDir(), Sys: newDrawing(),
		Config: backends(map[string]string{"igpu": daemontest.Serve(t, http.HandlerFunc(unhurried))}),
	})
	for range 2 {
		ask(t, d, "POST", "/api/chat", conversation)
	}
	s := scrape(t, d)
	s.expect(t, 2, "joulemux_attempts_total", "quality=measured", "outcome=ok")
	if joules, _ := s.sum("joulemux_energy_joules_total", "quality=measured"); joules <= 0 {
		t.Errorf("two jobs at 20 W take %v J", joules)
	}
	// What comes after the last token is known two seconds later.
	daemontest.Eventually(t, "the tail in the metrics", func() bool {
		s = scrape(t, d)
		_, series := s.sum("joulemux_energy_tail_joules_total", "quality=measured")
		return series == 1
	})
	scraped{"joulemux_attempts_total": s["joulemux_attempts_total"]}.expect(t, 2, "joulemux_attempts_total")
}

// noted notes what is opened.
type noted struct {
	fs.FS
	mu     sync.Mutex
	opened []string
}

// Open implements fs.FS.
func (n *noted) Open(name string) (fs.File, error) {
	n.mu.Lock()
	n.opened = append(n.opened, name)
	n.mu.Unlock()
	return n.FS.Open(name)
}

// since returns what was opened since it was last asked.
func (n *noted) since() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer func() { n.opened = nil }()
	return n.opened
}

func TestScrapingWakesNothing(t *testing.T) {
	sys := &noted{FS: powertest.Load(t, "optimus").Sys()}
	var mu sync.Mutex
	asked := 0
	canned := daemontest.CannedOllama()
	counting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked++
		mu.Unlock()
		canned.ServeHTTP(w, r)
	})
	d := daemontest.Start(t, daemontest.Options{Sys: sys, Config: backends(map[string]string{"nvidia": daemontest.Serve(t, counting)})})
	ask(t, d, "GET", "/backends", "")
	before := levels(t, d)
	sys.since()
	mu.Lock()
	asked = 0
	mu.Unlock()

	first := scrape(t, d)
	for range 20 {
		scrape(t, d)
	}
	mu.Lock()
	if asked > 0 {
		t.Errorf("the server is asked %d times", asked)
	}
	mu.Unlock()
	const gpu = "bus/pci/devices/0000:01:00.0/"
	looks := 0
	for _, name := range sys.since() {
		if !strings.HasPrefix(name, "bus/pci/") || powertest.Disturbs("/sys/"+name) {
			t.Errorf("a scrape opens %s", name)
		}
		if name == gpu+"power/runtime_status" {
			looks++
		}
	}
	if looks == 0 {
		t.Error("it never looks whether the GPU sleeps")
	}
	first.expect(t, 1, "joulemux_device_asleep", "device=0000:01:00.0", "vendor=nvidia", "kind=display")
	if seconds, series := first.sum("joulemux_device_asleep_seconds_total", "device=0000:01:00.0"); seconds <= 0 || series != 1 {
		t.Errorf("the GPU has slept for %v s", seconds)
	}
	if first["joulemux_battery_draw_watts"] != nil {
		t.Error("what the battery gives is told, and nobody knows it")
	}
	d.Client().CloseIdleConnections()
	d.Settle(before) // no goroutine, no descriptor
}

func TestMetricsAreForWhoeverTheDoorLetsIn(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	a, err := request(t, briefly(), "GET", "http://"+d.Addr+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	s := readMetrics(t, a)
	for _, name := range []string{"joulemux_build_info", "go_goroutines", "process_resident_memory_bytes"} {
		if s[name] == nil {
			t.Errorf("there is no %s", name)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+d.Addr+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example.com"
	resp, err := briefly().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusForbidden || bytes.Contains(body, []byte("joulemux_")) {
		t.Errorf("a page that has made its name point here gets %d %s, %v", resp.StatusCode, body, err)
	}
	if a := ask(t, d, "POST", "/metrics", ""); a.status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d %s", a.status, a.body)
	}
}

func TestMetricsGoOnWithoutAConfiguration(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: "backends: 5\n"})
	if a := ask(t, d, "POST", "/api/generate", generate); a.status == http.StatusOK {
		t.Errorf("%d: %s", a.status, a.body)
	}
	s := scrape(t, d)
	s.expect(t, 0, "joulemux_jobs_running")
	s.expect(t, 1, "joulemux_build_info", "version=0-test")
}
