package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// noSum is a quality of which there were no jobs.
const noSum = `{"jobs":0,"failed":0,"prompt_tokens":0,"tokens":0,"joules":0,"gross_joules":0,"load_joules":0,"tail_joules":0,"wh":0}`

// energyJSON is what two backends took, one measured and one partly assumed.
const energyJSON = `{"from":"2026-01-02","until":"","by":"backend","totals":[` +
	`{"key":"ollama-cpu","jobs":3,"failed":1,"prompt_tokens":30,"tokens":200,"measured":` + noSum + `,"derived":` + noSum + `,` +
	`"estimated":{"jobs":2,"failed":1,"prompt_tokens":20,"tokens":200,"joules":1800,"gross_joules":0,"load_joules":0,"tail_joules":0,"wh":0.5},` +
	`"unknown_jobs":1,"none_jobs":0,"cost":[{"currency":"EUR","amount":0.00016,"energy_amount":0.00016,"remote_amount":0}]},` +
	`{"key":"ollama-igpu","jobs":12,"failed":0,"prompt_tokens":120,"tokens":10000,` +
	`"measured":{"jobs":12,"failed":0,"prompt_tokens":120,"tokens":10000,"joules":36000,"gross_joules":40000,"load_joules":9,"tail_joules":720,"wh":10},` +
	`"derived":` + noSum + `,"estimated":` + noSum + `,"unknown_jobs":0,"none_jobs":0,"cost":[{"currency":"EUR","amount":0.003264,"energy_amount":0.003264,"remote_amount":0}]}],` +
	`"all":{"key":"","jobs":15,"failed":1,"prompt_tokens":150,"tokens":10200,` +
	`"measured":{"jobs":12,"failed":0,"prompt_tokens":120,"tokens":10000,"joules":36000,"gross_joules":40000,"load_joules":9,"tail_joules":720,"wh":10},` +
	`"derived":` + noSum + `,` +
	`"estimated":{"jobs":2,"failed":1,"prompt_tokens":20,"tokens":200,"joules":1800,"gross_joules":0,"load_joules":0,"tail_joules":0,"wh":0.5},` +
	`"unknown_jobs":1,"none_jobs":0,"cost":[{"currency":"EUR","amount":0.003424,"energy_amount":0.003424,"remote_amount":0}]},` +
	`"tariff":{"price_per_kwh":0.32,"currency":"EUR"},"battery_wh":50}` + "\n"

func TestEnergyForPeople(t *testing.T) {
	r := replay(t, answers{"GET energy": says(energyJSON)})
	const want = `BACKEND      JOBS  FAILED  TOKENS  J/TOKEN  MEASURED  ESTIMATED  TAIL   TOTAL       EUR  BATTERY
ollama-cpu      3       1     200    ~9.00         -       0.50  0.00   ~0.50  ~0.00016   ~1.0 %
ollama-igpu    12       0   10000     3.60     10.00          -  0.20   10.20   0.00326   20.4 %
total          15       1   10200    ~3.71     10.00       0.50  0.20  ~10.70  ~0.00342  ~21.4 %

Wh of jobs from 2026-01-02 on; ~ has estimates in it; 1 job of unknown energy not in it
`
	if out, err, code := run(t, r.socket, nil, "energy"); out != want || err != "" || code != 0 {
		t.Errorf("it writes\n%s\nand not\n%s\nsays %q and exits with %d", out, want, err, code)
	}
	if asked := r.requests()[0]; asked != "GET /joulemux/v1/energy?by=backend&since=30d " {
		t.Errorf("it asks %q", asked)
	}
}

func TestEnergyIsAskedForAsItIsWritten(t *testing.T) {
	for args, want := range map[string]string{
		"energy --by day --since 2026-01-02": "GET /joulemux/v1/energy?by=day&since=2026-01-02 ",
		"energy --json --since all":          "GET /joulemux/v1/energy?by=backend&since=all ",
	} {
		r := replay(t, answers{"GET energy": says(energyJSON)})
		out, _, code := run(t, r.socket, nil, strings.Fields(args)...)
		if r.requests()[0] != want || code != 0 || strings.Contains(args, "--json") && out != energyJSON {
			t.Errorf("%s asks %q, exits with %d and writes %s", args, r.requests(), code, out)
		}
	}
}

