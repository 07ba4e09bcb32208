package door

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/joulemux/joulemux/daemon/job"
)

// Annotate takes in what the headers of a request say of the job. An
// unreadable value is an error that names the header, and so is a second one:
// a limit must not be lost because another came first.
func Annotate(j *job.Job, h http.Header) error {
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
		if err := CheckID(id); err != nil {
			return &job.Error{Code: job.Invalid, Field: "X-Request-ID", Detail: err.Error()}
		}
		j.ID = id
	}
	return nil
}

// detail returns what an error says beyond its code and field.
func detail(err error) string {
	var e *job.Error
	if errors.As(err, &e) && e.Detail != "" {
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

// CheckID says what is wrong with a job's name: it has to stand in headers and
// in logs.
func CheckID(id string) error {
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
