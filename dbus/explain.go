package dbus

import (
	"context"
	"maps"
	"math"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/power"
)

// explain is Inference1.Explain. That the job would go nowhere is an answer
// too, as long as there are backends of which to say why.
func (i *inference) explain(ctx context.Context, c bus.Call, prompt string, options map[string]godbus.Variant) (map[string]godbus.Variant, []map[string]godbus.Variant, error) {
	if prompt == "" {
		return nil, nil, errNoPrompt()
	}
	tier, options, err := supposed(options)
	if err != nil {
		return nil, nil, err
	}
	j, err := i.newJob(ctx, c, job.Generate, job.Content{Prompt: prompt}, options)
	if err != nil {
		return nil, nil, err
	}
	d, err := i.Explainer.Explain(ctx, j, tier)
	if err != nil && len(d.Options) == 0 {
		return nil, nil, err
	}
	backends := make([]map[string]godbus.Variant, len(d.Options))
	for at := range d.Options {
		backends[at] = variants(describeOption(d, &d.Options[at]))
	}
	return variants(describeDecision(d, err)), backends, nil
}

// supposed returns the tier that options suppose, if they do, and the options
// that are the job's.
func supposed(options map[string]godbus.Variant) (tier *power.Tier, rest map[string]godbus.Variant, err error) {
	name, rest, err := without(options, "tier")
	if err != nil || name == nil {
		return nil, rest, err
	}
	t, err := power.ParseTier(*name)
	if err != nil {
		return nil, nil, job.InvalidField("tier", "%v", err)
	}
	return &t, rest, nil
}

// describeDecision tells what would become of a job by the names in the
// contract.
func describeDecision(d route.Decision, err error) map[string]any {
	fields := map[string]any{"tier": d.Tier.String()}
	if err != nil {
		fields["error"], fields["error_name"] = err.Error(), errorName(err)
	} else {
		fields = d.Fields()
	}
	j := d.Job()
	lengths := j.Expected()
	maps.Copy(fields, map[string]any{
		"model":           j.Model,
		"waits":           d.Waits(),
		"second_watts":    d.Worth(),
		"prompt_tokens":   number(j.PromptTokens()),
		"expected_tokens": lengths.Mean(),
		"median_tokens":   number(lengths.Median()),
		"lengths_learned": j.Lengths.Known(),
	})
	return fields
}

// describeOption tells what a job would come to on one backend.
func describeOption(d route.Decision, o *route.Option) map[string]any {
	fields := map[string]any{"id": o.ID, "hardware": string(o.Class), "fit": o.Fit(), "verdict": d.Verdict(o)}
	if !o.Reckoned() {
		return fields
	}
	e := &o.Estimate
	maps.Copy(fields, map[string]any{
		"model":            o.Model.Name,
		"energy_joules":    e.Energy.Joules(),
		"load_joules":      e.LoadEnergy.Joules(),
		"work_joules":      o.Work().Joules(),
		"tail_joules":      e.Tail.Joules(),
		"joules_per_token": o.Profile.PerToken().Joules(),
		"power_watts":      e.Draw.Watts(),
		"first_token_ms":   milliseconds(e.FirstToken),
		"total_time_ms":    milliseconds(e.Total),
		"wait_ms":          milliseconds(e.Wait),
		"load_ms":          milliseconds(e.Load),
		"late_probability": o.Miss,
		"cost_joules":      o.Cost.Joules(),
		"quality":          string(o.Profile.Quality),
		"samples":          number(o.Profile.Samples),
	})
	return fields
}

// number returns a number as the contract has it.
func number(n int) int32 { return int32(min(n, math.MaxInt32)) }

func milliseconds(d time.Duration) int32 { return int32(min(d.Milliseconds(), math.MaxInt32)) }
