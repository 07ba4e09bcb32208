package grpcapi

import (
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/route"
)

// routeOf tells where a job goes, and why.
func routeOf(d route.Decision) *computev1.RoutingMetadata {
	m := &computev1.RoutingMetadata{
		Backend: d.Backend, Reason: text(d.Reason()), Alternatives: d.Alternatives(),
		EstimatedPowerWatts: float32(d.Estimate.Draw.Watts()), EstimatedLatencyMs: milliseconds(d.Latency),
		Hardware: string(d.Class), Tier: d.Tier.String(),
		EstimatedEnergyJoules: d.Estimate.Energy.Joules(), EstimateQuality: string(d.Quality),
		EstimatedWaitMs: milliseconds(d.Estimate.Wait), EstimatedLoadMs: milliseconds(d.Estimate.Load),
		Refused: d.Refused(),
	}
	if len(d.Options) > 0 && d.Backend != "" {
		m.LateProbability = d.Options[0].Miss
	}
	for id, why := range m.Refused {
		m.Refused[id] = text(why)
	}
	return m
}

// routingOf tells where a job went in the end.
func routingOf(r *dispatch.Report) *computev1.RoutingMetadata {
	m := routeOf(r.Decision)
	m.TierReason = string(r.TierReason)
	for _, f := range r.Failures {
		m.FailedAttempts = append(m.FailedAttempts, text(f.Backend+": "+f.Err.Error()))
	}
	return m
}

// statsOf tells what a job took.
func statsOf(r *dispatch.Report) *computev1.GenerationStats {
	s := &computev1.GenerationStats{
		TimeToFirstTokenMs: milliseconds(r.FirstToken), TotalTimeMs: milliseconds(r.Total),
		TokensGenerated: number(r.Usage.Tokens), TokensPerSecond: float32(r.TokensPerSecond()),
		TimeToFirstTokenUs: r.FirstToken.Microseconds(), TotalTimeUs: r.Total.Microseconds(), QueueTimeUs: r.Queued.Microseconds(),
		LoadTimeUs: r.Usage.Load.Microseconds(), PromptTimeUs: r.Usage.Prefill.Microseconds(), GenerationTimeUs: r.Usage.Decode.Microseconds(),
		PromptTokens: number(r.Usage.PromptTokens),
	}
	c := r.Cost.Told()
	s.EnergyQuality, s.RadioJoules = string(c.Quality), c.Radio.Joules()
	if p := r.Price; p.Currency != "" && !p.Unknown {
		s.Cost, s.CostCurrency = p.Amount(), text(p.Currency)
	}
	if !c.Known() {
		return s
	}
	s.EnergyJoules, s.EnergyWh, s.EnergySource = c.Energy.Joules(), float32(c.Energy.WattHours()), text(c.Source)
	if r.Usage.Tokens > 0 {
		s.JoulesPerToken = s.EnergyJoules / float64(r.Usage.Tokens)
	}
	if c.Scope == "" {
		return s
	}
	s.EnergyGrossJoules, s.EnergyLoadJoules, s.EnergyScope = c.Gross.Joules(), c.Load.Joules(), c.Scope
	s.EnergyCoverage, s.EnergyUncertainty, s.EnergySharedJobs = c.Coverage, c.Uncertainty, number(c.Shared)
	return s
}

// number returns a number as the contract has it.
func number(n int) int32 { return int32(max(0, min(n, math.MaxInt32))) }

func milliseconds(d time.Duration) int32 {
	return int32(max(0, min(d.Milliseconds(), math.MaxInt32)))
}

// text makes what a backend said fit for protobuf, which takes nothing but
// UTF-8.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// clip is text of which the beginning is enough.
func clip(s string) string {
	const most = 2 << 10
	if len(s) <= most {
		return text(s)
	}
	end := most
	for end > most-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return text(s[:end]) + "…"
}
