package dispatch

import (
	"math"

	"github.com/joulemux/joulemux/power"
)

// Fields returns the report by the names that it has on every wire: those of
// compute.v1 and our additions. The values are strings, lists of strings,
// float64 and int32.
//
// energy_joules is there only if the energy is known; energy_wh, which
// compute.v1 always has, is zero otherwise, and energy_quality tells.
func (r Report) Fields() map[string]any {
	f := r.Decision.Fields()
	f["request_id"] = r.ID
	f["model"] = r.Model
	f["tier_reason"] = string(r.TierReason)
	f["time_to_first_token_ms"] = count32(r.FirstToken.Milliseconds())
	f["total_time_ms"] = count32(r.Total.Milliseconds())
	f["prompt_tokens"] = count32(int64(r.Usage.PromptTokens))
	f["tokens_generated"] = count32(int64(r.Usage.Tokens))
	f["tokens_per_second"] = r.TokensPerSecond()
	f["energy_quality"] = string(r.Cost.Quality)
	f["energy_wh"] = 0.0
	if r.Cost.Quality != power.Unknown && r.Cost.Quality != power.None {
		f["energy_joules"] = r.Cost.Energy.Joules()
		f["energy_wh"] = r.Cost.Energy.WattHours()
		f["energy_source"] = r.Cost.Source
	}
	if len(r.Failures) > 0 {
		failed := make([]string, len(r.Failures))
		for i, a := range r.Failures {
			failed[i] = a.Backend + ": " + a.Err.Error()
		}
		f["failed_attempts"] = failed
	}
	return f
}

func count32(n int64) int32 { return int32(min(n, math.MaxInt32)) }