func TestEnergyThatNobodyKnows(t *testing.T) {
	const unknown = `{"from":"","until":"","by":"client","totals":[{"key":"","jobs":2,"tokens":5,"unknown_jobs":1,"none_jobs":1}],` +
		`"all":{"jobs":2,"tokens":5,"unknown_jobs":1,"none_jobs":1},"trouble":"disk I/O\terror"}`
	r := replay(t, answers{"GET energy": says(unknown)})
	const want = `CLIENT  JOBS  TOKENS  J/TOKEN  TOTAL
-          2       5        -      -
total      2       5        -      -

Wh of jobs of all time; 1 job of unknown energy not in it; 1 job took none here
`
	out, err, code := run(t, r.socket, nil, "energy", "--by", "client", "--since", "all")
	if out != want || code != 0 {
		t.Errorf("it writes\n%s\nand not\n%s\nand exits with %d", out, want, code)
	}
	if err != "joulemux: the ledger cannot use its file, so older jobs may be missing: disk I/O error\n" {
		t.Errorf("it says %q", err)
	}
}

func TestNoJobsYet(t *testing.T) {
	for answer, want := range map[string]string{
		`{"from":"","until":"","by":"day","totals":[]}`:           "no jobs yet: the ledger is empty\n",
		`{"from":"2026-01-02","until":"","by":"day","totals":[]}`: "no jobs from 2026-01-02 on; --since all shows older ones\n",
	} {
		r := replay(t, answers{"GET energy": says(answer)})
		if out, _, code := run(t, r.socket, nil, "energy"); out != want || code != 0 {
			t.Errorf("it writes %q, want %q, and exits with %d", out, want, code)
		}
	}
}

const jobJSON = `{"id":"R/1","attempts":[` +
	`{"id":"R/1","arrived":"2026-05-06T07:08:09Z","ended":"2026-05-06T07:08:10Z","backend":"ollama-npu","hardware":"npu","model":"m:latest",` +
	`"client":"","class":"background","tier":"mains","on_battery":false,"prompt_tokens":0,"tokens":0,"load_ms":0,"prefill_ms":0,"decode_ms":0,` +
	`"first_token_ms":0,"total_ms":900,"failed":"backend_failed","energy_quality":"unknown"},` +
	`{"id":"R/1.2","arrived":"2026-05-06T07:08:09Z","ended":"2026-05-06T07:08:13Z","backend":"ollama-igpu","hardware":"igpu","model":"m:latest",` +
	`"client":"curl","class":"interactive","tier":"battery","on_battery":true,"prompt_tokens":7,"tokens":40,"load_ms":500,"prefill_ms":200,"decode_ms":1900,` +
	`"first_token_ms":1000,"total_ms":3000,"energy_quality":"derived","energy_joules":19.9,"energy_wh":0.005527777,"joules_per_token":0.4975,` +
	`"energy_source":"rapl","energy_scope":"package","energy_gross_joules":24.9,"energy_load_joules":1.3,"energy_uncertainty":0.21,` +
	`"energy_coverage":0.99,"energy_shared_jobs":2}]}` + "\n"

func TestEnergyOfOneJob(t *testing.T) {
	t.Setenv("TZ", "UTC")
	r := replay(t, answers{"GET energy/{id}": says(jobJSON)})
	const want = `job      R/1, attempt 1 of 2 at R/1
outcome  failed: backend_failed, at 2026-05-06 07:08:10
where    ollama-npu (npu), m:latest
for      a client without a name, background, tier mains, on line power
tokens   0, after a prompt of 0
time     0.90 s in all
energy   unknown

job       R/1.2, attempt 2 of 2 at R/1
outcome   answered, at 2026-05-06 07:08:13
where     ollama-igpu (igpu), m:latest
for       curl, interactive, tier battery, on battery
tokens    40, after a prompt of 7
time      3.00 s in all, 1.00 s to the first token, 0.50 s loading, 0.20 s reading the prompt, 1.90 s writing
energy    19.9 J derived ± 21 %, 0.497 J/token, 0.00553 Wh
load      1.30 J of it
tail      pending
gross     24.9 J with its share of the idle draw
scope     package
source    rapl
coverage  99 % of the time
shared    between 2 jobs at most
`
	if out, err, code := run(t, r.socket, nil, "energy", "R/1"); out != want || code != 0 {
		t.Errorf("it writes\n%s\nand not\n%s\nsays %q and exits with %d", out, want, err, code)
	}
	if asked := r.requests()[0]; asked != "GET /joulemux/v1/energy/R%2F1 " {
		t.Errorf("it asks %q", asked)
	}
	if out, _, _ := run(t, r.socket, nil, "energy", "R/1", "--json"); out != jobJSON {
		t.Errorf("it writes %s", out)
	}
}

