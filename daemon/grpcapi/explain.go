package grpcapi

import (
	"context"

	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// Explain tells what would become of a job. That it would go nowhere is an
// answer too, as long as there are backends of which to say why.
func (s service) Explain(ctx context.Context, q *computev1.ExplainRequest) (*computev1.ExplainResponse, error) {
	s.client(ctx)
	j, err := generateJob(q.GetRequest(), header(ctx))
	if err != nil {
		return nil, errorOf(ctx, j.ID, err)
	}
	var tier *power.Tier
	if q.GetTier() != "" {
		t, err := power.ParseTier(q.GetTier())
		if err != nil {
			return nil, errorOf(ctx, j.ID, job.InvalidField("tier", "%v", err))
		}
		tier = &t
	}
	j.Client, j.Vouched = door.Client(ctx, header(ctx))
	d, err := s.Runner.Explain(ctx, j, tier)
	if err != nil && len(d.Options) == 0 {
		return nil, errorOf(ctx, j.ID, err)
	}
	return explanation(d, err), nil
}

func explanation(d route.Decision, err error) *computev1.ExplainResponse {
	j := d.Job()
	lengths := j.Expected()
	e := &computev1.ExplainResponse{
		Routing: routeOf(d), Model: text(j.Model), Waits: d.Waits(), SecondWatts: d.Worth(),
		PromptTokens: number(j.PromptTokens()), ExpectedTokens: lengths.Mean(), MedianTokens: number(lengths.Median()),
		LengthsLearned: j.Lengths.Known(),
	}
	if err != nil {
		e.Error = clip(err.Error())
	}
	for i := range d.Options {
		e.Prospects = append(e.Prospects, prospect(d, &d.Options[i]))
	}
	return e
}

// prospect tells what a job would come to on one backend.
func prospect(d route.Decision, o *route.Option) *computev1.Prospect {
	p := &computev1.Prospect{Id: o.ID, Hardware: string(o.Class), Fit: o.Fit(), Verdict: text(d.Verdict(o))}
	if !o.Reckoned() {
		return p
	}
	e := &o.Estimate
	p.Model = text(o.Model.Name)
	p.EnergyJoules, p.LoadJoules, p.WorkJoules, p.TailJoules = e.Energy.Joules(), e.LoadEnergy.Joules(), o.Work().Joules(), e.Tail.Joules()
	p.JoulesPerToken, p.PowerWatts = o.Profile.PerToken().Joules(), e.Draw.Watts()
	p.FirstTokenMs, p.TotalTimeMs, p.WaitMs, p.LoadMs = milliseconds(e.FirstToken), milliseconds(e.Total), milliseconds(e.Wait), milliseconds(e.Load)
	p.LateProbability, p.CostJoules = o.Miss, o.Cost.Joules()
	p.Quality, p.Samples = string(o.Profile.Quality), number(o.Profile.Samples)
	return p
}
