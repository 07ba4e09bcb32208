package route

import "math"

// Fields returns the decision by the names that it has on every wire: those
// of compute.v1 and our additions. The values are strings, lists of strings,
// float64, int32 and bool.
func (d Decision) Fields() map[string]any {
	return map[string]any{
		"backend_used":            d.Backend,
		"hardware":                string(d.Class),
		"tier":                    d.Tier.String(),
		"reason":                  d.Reason(),
		"alternatives":            d.Alternatives(),
		"estimated_power_watts":   d.Estimate.Draw.Watts(),
		"estimated_latency_ms":    int32(min(d.Latency.Milliseconds(), math.MaxInt32)),
		"estimated_energy_joules": d.Estimate.Energy.Joules(),
		"estimate_quality":        string(d.Quality),
		"from_cache":              d.Borrowed != "",
	}
}
