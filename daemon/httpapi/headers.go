package httpapi

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/route"
)

// setRoute tells in headers where a job went, by the names in the form in
// which net/http keeps them.
func setRoute(h http.Header, id string, d route.Decision) {
	h["X-Backend-Used"] = []string{d.Backend}
	h["X-Routing-Reason"] = []string{header(d.Reason())}
	h["X-Estimated-Power-Watts"] = []string{strconv.FormatFloat(d.Estimate.Draw.Watts(), 'f', -1, 64)}
	h["X-Estimated-Latency-Ms"] = []string{strconv.FormatInt(d.Latency.Milliseconds(), 10)}
	if others := d.Alternatives(); len(others) > 0 {
		h["X-Alternatives"] = []string{strings.Join(others, ", ")}
	}
	h["X-Request-Id"] = []string{id}
	h["X-Tier"] = []string{d.Tier.String()}
	if d.Borrowed != "" {
		h["X-From-Cache"] = []string{"true"}
	}
}

// energyHeaders are the fields of a report that tell of energy and money, by the
// headers that do.
var energyHeaders = map[string]string{
	"energy_quality":      "X-Energy-Quality",
	"energy_joules":       "X-Energy-Joules",
	"energy_gross_joules": "X-Energy-Gross-Joules",
	"energy_load_joules":  "X-Energy-Load-Joules",
	"energy_wh":           "X-Energy-Wh",
	"joules_per_token":    "X-Energy-Joules-Per-Token",
	"energy_scope":        "X-Energy-Scope",
	"energy_source":       "X-Energy-Source",
	"energy_coverage":     "X-Energy-Coverage",
	"energy_uncertainty":  "X-Energy-Uncertainty",
	"energy_shared_jobs":  "X-Energy-Shared-Jobs",
	"radio_joules":        "X-Energy-Radio-Joules",
	"cost":                "X-Cost",
	"cost_currency":       "X-Cost-Currency",
}

// setEnergy tells in headers what a job took.
func setEnergy(h http.Header, r *dispatch.Report) {
	for field, value := range r.EnergyFields() {
		switch value := value.(type) {
		case string:
			h[energyHeaders[field]] = []string{header(value)}
		case float64:
			h[energyHeaders[field]] = []string{strconv.FormatFloat(value, 'f', -1, 64)}
		case int32:
			h[energyHeaders[field]] = []string{strconv.Itoa(int(value))}
		}
	}
}

// exposed are the headers that pages of this machine may read.
var exposed = strings.Join(append([]string{
	"X-Backend-Used", "X-Routing-Reason", "X-Estimated-Power-Watts", "X-Estimated-Latency-Ms", "X-Alternatives", "X-Request-ID", "X-Tier", "X-From-Cache", "X-Joulemux-Warning",
}, slices.Sorted(maps.Values(energyHeaders))...), ", ")
