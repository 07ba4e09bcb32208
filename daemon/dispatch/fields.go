package dispatch

import (
	"maps"
	"math"
)

// Fields returns the report by the names that it has on every wire: those of
// compute.v1 and our additions. The values are strings, lists of strings,
// float64, int32 and bool.
//
// energy_joules is there only if the energy is known; energy_wh, which
// compute.v1 always has, is zero otherwise, and energy_quality tells. What the
// devices took after the last token is not known yet. radio_joules, and cost with
// its cost_currency, are there if the job ran elsewhere: the one is an assumption,
// and the other what that server charges, if that is known.
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
	maps.Copy(f, r.EnergyFields())
	if len(r.Failures) > 0 {
		failed := make([]string, len(r.Failures))
		for i, a := range r.Failures {
			failed[i] = a.Backend + ": " + a.Err.Error()
		}
		f["failed_attempts"] = failed
	}
	return f
}

// EnergyFields returns those of Fields that tell of energy, and of what was paid
// instead of it.
func (r Report) EnergyFields() map[string]any {
	c := r.Cost.Told()
	f := map[string]any{"energy_quality": string(c.Quality), "energy_wh": 0.0}
	if c.Radio > 0 {
		f["radio_joules"] = c.Radio.Joules()
	}
	if p := r.Price; p.Currency != "" && !p.Unknown {
		f["cost"], f["cost_currency"] = p.Amount(), p.Currency
	}
	if !c.Known() {
		return f
	}
	f["energy_joules"] = c.Energy.Joules()
	f["energy_wh"] = c.Energy.WattHours()
	f["energy_source"] = c.Source
	if r.Usage.Tokens > 0 {
		f["joules_per_token"] = c.Energy.Joules() / float64(r.Usage.Tokens)
	}
	if c.Scope == "" {
		return f
	}
	f["energy_gross_joules"] = c.Gross.Joules()
	f["energy_load_joules"] = c.Load.Joules()
	f["energy_scope"] = c.Scope
	f["energy_coverage"] = c.Coverage
	f["energy_shared_jobs"] = count32(int64(c.Shared))
	if c.Uncertainty > 0 {
		f["energy_uncertainty"] = c.Uncertainty
	}
	return f
}

func count32(n int64) int32 { return int32(min(n, math.MaxInt32)) }
