package grafana_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// TestExpressionsParse has Prometheus' own parser read every expression of the
// dashboard, with times where Grafana puts them.
func TestExpressionsParse(t *testing.T) {
	text, err := os.ReadFile("joulemux.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	times := strings.NewReplacer("$__rate_interval", "1m", "$__range", "6h")
	p, count := parser.NewParser(parser.Options{}), 0
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			count++
			if _, err := p.ParseExpr(times.Replace(target.Expr)); err != nil {
				t.Errorf("%s: %s: %v", panel.Title, target.Expr, err)
			}
		}
	}
	if count < 20 {
		t.Errorf("there are only %d expressions", count)
	}
	for _, bad := range []string{"rate(joulemux_jobs_total)", "sum by (a (x)", "rate(sum(x)[5m])"} {
		if _, err := p.ParseExpr(bad); err == nil {
			t.Errorf("%s is taken for an expression", bad)
		}
	}
}
