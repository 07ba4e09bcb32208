package httpapi

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
)

// annotate takes in what the headers of a request say of the job. An
// unreadable value is an error that names the header, and so is a second one:
// a limit must not be lost because another came first.
func annotate(j *job.Job, h http.Header) error {
	for _, known := range requestHeaders {
		values := h[known.name]
		if len(values) == 0 {
			continue
		}
		if len(values) > 1 {
			return job.InvalidField(known.name, "it is there %d times", len(values))
		}
		value, err := known.parse(strings.TrimSpace(values[0]))
		if err == nil {
			err = j.Annotate(known.option, value)
		}
		if err != nil {
			return &job.Error{Code: job.Invalid, Field: known.name, Detail: detail(err)}
		}
	}
	if id := h.Get("X-Request-ID"); id != "" {
		if err := validID(id); err != nil {
			return &job.Error{Code: job.Invalid, Field: "X-Request-ID", Detail: err.Error()}
		}
		j.ID = id
	}
	return nil
}

// detail returns what an error says beyond its code and field.
func detail(err error) string {
	if e := asJobError(err); e.Detail != "" {
		return e.Detail
	}
	return err.Error()
}

// requestHeaders are those of compute.v1's HTTP side, in the form in which
// net/http keeps names, with the annotation that each of them is.
var requestHeaders = []struct {
	name, option string
	parse        func(string) (any, error)
}{
	{"X-Target-Backend", "target", asText},
	{"X-Latency-Critical", "latency_critical", asFlag},
	{"X-Power-Efficient", "prefer_power_efficiency", asFlag},
	{"X-Max-Latency-Ms", "max_latency_ms", asNumber},
	{"X-Max-Power-Watts", "max_power_watts", asNumber},
	{"X-Cache-Enabled", "cache_enabled", asFlag},
	{"X-Priority", "class", asText},
	{"X-Power-Preference", "preference", asText},
	{"X-Deadline-Ms", "deadline_ms", asNumber},
}

func asText(s string) (any, error) { return s, nil }

func asFlag(s string) (any, error) {
	switch strings.ToLower(s) {
	case "true", "1", "yes", "on":
		return true, nil
	case "false", "0", "no", "off":
		return false, nil
	default:
		return nil, fmt.Errorf("want true or false, got %q", s)
	}
}

func asNumber(s string) (any, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return nil, fmt.Errorf("want a number, got %q", s)
	}
	return n, nil
}

// validID accepts what can stand in a header and in a log.
func validID(id string) error {
	const most = 128
	if len(id) > most {
		return fmt.Errorf("longer than %d bytes", most)
	}
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("%q has other characters than printable ASCII", id)
		}
	}
	return nil
}

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
}

// energyHeaders are the fields of a report that tell of energy, by the headers
// that do.
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
	"X-Backend-Used", "X-Routing-Reason", "X-Estimated-Power-Watts", "X-Estimated-Latency-Ms", "X-Alternatives", "X-Request-ID", "X-Tier",
}, slices.Sorted(maps.Values(energyHeaders))...), ", ")
