package httpapi

import (
	"math"
	"net/http"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// explain tells what would become of a job. That it would go nowhere is an
// answer too, as long as there are backends of which to say why.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	var q wire.Explain
	if !s.read(w, r, &q) {
		return
	}
	j, tier, err := explained(r, q)
	if err != nil {
		fail(w, err)
		return
	}
	d, err := s.Explainer.Explain(r.Context(), j, tier)
	if err != nil && len(d.Options) == 0 {
		fail(w, ourWords(err))
		return
	}
	reply(w, http.StatusOK, describeDecision(d, err))
}

// explained returns the job that is asked about, and the tier, if one is.
func explained(r *http.Request, q wire.Explain) (j job.Job, tier *power.Tier, err error) {
	if q.Prompt == "" {
		return j, nil, errNoPrompt()
	}
	if q.Tier != "" {
		t, err := power.ParseTier(q.Tier)
		if err != nil {
			return j, nil, job.InvalidField("tier", "%v", err)
		}
		tier = &t
	}
	j = job.Job{Kind: job.Generate, Content: job.Content{Prompt: q.Prompt}}
	return j, tier, finish(&j, r, q.Options)
}

func describeDecision(d route.Decision, err error) wire.Explanation {
	j := d.Job()
	lengths := j.Expected()
	e := wire.Explanation{
		Tier: d.Tier.String(), Model: j.Model, Backend: d.Backend, Reason: d.Reason(), Waits: d.Waits(),
		PromptTokens:   j.PromptTokens(),
		ExpectedTokens: wire.ExpectedTokens{Median: lengths.Median(), Mean: lengths.Mean(), Learned: j.Lengths.Known()},
		Backends:       make([]wire.Prospect, len(d.Options)),
	}
	if err != nil {
		e.Error = describe(err)
	}
	if worth := d.Worth(); !math.IsInf(worth, 1) {
		e.SecondWatts = &worth
	}
	for i := range d.Options {
		e.Backends[i] = describeOption(d, &d.Options[i])
	}
	return e
}

func describeOption(d route.Decision, o *route.Option) wire.Prospect {
	p := wire.Prospect{ID: o.ID, Hardware: string(o.Class), Fit: o.Fit(), Verdict: d.Verdict(o)}
	if !o.Reckoned() {
		return p
	}
	e := &o.Estimate
	p.Model = o.Model.Name
	p.Estimate = &wire.Estimate{
		Joules: e.Energy.Joules(), LoadJoules: e.LoadEnergy.Joules(), WorkJoules: o.Work().Joules(), TailJoules: e.Tail.Joules(),
		JoulesPerToken: o.Profile.PerToken().Joules(), Watts: e.Draw.Watts(),
		FirstTokenMs: e.FirstToken.Milliseconds(), TotalMs: e.Total.Milliseconds(),
		WaitMs: e.Wait.Milliseconds(), LoadMs: e.Load.Milliseconds(),
		LateProbability: o.Miss, CostJoules: o.Cost.Joules(),
		Quality: string(o.Profile.Quality), Samples: o.Profile.Samples,
	}
	return p
}
