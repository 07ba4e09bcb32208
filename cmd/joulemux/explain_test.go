package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
)

// explanation is what becomes of a job on battery: one backend of three is
// chosen, and one has not got the model.
func explanation() wire.Explanation {
	worth := 15.0
	return wire.Explanation{
		Tier: "battery", Model: "m", Backend: "igpu", Reason: "least cost, 28.3 J + 2.4 s at 15.0 W predicted (tier battery)",
		SecondWatts: &worth, PromptTokens: 1, ExpectedTokens: wire.ExpectedTokens{Median: 40, Mean: 51.6, Learned: true},
		Backends: []wire.Prospect{
			{ID: "igpu", Hardware: "igpu", Model: "m", Fit: true, Verdict: "least cost", Estimate: &wire.Estimate{
				Joules: 28.3, WorkJoules: 26.3, TailJoules: 2, JoulesPerToken: 0.5454, FirstTokenMs: 360, TotalMs: 2400, CostJoules: 64.3, Quality: "derived", Samples: 12,
			}},
			{ID: "gpu", Hardware: "nvidia", Model: "m", Verdict: "only when named", Estimate: &wire.Estimate{
				Joules: 149.6, LoadJoules: 80, WorkJoules: 69.6, JoulesPerToken: 0.8, FirstTokenMs: 5100, TotalMs: 5900, WaitMs: 2000, LoadMs: 3000,
				LateProbability: 0.25, CostJoules: 238.1, Quality: "estimated",
			}},
			{ID: "away", Hardware: "cloud", Verdict: `has no model "m"`},
		},
	}
}

func explains(e wire.Explanation) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(e) }
}

func TestExplanationForPeople(t *testing.T) {
	r := replay(t, answers{"POST explain": explains(explanation())})
	const want = `choice    igpu: least cost, 28.3 J + 2.4 s at 15.0 W predicted (tier battery)
model     m
prompt    1 token, estimated from its length
answer    52 tokens on average, as is learned of such answers; half have up to 40
a second  is worth 15.0 J on tier battery

  BACKEND       ENERGY    LOAD    WORK    TAIL  J/TOKEN   LINE  FIRST    ALL  LATE   COST  FIGURES
> igpu (igpu)     28 J       -  26.3 J  2.00 J    0.545      -  0.4 s  2.4 s     -   64 J  learned, 12 jobs
  gpu (nvidia)   150 J  80.0 J  69.6 J       -    0.800  2.0 s  5.1 s  5.9 s  25 %  238 J  assumed
  away (cloud)       -       -       -       -        -      -      -      -     -      -  -

not gpu   only when named
not away  has no model "m"
`
	out, err, code := run(t, r.socket, nil, "explain", "--target", "igpu", "--tier", "battery", "why", "blue?")
	if out != want || code != 0 {
		t.Errorf("it writes\n%s\nand not\n%s\nsays %q and exits with %d", out, want, err, code)
	}
	if want := `POST /joulemux/v1/explain {"prompt":"why blue?","options":{"target":"igpu"},"tier":"battery"}`; r.requests()[0] != want {
		t.Errorf("it asked %s, want %s", r.requests()[0], want)
	}
}

