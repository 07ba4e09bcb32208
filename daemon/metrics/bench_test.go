package metrics_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/metrics"
)

// seriesOf returns metrics with so many series.
func seriesOf(b *testing.B, most int) *metrics.Metrics {
	b.Helper()
	m := metrics.New()
	for n := 0; count(b, m) < most; n++ {
		for range 20 {
			name := fmt.Sprintf("model-%d:latest", n)
			m.Attempted(attempt("ollama-"+strconv.Itoa(n%20), name, ""))
			m.Ended(end("ollama-"+strconv.Itoa(n%20), name, ""))
			n++
		}
	}
	return m
}

// count returns how many lines with values there are.
func count(b *testing.B, m *metrics.Metrics) (n int) {
	b.Helper()
	newline := true
	for _, c := range scrape(b, m).Body.Bytes() {
		if newline && c != '#' {
			n++
		}
		newline = c == '\n'
	}
	return n
}

// discard is a client that takes everything.
type discard struct{ header http.Header }

func (d discard) Header() http.Header       { return d.header }
func (discard) WriteHeader(int)             {}
func (discard) Write(p []byte) (int, error) { return len(p), nil }

// processorTime begins to measure what a benchmark takes of processors, which is
// the same on a machine that has other work.
func processorTime(b *testing.B) (end func()) {
	b.Helper()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

// BenchmarkScrape is /metrics with 10 000 series, and what client_golang takes for
// as many counters in the same process.
func BenchmarkScrape(b *testing.B) {
	m := seriesOf(b, 10_000)
	registry := prometheus.NewRegistry()
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "a_total", Help: "A."}, []string{"backend", "model", "class", "quality"})
	registry.MustRegister(vec)
	for n := range 10_000 {
		vec.WithLabelValues("ollama-"+strconv.Itoa(n%20), fmt.Sprintf("model-%d:latest", n), "interactive", "measured").Inc()
	}
	theirs := promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
	for _, bb := range []struct {
		name, from, accept, encoding string
		handler                      http.Handler
	}{
		{"text", "127.0.0.1:4711", acceptText, "", m},
		{"openmetrics", "127.0.0.1:4711", acceptOpenMetrics, "", m},
		{"prometheus", "127.0.0.1:4711", acceptOpenMetrics, "gzip", m},
		{"prometheus-elsewhere", "192.0.2.1:4711", acceptOpenMetrics, "gzip", m},
		{"client_golang-text", "", acceptText, "", theirs},
		{"client_golang-openmetrics", "", acceptOpenMetrics, "", theirs},
		{"client_golang-openmetrics-gzip", "", acceptOpenMetrics, "gzip", theirs},
	} {
		b.Run(bb.name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			r.RemoteAddr = bb.from
			r.Header.Set("Accept", bb.accept)
			r.Header.Set("Accept-Encoding", bb.encoding)
			b.ReportAllocs()
			defer processorTime(b)()
			for b.Loop() {
				bb.handler.ServeHTTP(discard{make(http.Header)}, r)
			}
		})
	}
	b.Run("client_golang-gather", func(b *testing.B) {
		b.ReportAllocs()
		defer processorTime(b)()
		for b.Loop() {
			_, _ = registry.Gather()
		}
	})
}

// BenchmarkJob is what a job costs: two attempts, and the end.
func BenchmarkJob(b *testing.B) {
	m := metrics.New()
	failed, answered, ended := attempt("npu", "a", job.Busy), attempt("cpu", "a", ""), end("cpu", "a", "")
	b.ReportAllocs()
	defer processorTime(b)()
	for b.Loop() {
		m.Attempted(failed)
		m.Attempted(answered)
		m.Ended(ended)
	}
}
