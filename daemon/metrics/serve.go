package metrics

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
)

// gatherer is what client_golang knows.
type gatherer = prometheus.Gatherer

// newGatherer returns what the process says of itself: few of many figures, none
// of which stops the world.
func newGatherer() gatherer {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(collectors.WithGoCollectorMemStatsMetricsDisabled()),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// ServeHTTP answers a scrape, in the format that the scraper would rather have.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	format := expfmt.NegotiateAccept(r.Header, expfmt.FmtOpenMetrics_1_0_0, expfmt.FmtOpenMetrics_0_0_1, expfmt.FmtText)
	page := pages.Get().(*[]byte)
	defer pages.Put(page)
	*page = m.render((*page)[:0], format)
	w.Header().Set("Content-Type", string(format))
	w.Header().Add("Vary", "Accept, Accept-Encoding")
	if onThisMachine(r) || !takesGzip(r.Header) {
		_, _ = w.Write(*page) // a client that is gone needs no answer
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := zips.Get().(*gzip.Writer)
	defer zips.Put(z)
	z.Reset(w)
	_, _ = z.Write(*page)
	_ = z.Close()
}

// onThisMachine reports whether a scraper is: what is between it and us then takes
// less to carry a text than either of us takes to compress it.
func onThisMachine(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err != nil || from.Addr().Unmap().IsLoopback() // a socket has no address
}

// zips are compressors at rest, of a megabyte each, which go when memory is
// collected.
var zips = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // there is such a level
	return z
}}

// pages are what scrapes were answered with, to be written on again. They go once
// nobody has scraped for a while; a new one for each scrape, of a megabyte or more,
// would have memory collected every few of them.
var pages = sync.Pool{New: func() any { return new([]byte) }}

// takesGzip reports whether a client takes a compressed answer.
func takesGzip(h http.Header) bool {
	for part := range strings.SplitSeq(h.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(part, ";")
		if strings.TrimSpace(name) == "gzip" {
			q = strings.ReplaceAll(q, " ", "")
			return q != "q=0" && !strings.HasPrefix(q, "q=0.0")
		}
	}
	return false
}

// render appends everything to dst, and returns it.
func (m *Metrics) render(dst []byte, format expfmt.Format) []byte {
	openMetrics := format.FormatType() == expfmt.TypeOpenMetrics
	size := int(m.size.Load())
	dst = m.writeJobs(slices.Grow(dst, size+size/8+4096), openMetrics)
	for i := range m.figures {
		dst = m.figures[i].write(dst, openMetrics)
	}
	out := bytes.NewBuffer(dst)
	encoder := expfmt.NewEncoder(out, format)
	families, _ := m.process().Gather() // what cannot be read is not among them
	for _, f := range families {
		_ = encoder.Encode(f) // a buffer takes everything
	}
	if end, has := encoder.(expfmt.Closer); has {
		_ = end.Close()
	}
	m.size.Store(int64(out.Len()))
	return out.Bytes()
}

// writeJobs appends what was counted. No job can end meanwhile, so that the
// families agree; they take a tenth of a microsecond a series.
func (m *Metrics) writeJobs(dst []byte, openMetrics bool) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.families() {
		dst = f.write(dst, openMetrics)
	}
	return dst
}

// family is what can be written.
type family interface {
	write(dst []byte, openMetrics bool) []byte
}

func (f *jobFamilies) families() []family {
	return []family{
		&f.jobs, &f.attempts, &f.read, &f.written, &f.energy, &f.load, &f.tail, &f.radio, &f.charged, &f.fallbacks, &f.unloads,
		&f.duration, &f.firstToken, &f.queueing, &f.loading,
	}
}
