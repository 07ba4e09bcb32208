package simulate

import (
	"slices"
)

// Summary is what a policy came to over many traces of one machine. Its JSON is
// for people's own plots, and has the units in its keys.
type Summary struct {
	Machine string `json:"machine"`
	Policy  string `json:"policy"`
	Says    string `json:"says,omitempty"`
	Runs    int    `json:"runs"`
	Jobs    int    `json:"jobs"`
	// Ratio is the energy of the devices over the lower bound, RatioHeld over
	// the one that counts load and hold, and Against is the first over that of
	// the reference policy on the same trace.
	Ratio     Spread `json:"energy_over_bound"`
	RatioHeld Spread `json:"energy_over_held_bound"`
	Against   Spread `json:"energy_over_reference"`
	// Missed is which part of all jobs was late, refused or lost, and PutOff
	// which part the tier's rule for background jobs had wait.
	Missed float64 `json:"missed_share"`
	PutOff float64 `json:"put_off_share"`
	// Infeasible is which part of the jobs that were answered no device can
	// answer in time.
	Infeasible float64 `json:"infeasible_share"`
	// FirstToken is the time from arrival to it, over all jobs of a class.
	FirstToken map[Class]Spread `json:"first_token_seconds"`
	// Joules are those of a run, in the mean, by device and purpose.
	Joules    map[string]PurposeJoules `json:"joules"`
	HoldShare float64                  `json:"hold_share"`
	PerToken  Spread                   `json:"joules_per_token"`
	// EnergyDelay is in joule-seconds.
	EnergyDelay Spread `json:"energy_delay"`
	Battery     Spread `json:"battery_percent"`
	// WithBase is the energy of the whole machine.
	WithBase    Spread  `json:"joules_with_base"`
	TierChanges float64 `json:"tier_changes"`
	Emptied     int     `json:"runs_that_emptied_the_battery"`
	// Resident and Needed are of discrete GPUs, in seconds of a run.
	Resident float64 `json:"discrete_resident_seconds"`
	Needed   float64 `json:"discrete_needed_seconds"`
}

// PurposeJoules are joules by what they were for.
type PurposeJoules struct {
	Prefill float64 `json:"prefill"`
	Decode  float64 `json:"decode"`
	Hold    float64 `json:"hold"`
	Load    float64 `json:"load"`
}

// Spread is how figures are spread.
type Spread struct {
	P10    float64 `json:"p10"`
	Median float64 `json:"median"`
	P90    float64 `json:"p90"`
	P95    float64 `json:"p95"`
}

// SpreadOf returns the spread of figures, which it puts in order.
func SpreadOf(list []float64) Spread {
	slices.Sort(list)
	return Spread{quantile(list, 0.1), quantile(list, 0.5), quantile(list, 0.9), quantile(list, 0.95)}
}

// quantile returns what the share q of ordered figures does not exceed, linear
// between two of them.
func quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	x := q * float64(len(list)-1)
	below := min(int(x), max(len(list)-2, 0))
	above := min(below+1, len(list)-1)
	return list[below] + (list[above]-list[below])*(x-float64(below))
}

// summarize sums up the results of one policy, each beside what the reference
// came to on the same trace.
func summarize(p Policy, results, reference []Result) Summary {
	s := Summary{
		Machine: results[0].Machine, Policy: p.Name, Says: p.Says, Runs: len(results),
		FirstToken: make(map[Class]Spread), Joules: make(map[string]PurposeJoules),
	}
	missed, putOff, infeasible := 0.0, 0.0, 0
	var all Spent
	for i := range results {
		r := &results[i]
		s.Jobs += len(r.Jobs)
		missed += r.Missed() * float64(len(r.Jobs))
		putOff += r.PutOff() * float64(len(r.Jobs))
		infeasible += r.Infeasible
		all = all.Plus(r.Spent())
		s.add(r)
	}
	s.Missed, s.PutOff = ratio(missed, float64(s.Jobs)), ratio(putOff, float64(s.Jobs))
	s.Infeasible = ratio(float64(infeasible), float64(s.Jobs))
	s.HoldShare = ratio(all.Hold.Joules(), all.Total().Joules())
	s.Ratio = spreadOver(results, (*Result).Ratio)
	s.RatioHeld = spreadOver(results, (*Result).RatioHeld)
	s.PerToken = spreadOver(results, func(r *Result) float64 { return r.PerToken().Joules() })
	s.EnergyDelay = spreadOver(results, (*Result).EnergyDelay)
	s.Battery = spreadOver(results, (*Result).BatteryUsed)
	s.WithBase = spreadOver(results, func(r *Result) float64 { return (r.Spent().Total() + r.Base).Joules() })
	for _, c := range []Class{Interactive, Completion, Background} {
		if list := firstTokens(results, c); len(list) > 0 {
			s.FirstToken[c] = SpreadOf(list)
		}
	}
	var against []float64
	for i := range results {
		against = append(against, ratio(results[i].Ratio(), reference[i].Ratio()))
	}
	s.Against = SpreadOf(against)
	return s
}

// add adds a run to the means.
func (s *Summary) add(r *Result) {
	part := 1 / float64(s.Runs)
	for i := range r.Devices {
		d := &r.Devices[i]
		j := s.Joules[d.ID]
		j.Prefill += d.Spent.Prefill.Joules() * part
		j.Decode += d.Spent.Decode.Joules() * part
		j.Hold += d.Spent.Hold.Joules() * part
		j.Load += d.Spent.Load.Joules() * part
		s.Joules[d.ID] = j
		if d.Class.Discrete() {
			s.Resident += d.Resident.Seconds() * part
			s.Needed += d.Needed.Seconds() * part
		}
	}
	s.TierChanges += float64(r.TierChanges) * part
	if r.Empty {
		s.Emptied++
	}
}

func spreadOver(results []Result, of func(*Result) float64) Spread {
	list := make([]float64, len(results))
	for i := range results {
		list[i] = of(&results[i])
	}
	return SpreadOf(list)
}

func firstTokens(results []Result, c Class) (list []float64) {
	for i := range results {
		for _, d := range results[i].FirstTokens(c) {
			list = append(list, d.Seconds())
		}
	}
	return list
}
