package metrics_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/metrics"
	"github.com/joulemux/joulemux/power"
)

// The formats that Prometheus asks for, and what it takes instead.
const (
	acceptText        = "text/plain;version=0.0.4"
	acceptOpenMetrics = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)

// scrape returns what a scraper with those headers gets.
func scrape(t testing.TB, m http.Handler, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	m.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("the answer is %d: %s", w.Code, w.Body)
	}
	return w
}

// families reads the text format as Prometheus' own library does.
func families(t testing.TB, text []byte) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return all
}

// ours returns what of a scrape is not of the process.
func ours(t testing.TB, m *metrics.Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	all := families(t, scrape(t, m).Body.Bytes())
	maps.DeleteFunc(all, func(name string, _ *dto.MetricFamily) bool { return !strings.HasPrefix(name, "joulemux_") })
	return all
}

// sum adds up the series of a family that have all those labels, as in
// "backend=npu": values of counters and gauges, and how many there are in
// histograms.
func sum(f *dto.MetricFamily, labels ...string) (all float64) {
	for _, m := range f.GetMetric() {
		has := make(map[string]bool)
		for _, l := range m.GetLabel() {
			has[l.GetName()+"="+l.GetValue()] = true
		}
		if !slices.ContainsFunc(labels, func(l string) bool { return !has[l] }) {
			all += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// attempt is one at a job, that went well unless failed.
func attempt(backend, name string, failed job.Code) *ledger.Entry {
	return &ledger.Entry{
		ID: backend + name, Backend: backend, Model: name, Class: job.Interactive, PromptTokens: 10, Tokens: 20, Failed: failed,
		Load: 300 * time.Millisecond,
		Cost: power.Cost{Energy: 1_250_000, Load: 500_000, Quality: power.Measured, Scope: "package"},
	}
}

// end is that of a job that was answered, unless failed.
func end(backend, name string, failed job.Code, fallbacks ...dispatch.Failure) *dispatch.End {
	e := &dispatch.End{
		Kind: job.Chat, Class: job.Interactive, Backend: backend, Model: name, Code: failed, Queued: 20 * time.Millisecond, Fallbacks: fallbacks,
	}
	if failed == "" {
		e.Report = &dispatch.Report{FirstToken: 700 * time.Millisecond, Total: 3 * time.Second}
	}
	return e
}

func TestWhatIsToldOfJobs(t *testing.T) {
	m := metrics.New()
	m.Attempted(attempt("npu", "a:latest", job.BackendFailed))
	m.Attempted(attempt("cpu", "a:latest", ""))
	m.Ended(end("cpu", "a:latest", "", dispatch.Failure{Backend: "npu", Err: job.Errorf(job.BackendFailed, "boom")}))
	m.Ended(end("", "", job.ModelNotFound))
	m.Unloaded("cpu")
	m.Tail("cpua:latest", 2*power.Joule)
	m.Tail("cpua:latest", 3*power.Joule)
	m.Tail("cpua:latest", 1*power.Joule) // less than before
	m.Tail("nobody's", 9*power.Joule)
	text, _, _ := strings.Cut(scrape(t, m).Body.String(), "# HELP go_")
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") && !strings.Contains(line, "_bucket{") {
			lines = append(lines, line)
		}
	}
	want := `joulemux_jobs_total{backend="cpu",model="a:latest",class="interactive",kind="chat",outcome="ok"} 1
joulemux_jobs_total{backend="",model="",class="interactive",kind="chat",outcome="model not found"} 1
joulemux_attempts_total{backend="npu",model="a:latest",class="interactive",quality="measured",outcome="backend failed"} 1
joulemux_attempts_total{backend="cpu",model="a:latest",class="interactive",quality="measured",outcome="ok"} 1
joulemux_prompt_tokens_total{backend="npu",model="a:latest",class="interactive"} 10
joulemux_prompt_tokens_total{backend="cpu",model="a:latest",class="interactive"} 10
joulemux_generated_tokens_total{backend="npu",model="a:latest",class="interactive"} 20
joulemux_generated_tokens_total{backend="cpu",model="a:latest",class="interactive"} 20
joulemux_energy_joules_total{backend="npu",model="a:latest",class="interactive",quality="measured"} 1.3
joulemux_energy_joules_total{backend="cpu",model="a:latest",class="interactive",quality="measured"} 1.3
joulemux_energy_load_joules_total{backend="npu",model="a:latest",class="interactive",quality="measured"} 0.5
joulemux_energy_load_joules_total{backend="cpu",model="a:latest",class="interactive",quality="measured"} 0.5
joulemux_energy_tail_joules_total{backend="npu",model="a:latest",class="interactive",quality="measured"} 0
joulemux_energy_tail_joules_total{backend="cpu",model="a:latest",class="interactive",quality="measured"} 3
joulemux_fallbacks_total{backend="npu",reason="backend failed"} 1
joulemux_model_unloads_total{backend="cpu"} 1
joulemux_job_duration_seconds_sum{backend="cpu",class="interactive"} 3.0
joulemux_job_duration_seconds_count{backend="cpu",class="interactive"} 1
joulemux_job_time_to_first_token_seconds_sum{backend="cpu",class="interactive"} 0.7
joulemux_job_time_to_first_token_seconds_count{backend="cpu",class="interactive"} 1
joulemux_job_queue_seconds_sum{backend="cpu",class="interactive"} 0.02
joulemux_job_queue_seconds_count{backend="cpu",class="interactive"} 1
joulemux_model_load_seconds_sum{backend="npu",class="interactive"} 0.3
joulemux_model_load_seconds_count{backend="npu",class="interactive"} 1
joulemux_model_load_seconds_sum{backend="cpu",class="interactive"} 0.3
joulemux_model_load_seconds_count{backend="cpu",class="interactive"} 1
`
	if got := strings.Join(lines, ""); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestUnknownIsNotZero(t *testing.T) {
	m := metrics.New(metrics.Figure{Name: "joulemux_x_watts", Help: "X.", Type: metrics.Gauge, Read: metrics.One(func() (float64, bool) { return 0, false })})
	for _, q := range []power.Quality{power.Unknown, "", power.None} {
		e := attempt("cpu", "a", "")
		e.Cost = power.Cost{Energy: power.Joule, Quality: q}
		m.Attempted(e)
	}
	all := ours(t, m)
	if all["joulemux_energy_joules_total"] != nil || all["joulemux_x_watts"] != nil {
		t.Errorf("what is not known is told: %v", all)
	}
	if got := all["joulemux_attempts_total"]; sum(got, "quality=unknown") != 2 || sum(got, "quality=none") != 1 {
		t.Errorf("the attempts are %v", got)
	}
}

func TestBucketsHoldWhatIsWithin(t *testing.T) {
	for took, want := range map[time.Duration]string{
		-time.Second: "0.05", 0: "0.05", 50 * time.Millisecond: "0.05", 51 * time.Millisecond: "0.1",
		time.Second: "1.0", 5 * time.Minute: "300.0", 5*time.Minute + 1: "+Inf", math.MaxInt64: "+Inf",
	} {
		m := metrics.New()
		e := end("cpu", "a", "")
		e.Report.Total = took
		m.Ended(e)
		text := scrape(t, m).Body.String()
		_, first, _ := strings.Cut(text, `joulemux_job_duration_seconds_bucket{backend="cpu",class="interactive",le="`+want+`"} `)
		if !strings.HasPrefix(first, "1\n") || strings.Count(text, `joulemux_job_duration_seconds_bucket{`) != 14 {
			t.Errorf("%v is not within %s:\n%s", took, want, text)
		}
		before, _, _ := strings.Cut(text, `le="`+want+`"} 1`)
		_, before, _ = strings.Cut(before, "# TYPE joulemux_job_duration_seconds ")
		if strings.Contains(before, "} 1\n") {
			t.Errorf("%v is within less than %s", took, want)
		}
	}
}

// busy returns metrics after any jobs, and what they came to.
func busy(seed uint64, jobs int) (m *metrics.Metrics, attempts, ended int, energy power.Energy) {
	r := rand.New(rand.NewPCG(seed, 0))
	codes := []job.Code{"", "", job.BackendFailed, job.Busy, job.Cancelled}
	figure := metrics.Figure{
		Name: "joulemux_backend_healthy", Help: "Whether.", Type: metrics.Gauge, Labels: []string{"backend"},
		Read: func(tell metrics.Tell) { tell(metrics.Truth(true), "cpu"); tell(metrics.Truth(false), "npu") },
	}
	m = metrics.New(figure)
	for range jobs {
		backend, name := strconv.Itoa(r.IntN(5)), strconv.Itoa(r.IntN(10))+`:"\`
		for range r.IntN(3) {
			e := attempt(backend, name, codes[r.IntN(len(codes))])
			e.Cost.Energy = power.Energy(r.Int64N(100_000_000))
			e.Cost.Quality = []power.Quality{power.Measured, power.Derived, power.Estimated}[r.IntN(3)]
			m.Attempted(e)
			attempts++
			energy += e.Cost.Energy
		}
		m.Ended(end(backend, name, codes[r.IntN(len(codes))]))
		ended++
	}
	return m, attempts, ended, energy
}

// TestEveryJobIsCountedOnce is a law: whatever comes, the families agree with what
// there was, and energy but for the tenth of a joule that each series is told to.
func TestEveryJobIsCountedOnce(t *testing.T) {
	for seed := range uint64(50) {
		m, attempts, ended, energy := busy(seed, 200)
		all := ours(t, m)
		joules := all["joulemux_energy_joules_total"]
		over := sum(joules) - energy.Joules()
		switch {
		case sum(all["joulemux_attempts_total"]) != float64(attempts), sum(all["joulemux_jobs_total"]) != float64(ended),
			sum(all["joulemux_job_queue_seconds"]) != float64(ended),
			sum(all["joulemux_job_duration_seconds"]) != sum(all["joulemux_jobs_total"], "outcome=ok"),
			sum(all["joulemux_generated_tokens_total"]) != float64(20*attempts):
			t.Errorf("seed %d: %d attempts, %d jobs, and %v", seed, attempts, ended, all)
		case over < -1e-6, over > 0.1*float64(len(joules.GetMetric())):
			t.Errorf("seed %d: %v J are told as %v", seed, energy.Joules(), sum(joules))
		}
	}
}

// TestBothFormatsSayTheSame has Prometheus' own library write in OpenMetrics what
// it has read in the text format, and compares that with ours.
func TestBothFormatsSayTheSame(t *testing.T) {
	m, _, _, _ := busy(1, 300)
	var want bytes.Buffer
	all := ours(t, m)
	encoder := expfmt.NewEncoder(&want, expfmt.FmtOpenMetrics_1_0_0)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := encoder.Encode(all[name]); err != nil {
			t.Fatal(err)
		}
	}
	answer := scrape(t, m, "Accept: "+acceptOpenMetrics)
	if kind := answer.Header().Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8") {
		t.Errorf("it is %q", kind)
	}
	text := answer.Body.String()
	if !strings.HasSuffix(text, "\n# EOF\n") || strings.Count(text, "# EOF") != 1 {
		t.Error("it does not end as it should")
	}
	text, _, _ = strings.Cut(text, "# HELP go_")
	got, ref := lines(t, text), lines(t, want.String())
	for _, l := range ref {
		if !slices.Contains(got, l) {
			t.Errorf("there is no line %s", l)
		}
	}
	if len(got) != len(ref) {
		t.Errorf("there are %d lines, want %d", len(got), len(ref))
	}
}

// lines returns the lines of a text, with labels in order and values as the
// numbers that they are.
func lines(t *testing.T, text string) (all []string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(line, "#") {
			at := strings.LastIndexByte(line, ' ')
			v, err := strconv.ParseFloat(line[at+1:], 64)
			if err != nil {
				t.Fatal(err)
			}
			if name, labels, has := strings.Cut(line[:at], "{"); has {
				list := strings.Split(strings.TrimSuffix(labels, "}"), ",")
				slices.Sort(list)
				line = name + "{" + strings.Join(list, ",") + "}"
			} else {
				line = name
			}
			line += " " + strconv.FormatFloat(v, 'g', -1, 64)
		}
		all = append(all, line)
	}
	slices.Sort(all)
	return all
}

func TestScrapersGetTheFormatThatTheyAskFor(t *testing.T) {
	m, _, _, _ := busy(1, 10)
	plain := len(scrape(t, m).Body.Bytes())
	for _, tt := range []struct{ accept, encoding, kind, encoded string }{
		{"", "", "text/plain; version=0.0.4", ""},
		{acceptText, "gzip", "text/plain; version=0.0.4", "gzip"},
		{"*/*", "identity", "text/plain; version=0.0.4", ""}, // see below
		{acceptOpenMetrics, "deflate, gzip;q=0.5", "application/openmetrics-text; version=1.0.0", "gzip"},
		{"application/openmetrics-text", "gzip;q=0", "application/openmetrics-text; version=0.0.1", ""},
		{"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "gzip; q=0.000, br", "text/plain; version=0.0.4", ""},
		{"nonsense;;;", "zstd", "text/plain; version=0.0.4", ""},
	} {
		answer := scrape(t, m, "Accept: "+tt.accept, "Accept-Encoding: "+tt.encoding)
		kind, encoded := answer.Header().Get("Content-Type"), answer.Header().Get("Content-Encoding")
		if tt.accept == "*/*" { // whatever it is, it is one of them
			kind = tt.kind
		}
		if !strings.HasPrefix(kind, tt.kind) || encoded != tt.encoded {
			t.Errorf("%q, %q: got %q, %q", tt.accept, tt.encoding, kind, encoded)
		}
		body := answer.Body.Bytes()
		if encoded == "gzip" {
			z, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if body, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if len(body) < plain/2 {
			t.Errorf("%q, %q: there are %d bytes of %d", tt.accept, tt.encoding, len(body), plain)
		}
	}
}

func TestWhatStaysOnThisMachineIsNotCompressed(t *testing.T) {
	m, _, _, _ := busy(1, 10)
	for from, want := range map[string]string{"127.0.0.1:4711": "", "[::1]:4711": "", "@": "", "192.0.2.1:4711": "gzip", "[2001:db8::1]:4711": "gzip"} {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.RemoteAddr = from
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		m.ServeHTTP(w, r)
		if got := w.Header().Get("Content-Encoding"); got != want {
			t.Errorf("what goes to %s is encoded %q, want %q", from, got, want)
		}
	}
}

func TestNothingIsToFindForALinter(t *testing.T) {
	m, _, _, _ := busy(1, 100)
	m.Ended(end("cpu", "a", "", dispatch.Failure{Backend: "npu", Err: job.Busy}))
	m.Unloaded("cpu")
	problems, err := promlint.New(scrape(t, m).Body).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

func TestThereIsAnEndToSeries(t *testing.T) {
	m := metrics.New()
	const models = 5000
	long := strings.Repeat("ü", 100)
	for n := range models {
		name := strconv.Itoa(n) + long
		m.Attempted(attempt("cpu", name, ""))
		m.Ended(end("cpu", name, ""))
		m.Ended(end(name, "a", ""))
	}
	for name, f := range ours(t, m) {
		if n := len(f.GetMetric()); n > 2001 {
			t.Errorf("%s has %d series", name, n)
		}
		for _, one := range f.GetMetric() {
			for _, l := range one.GetLabel() {
				if len(l.GetValue()) > 128 {
					t.Errorf("%s has a label of %d bytes", name, len(l.GetValue()))
				}
			}
		}
		want := float64(models)
		switch name {
		case "joulemux_jobs_total", "joulemux_job_duration_seconds", "joulemux_job_queue_seconds", "joulemux_job_time_to_first_token_seconds":
			want *= 2
		case "joulemux_attempts_total", "joulemux_model_load_seconds":
		default:
			continue
		}
		if sum(f) != want {
			t.Errorf("%s counts %v, want %v", name, sum(f), want)
		}
	}
}

// FuzzModel names models by anything: of each text there is one series, with the
// text as it is.
func FuzzModel(f *testing.F) {
	f.Add("llama3.2:1b")
	f.Add("a\"b\\c\nd{}= \x00é")
	f.Add("\xff\xfe" + strings.Repeat("é", 200))
	f.Fuzz(func(t *testing.T, name string) {
		m := metrics.New()
		m.Attempted(attempt("cpu", name, ""))
		m.Attempted(attempt("cpu", name, ""))
		got := ours(t, m)["joulemux_generated_tokens_total"]
		if len(got.GetMetric()) != 1 || sum(got) != 40 {
			t.Fatalf("of %q there is %v", name, got)
		}
		told := got.GetMetric()[0].GetLabel()[1].GetValue()
		if want := strings.ToValidUTF8(name, "?"); len(name) <= 128 && told != want || !strings.HasPrefix(want, strings.TrimRight(told, "?")) {
			t.Errorf("%q is told as %q", name, told)
		}
	})
}

func TestWhatIsToldOfJobsElsewhere(t *testing.T) {
	m := metrics.New()
	for _, currency := range []string{"EUR", "EUR", "USD", ""} {
		e := attempt("vendor", "a:latest", "")
		e.Cost = power.Cost{Quality: power.None, Radio: 3 * power.Joule}
		e.Price = job.Money{Nano: 270_000, Currency: currency}
		m.Attempted(e)
	}
	text := scrape(t, m).Body.String()
	for _, want := range []string{
		`joulemux_energy_radio_joules_total{backend="vendor",model="a:latest",class="interactive"} 12`,
		`joulemux_remote_cost_total{backend="vendor",model="a:latest",class="interactive",currency="EUR"} 0.00054`,
		`joulemux_remote_cost_total{backend="vendor",model="a:latest",class="interactive",currency="USD"} 0.00027`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("there is no %s", want)
		}
	}
	if strings.Contains(text, `currency=""`) || strings.Contains(text, "joulemux_energy_joules_total{") {
		t.Error("it tells of what there was none of")
	}
}