func TestEnergyOfAJobThatIsNotThere(t *testing.T) {
	r := replay(t, answers{"GET energy/{id}": refuses(http.StatusNotFound, wire.Error{
		Text: `the ledger has no job "x"`, Code: wire.CodeJobNotFound, Field: "id",
	})})
	if _, err, code := run(t, r.socket, nil, "energy", "x"); err != "joulemux: the ledger has no job \"x\"\n" || code != 4 {
		t.Errorf("it says %q and exits with %d", err, code)
	}
	if _, err, code := run(t, r.socket, nil, "energy", "x", "--by", "day"); code != 2 || !strings.Contains(err, "--by") {
		t.Errorf("it says %q and exits with %d", err, code)
	}
}

// elsewhereJSON is what one server here took and two elsewhere did, one of which
// charges in another currency than the user pays energy in.
const elsewhereJSON = `{"from":"2026-01-02","until":"","by":"backend","totals":[` +
	`{"key":"home","jobs":1,"failed":0,"prompt_tokens":10,"tokens":100,"measured":` + noSum + `,"derived":` + noSum + `,"estimated":` + noSum + `,"unknown_jobs":0,"none_jobs":1,` +
	`"radio_joules":3.6,"cost":[{"currency":"EUR","amount":0.00000032,"energy_amount":0.00000032,"remote_amount":0}]},` +
	`{"key":"ollama-igpu","jobs":1,"failed":0,"prompt_tokens":10,"tokens":100,"measured":{"jobs":1,"failed":0,"prompt_tokens":10,"tokens":100,"joules":3600,"gross_joules":0,"load_joules":0,"tail_joules":0,"wh":1},` +
	`"derived":` + noSum + `,"estimated":` + noSum + `,"unknown_jobs":0,"none_jobs":0,"cost":[{"currency":"EUR","amount":0.00032,"energy_amount":0.00032,"remote_amount":0}]},` +
	`{"key":"vendor","jobs":3,"failed":1,"prompt_tokens":10,"tokens":100,"measured":` + noSum + `,"derived":` + noSum + `,"estimated":` + noSum + `,"unknown_jobs":0,"none_jobs":3,` +
	`"radio_joules":36,"cost":[{"currency":"EUR","amount":0.0000032,"energy_amount":0.0000032,"remote_amount":0},{"currency":"USD","amount":0.0125,"energy_amount":0,"remote_amount":0.0125,"remote_jobs":3,"unknown_jobs":1}]}],` +
	`"all":{"key":"","jobs":5,"failed":1,"prompt_tokens":30,"tokens":300,"measured":{"jobs":1,"failed":0,"prompt_tokens":10,"tokens":100,"joules":3600,"gross_joules":0,"load_joules":0,"tail_joules":0,"wh":1},` +
	`"derived":` + noSum + `,"estimated":` + noSum + `,"unknown_jobs":0,"none_jobs":4,"radio_joules":39.6,` +
	`"cost":[{"currency":"EUR","amount":0.00032352,"energy_amount":0.00032352,"remote_amount":0},{"currency":"USD","amount":0.0125,"energy_amount":0,"remote_amount":0.0125,"remote_jobs":3,"unknown_jobs":1}]},` +
	`"tariff":{"price_per_kwh":0.32,"currency":"EUR"}}` + "\n"

func TestMoneyOfEachCurrencyHasAColumn(t *testing.T) {
	r := replay(t, answers{"GET energy": says(elsewhereJSON)})
	const want = `BACKEND      JOBS  FAILED  TOKENS  J/TOKEN  MEASURED  RADIO  TOTAL        EUR     USD
home            1       0     100        -         -  ~0.00  ~0.00  ~0.000000       -
ollama-igpu     1       0     100    36.00      1.00      -   1.00   0.000320       -
vendor          3       1     100        -         -  ~0.01  ~0.01  ~0.000003  0.0125
total           5       1     300    36.00      1.00  ~0.01  ~1.01  ~0.000324  0.0125

Wh of jobs from 2026-01-02 on; ~ has estimates in it; 4 jobs took none here but the radio's; 1 job of unknown price not in USD; EUR and USD are not added up
`
	if out, err, code := run(t, r.socket, nil, "energy"); out != want || err != "" || code != 0 {
		t.Errorf("it writes\n%s\nand not\n%s\nsays %q and exits with %d", out, want, err, code)
	}
}