func TestWhatBecomesOfAJobIsSaidFirst(t *testing.T) {
	for _, c := range []struct {
		rule   string
		change func(*wire.Explanation)
		want   string
	}{
		{"refused", func(e *wire.Explanation) {
			e.Backend, e.Reason = "", ""
			e.Error = &wire.Error{Text: "no backend: gpu: too hungry; igpu: too slow", Code: wire.CodeNoBackend, Refused: map[string]string{"gpu": "too hungry", "igpu": "too slow"}}
		}, "choice    refused: no backend\n"},
		{"waiting", func(e *wire.Explanation) { e.Waits = true }, "choice    waits for a better tier than battery, and is decided anew then; here it would be igpu: least cost, "},
		{"in a hurry", func(e *wire.Explanation) { e.SecondWatts = nil }, "a second  is worth any energy\n"},
		{"by joules", func(e *wire.Explanation) { *e.SecondWatts = 0 }, "a second  is worth nothing: joules alone count\n"},
		{"assumed", func(e *wire.Explanation) { e.ExpectedTokens.Learned = false }, "as is assumed of such answers"},
		{"assumed watts", func(e *wire.Explanation) { e.Backends[1].Estimate.Samples = 1 }, "watts assumed, 1 job\n"},
		{"elsewhere", func(e *wire.Explanation) { e.Backends[1].Estimate.Quality = "none" }, "nothing spent here\n"},
		{"no column without a figure", func(e *wire.Explanation) { e.Backends = e.Backends[:1] }, "  BACKEND      ENERGY    WORK    TAIL  J/TOKEN  FIRST    ALL    COST  FIGURES\n"},
		{"no table without estimates", func(e *wire.Explanation) { e.Backends = e.Backends[2:] }, "on tier battery\n\nnot away  has no model"},
		{"a name that drives terminals", func(e *wire.Explanation) { e.Backends[0].ID = "ig\x1b[2Jpu" }, "  ig[2Jpu (igpu)"},
	} {
		e := explanation()
		c.change(&e)
		r := replay(t, answers{"POST explain": explains(e)})
		if out, err, code := run(t, r.socket, nil, "explain", "x"); code != 0 || !strings.Contains(out, c.want) {
			t.Errorf("%s: it writes\n%s\nwithout %q, says %q and exits with %d", c.rule, out, c.want, err, code)
		}
	}
}

func TestTheChoiceOnEachTier(t *testing.T) {
	var asked atomic.Int32
	r := replay(t, answers{"POST explain": func(w http.ResponseWriter, q *http.Request) {
		e := explanation()
		e.Tier = explainedTiers[asked.Add(1)-1]
		switch e.Tier {
		case "low":
			e.Waits = true
		case "critical":
			e.Backend, e.Reason, e.Error = "", "", &wire.Error{Text: "power policy: background jobs are refused on tier critical"}
		}
		explains(e)(w, q)
	}})
	const why = "least cost, 28.3 J + 2.4 s at 15.0 W predicted (tier battery)"
	const want = `TIER      ENERGY  FIRST    ALL  BACKEND  WHY
mains     28.3 J  0.4 s  2.4 s  igpu     ` + why + `
battery   28.3 J  0.4 s  2.4 s  igpu     ` + why + `
saver     28.3 J  0.4 s  2.4 s  igpu     ` + why + `
low            -      -      -  -        waits for a better tier
critical       -      -      -  -        refused: power policy: background jobs are refused on tier critical
`
	out, err, code := run(t, r.socket, strings.NewReader("why?"), "explain", "--all-tiers", "--background", "-")
	if out != want || code != 0 {
		t.Errorf("it writes\n%s\nand not\n%s\nsays %q and exits with %d", out, want, err, code)
	}
	for i, tier := range explainedTiers {
		if want := `POST /joulemux/v1/explain {"prompt":"why?","options":{"class":"background"},"tier":"` + tier + `"}`; r.requests()[i] != want {
			t.Errorf("it asked %s, want %s", r.requests()[i], want)
		}
	}
}

func TestExplanationsInJSON(t *testing.T) {
	r := replay(t, answers{"POST explain": explains(explanation())})
	line := string(job.Line(explanation()))
	for args, lines := range map[string]int{"explain --json x": 1, "explain --json --all-tiers x": 5} {
		if out, err, code := run(t, r.socket, nil, strings.Fields(args)...); out != strings.Repeat(line, lines) || code != 0 {
			t.Errorf("%s writes\n%s\nsays %q and exits with %d", args, out, err, code)
		}
	}
}

func TestWhatCannotBeExplainedFails(t *testing.T) {
	r := replay(t, answers{"POST explain": refuses(400, wire.Error{Text: `invalid request: tier: "turbo" is none of them`, Code: wire.CodeInvalid})})
	for args, want := range map[string]string{
		"explain --tier turbo x":           `"turbo" is none of them`,
		"explain --tier low --all-tiers x": "none of the others can be",
		"explain --all-tiers x":            "is none of them",
	} {
		if out, err, code := run(t, r.socket, nil, strings.Fields(args)...); out != "" || !strings.Contains(err, want) || code != 2 {
			t.Errorf("%s writes %q, says %q and exits with %d", args, out, err, code)
		}
	}
}
