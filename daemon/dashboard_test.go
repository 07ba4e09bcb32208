package daemon

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/metrics"
	"github.com/joulemux/joulemux/power"
)

// series is what each series that there is has for labels, by its name.
func series(t *testing.T) map[string][]string {
	t.Helper()
	m := metrics.New()
	m.Attempted(&ledger.Entry{PromptTokens: 1, Tokens: 1, Load: 1, Cost: power.Cost{Quality: power.Measured, Energy: power.Joule, Radio: power.Joule}, Price: job.Money{Currency: "EUR"}})
	m.Ended(&dispatch.End{Backend: "a", Report: &dispatch.Report{}, Fallbacks: []dispatch.Failure{{Err: job.Busy}}})
	m.Unloaded("a")
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string][]string)
	for name, f := range families {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		if f.GetMetric()[0].GetHistogram() != nil {
			known[name+"_bucket"], known[name+"_sum"], known[name+"_count"] = append(slices.Clone(labels), "le"), labels, labels
			continue
		}
		known[name] = labels
	}
	for _, f := range new(daemon).figures() {
		known[f.Name] = f.Labels
	}
	return known
}

// dashboard is what there is to check of one.
type dashboard struct {
	Panels []struct {
		Title   string
		Targets []struct{ Expr, LegendFormat string }
	}
}

var (
	selector = regexp.MustCompile(`\b((?:joulemux|go|process)_\w+)(\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"`)
	grouping = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	legend   = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
)

// TestTheDashboardShowsWhatThereIs compares the dashboard with the series that there
// are: each that it has is one, with the labels by which it is chosen, grouped and
// named. That its expressions parse, packaging/grafana tests with Prometheus' own
// parser, in a module of its own.
func TestTheDashboardShowsWhatThereIs(t *testing.T) {
	text, err := os.ReadFile("../packaging/grafana/joulemux.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	known, shown := series(t), make(map[string]bool)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			for _, fault := range faults(known, target.Expr, target.LegendFormat) {
				t.Errorf("%s: %s, in %s", p.Title, fault, target.Expr)
			}
			for _, s := range selector.FindAllStringSubmatch(target.Expr, -1) {
				shown[s[1]] = true
			}
		}
	}
	// What is on no panel is for queries of one's own.
	left := []string{"joulemux_attempts_total", "joulemux_backend_last_check_timestamp_seconds", "joulemux_backend_up", "joulemux_battery_discharging", "joulemux_build_info", "joulemux_device_asleep"}
	for name := range known {
		base := strings.HasSuffix(name, "_sum") || strings.HasSuffix(name, "_count")
		if strings.HasPrefix(name, "joulemux_") && !base && !shown[name] && !slices.Contains(left, name) {
			t.Errorf("%s is on no panel", name)
		}
	}
}

// faults says what is wrong with an expression and its legend.
func faults(known map[string][]string, expr, legends string) (all []string) {
	found := selector.FindAllStringSubmatch(expr, -1)
	if len(found) == 0 {
		return []string{"it shows nothing of ours"}
	}
	kept := regexp.MustCompile(`\bby\s*\(`).MatchString(expr)
	for _, s := range found {
		labels, there := known[s[1]]
		if !there {
			all = append(all, s[1]+" is no series")
			continue
		}
		var used []string
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			used = append(used, m[1])
		}
		for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
			used = append(used, strings.FieldsFunc(g[1], func(r rune) bool { return r == ',' || r == ' ' })...)
		}
		for _, l := range legend.FindAllStringSubmatch(legends, -1) {
			used = append(used, l[1])
			by := grouping.FindStringSubmatch(expr)
			if kept && (by == nil || !slices.Contains(strings.FieldsFunc(by[1], func(r rune) bool { return r == ',' || r == ' ' }), l[1])) {
				all = append(all, "the legend has "+l[1]+", which is not kept")
			}
		}
		for _, label := range used {
			if label != "job" && !slices.Contains(labels, label) { // "job" is given by whoever scrapes
				all = append(all, s[1]+" has no label "+label)
			}
		}
	}
	return all
}

func TestFaultsOfADashboardAreSeen(t *testing.T) {
	known := map[string][]string{"joulemux_a_total": {"backend"}}
	for _, tt := range []struct{ expr, legend, want string }{
		{`sum by (backend) (rate(joulemux_a_total{job=~"$job", backend!=""}[5m]))`, "{{backend}}", ""},
		{`joulemux_b_total`, "", "joulemux_b_total is no series"},
		{`joulemux_a_total{model="x"}`, "", "joulemux_a_total has no label model"},
		{`sum by (model) (joulemux_a_total)`, "", "joulemux_a_total has no label model"},
		{`joulemux_a_total`, "{{class}}", "joulemux_a_total has no label class"},
		{`sum by (job) (joulemux_a_total)`, "{{backend}}", "the legend has backend, which is not kept"},
		{`up`, "", "it shows nothing of ours"},
	} {
		if got := strings.Join(faults(known, tt.expr, tt.legend), "; "); got != tt.want {
			t.Errorf("%s, %q: got %q, want %q", tt.expr, tt.legend, got, tt.want)
		}
	}
}
