package httpapi_test

import (
	"errors"
	"math"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/power"
)

// TestMain has it be about noon here, so that no test goes on over midnight: days are
// those of the machine's own zone.
func TestMain(m *testing.M) {
	now := time.Now().UTC()
	noon := time.Date(now.Year(), now.Month(), now.Day(), 12, 0, 0, 0, time.UTC)
	time.Local = time.FixedZone("noon", int(noon.Sub(now).Round(time.Hour).Seconds()))
	os.Exit(m.Run())
}

// measured is what a sensor made of a job: not quite 20 J.
func measured(microjoules power.Energy) power.Cost {
	return power.Cost{
		Energy: microjoules, Gross: microjoules + 5*power.Joule, Load: 1_230_000, Quality: power.Measured,
		Scope: "package", Source: "rapl", Uncertainty: 0.0712, Coverage: 0.987, Shared: 1,
	}
}

func assumed(e power.Energy) power.Cost {
	return power.Cost{Energy: e, Quality: power.Estimated, Source: "12.0 W assumed x 2.17 s"}
}

// entry is of a job that ended some days ago.
func entry(id, backend string, days int, cost power.Cost) ledger.Entry {
	ended := time.Now().AddDate(0, 0, -days)
	return ledger.Entry{
		ID: id, Arrived: ended.Add(-3 * time.Second), Ended: ended, Backend: backend, Hardware: power.IntegratedGPU,
		Model: "m:latest", Client: "curl", Class: job.Interactive, Tier: power.Battery, OnBattery: true,
		PromptTokens: 7, Tokens: 40, Load: 500 * time.Millisecond, FirstToken: time.Second, Total: 3 * time.Second, Cost: cost,
	}
}

func today(days int) string { return time.Now().AddDate(0, 0, -days).Format(time.DateOnly) }

func TestEnergyIsToldByQuality(t *testing.T) {
	r := newRig(t)
	r.Configure(httpapi.Settings{Tariff: &wire.Tariff{PricePerKWh: 0.32, Currency: "EUR"}})
	for _, e := range []ledger.Entry{
		entry("1", "igpu", 0, measured(19_870_001)), entry("2", "igpu", 0, measured(10*power.Joule)),
		entry("3", "igpu", 0, assumed(26*power.Joule)), entry("4", "igpu", 0, power.Cost{}),
		entry("5", "cloud", 0, power.Cost{Quality: power.None}),
	} {
		r.ledger.Record(e)
	}
	r.ledger.Tail("1", 2*power.Joule)
	got := r.ask("GET", "/joulemux/v1/energy", "")
	e := read[wire.Energy](t, got.body)
	if got.status != 200 || e.By != "backend" || e.From != "" || e.Until != "" || len(e.Totals) != 2 || e.Trouble != "" {
		t.Fatalf("got %+v", got)
	}
	if *e.Tariff != (wire.Tariff{PricePerKWh: 0.32, Currency: "EUR"}) || *e.BatteryWh != 50 {
		t.Errorf("energy costs %+v, and the battery holds %v Wh", e.Tariff, *e.BatteryWh)
	}
	want := wire.EnergyTotal{
		Key: "igpu", Jobs: 4, PromptTokens: 28, Tokens: 160, UnknownJobs: 1,
		// 29.870001 J, gross of 10 J more, rounded up as jobs are.
		Measured:  wire.EnergySum{Jobs: 2, PromptTokens: 14, Tokens: 80, Joules: 29.9, GrossJoules: 39.9, LoadJoules: 2.5, TailJoules: 2, Wh: 29.9 / 3600},
		Estimated: wire.EnergySum{Jobs: 1, PromptTokens: 7, Tokens: 40, Joules: 26, Wh: 26.0 / 3600},
	}
	// By the tariff, with the tail.
	amount := (29.9/3600 + 26.0/3600 + 2.0/3600) / 1000 * 0.32
	if len(e.Totals[1].Cost) != 1 || math.Abs(e.Totals[1].Cost[0].Amount-amount) > 1e-12 || e.Totals[1].Cost[0].Currency != "EUR" {
		t.Errorf("it costs %+v, want %v EUR", e.Totals[1].Cost, amount)
	}
	want.Cost = e.Totals[1].Cost
	if !reflect.DeepEqual(e.Totals[1], want) {
		t.Errorf("got  %+v\nwant %+v", e.Totals[1], want)
	}
	all := want
	all.Key, all.Jobs, all.PromptTokens, all.Tokens, all.NoneJobs = "", 5, 35, 200, 1
	if !reflect.DeepEqual(e.All, all) {
		t.Errorf("all is  %+v\nwant %+v", e.All, all)
	}
	if cloud := e.Totals[0]; cloud.Key != "cloud" || cloud.NoneJobs != 1 || cloud.Jobs != 1 || cloud.Measured.Jobs != 0 {
		t.Errorf("got %+v", cloud)
	}
}

func TestEnergyIsOfTheDaysAskedFor(t *testing.T) {
	r := newRig(t)
	for _, days := range []int{0, 1, 29, 30, 400} {
		r.ledger.Record(entry(today(days), "igpu", days, measured(power.Joule)))
	}
	for query, want := range map[string]struct {
		from, until string
		days        []int
	}{
		"":           {"", "", []int{400, 30, 29, 1, 0}},
		"&since=all": {"", "", []int{400, 30, 29, 1, 0}},
		"&since=1d":  {today(0), "", []int{0}},
		"&since=30d": {today(29), "", []int{29, 1, 0}},
		"&since=" + today(30) + "&until=" + today(1): {today(30), today(1), []int{30, 29, 1}},
		"&until=" + today(30):                        {"", today(30), []int{400, 30}},
		"&since=" + today(1) + "&until=" + today(1):  {today(1), today(1), []int{1}},
	} {
		e := read[wire.Energy](t, r.ask("GET", "/joulemux/v1/energy?by=day"+query, "").body)
		var days, wanted []string
		for _, total := range e.Totals {
			days = append(days, total.Key)
		}
		for _, n := range want.days {
			wanted = append(wanted, today(n))
		}
		if e.From != want.from || e.Until != want.until || !reflect.DeepEqual(days, wanted) {
			t.Errorf("%q: from %q until %q: %v, want %v", query, e.From, e.Until, days, wanted)
		}
	}
	if got := r.ask("GET", "/joulemux/v1/energy?by=client&since=1d", ""); !strings.Contains(got.body, `"key":"curl"`) {
		t.Errorf("got %+v", got)
	}
}

func TestAllIsTheSameHoweverItIsDivided(t *testing.T) {
	r := newRig(t)
	for _, id := range []string{"1", "2", "3"} {
		r.ledger.Record(entry(id, id, 0, measured(power.Joule/100)))
	}
	for by, want := range map[string]float64{"backend": 0.3, "day": 0.1} {
		e := read[wire.Energy](t, r.ask("GET", "/joulemux/v1/energy?by="+by, "").body)
		sum := 0.0
		for _, total := range e.Totals {
			sum += total.Measured.Joules
		}
		if math.Abs(sum-want) > 1e-9 || e.All.Measured.Joules != 0.1 {
			t.Errorf("by %s: %v J together, want %v, and %v of all", by, sum, want, e.All.Measured.Joules)
		}
	}
}

func TestEnergyQuestionsThatAreWrongNameWhatIs(t *testing.T) {
	r := newRig(t)
	for query, field := range map[string]string{
		"by=hour": "by", "by=": "", "since=": "", "since=30": "since", "since=0d": "since", "since=-1d": "since",
		"since=99999999d": "since", "since=2026-02-30": "since", "since=yesterday": "since", "until=30d": "until",
		"until=2026-01-01T00:00:00Z": "until", "since=2026-01-02&until=2026-01-01": "until",
		"from=1d": "from", "since=1d&since=2d": "since",
	} {
		got := r.ask("GET", "/joulemux/v1/energy?"+query, "")
		e := read[wire.Error](t, got.body)
		switch {
		case field == "" && got.status == 200:
		case got.status != 400 || e.Code != wire.CodeInvalid || e.Field != field || !strings.Contains(e.Text, field):
			t.Errorf("%s: got %+v, want a fault of %q", query, got, field)
		}
	}
	if got := r.ask("POST", "/joulemux/v1/energy", "{}"); got.status != http.StatusMethodNotAllowed {
		t.Errorf("got %+v", got)
	}
}

func TestEnergyOfAJobHasAllItsAttempts(t *testing.T) {
	r := newRig(t)
	earlier := entry("a/b c.2", "old", 1, measured(power.Joule))
	failed := entry("a/b c", "npu", 0, assumed(power.Joule))
	failed.Failed = job.BackendFailed
	second := entry("a/b c.2", "igpu", 0, measured(19_870_001))
	second.Arrived = failed.Arrived
	r.ledger.Record(earlier)
	r.ledger.Record(failed)
	path := "/joulemux/v1/energy/a%2Fb%20c"
	// What an earlier job of the same id left is not this one's.
	if got := read[wire.EnergyJob](t, r.ask("GET", path, "").body); len(got.Attempts) != 1 {
		t.Errorf("got %+v", got)
	}
	r.ledger.Record(second)
	got := r.ask("GET", path, "")
	told := read[wire.EnergyJob](t, got.body)
	if got.status != 200 || told.ID != "a/b c" || len(told.Attempts) != 2 {
		t.Fatalf("got %+v", got)
	}
	a, b := told.Attempts[0], told.Attempts[1]
	if a.ID != "a/b c" || a.Backend != "npu" || a.Failed != wire.CodeBackendFailed || a.Quality != "estimated" ||
		*a.Joules != 1 || a.Source == "" || a.Scope != "" || a.GrossJoules != nil || a.TailJoules != nil {
		t.Errorf("the first is %+v", a)
	}
	if b.ID != "a/b c.2" || b.Backend != "igpu" || b.Hardware != "igpu" || b.Client != "curl" || b.Tier != "battery" || !b.OnBattery ||
		b.Tokens != 40 || b.PromptTokens != 7 || b.LoadMs != 500 || b.FirstTokenMs != 1000 || b.TotalMs != 3000 || b.Failed != "" {
		t.Errorf("the second is %+v", b)
	}
	if b.Quality != "measured" || *b.Joules != 19.9 || *b.GrossJoules != 24.9 || *b.LoadJoules != 1.3 || *b.Wh != *b.Joules/3600 ||
		*b.JoulesPerToken != *b.Joules/40 || b.Scope != "package" || b.Source != "rapl" || b.Uncertainty != 0.07 || *b.Coverage != 0.99 || b.SharedJobs != 1 {
		t.Errorf("it took %s", got.body)
	}
}

func TestTailIsThereOnceItIsKnown(t *testing.T) {
	r := newRig(t)
	tail := func(id string) *float64 {
		return read[wire.EnergyJob](t, r.ask("GET", "/joulemux/v1/energy/"+id, "").body).Attempts[0].TailJoules
	}
	r.ledger.Record(entry("new", "igpu", 0, measured(power.Joule)))
	r.ledger.Record(entry("old", "igpu", 1, measured(power.Joule)))
	if got := tail("new"); got != nil {
		t.Errorf("at the end of a job its tail is %v J", *got)
	}
	if got := tail("old"); got == nil || *got != 0 {
		t.Errorf("a tail that never came is %v", got)
	}
	r.ledger.Tail("new", 1_110_000)
	if got := tail("new"); got == nil || *got != 1.2 {
		t.Errorf("the tail is %v", got)
	}
}

func TestJobsThatAreNotInTheLedger(t *testing.T) {
	r := newRig(t)
	got := r.ask("GET", "/joulemux/v1/energy/nobody", "")
	if e := read[wire.Error](t, got.body); got.status != 404 || e.Code != wire.CodeJobNotFound || e.Field != "id" || !strings.Contains(e.Text, `"nobody"`) {
		t.Errorf("got %+v", got)
	}
	r.ledger.Record(entry("unknown", "igpu", 0, power.Cost{Quality: power.Unknown}))
	told := read[wire.EnergyJob](t, r.ask("GET", "/joulemux/v1/energy/unknown", "").body)
	if a := told.Attempts[0]; a.Quality != "unknown" || a.Joules != nil || a.Wh != nil || a.JoulesPerToken != nil {
		t.Errorf("unknown is no value: %+v", a)
	}
}

func TestALedgerInTroubleSaysSo(t *testing.T) {
	r := newRig(t)
	r.ledger.Record(entry("1", "igpu", 0, measured(power.Joule)))
	if e := read[wire.Energy](t, r.ask("GET", "/joulemux/v1/energy", "").body); e.Trouble != "" {
		t.Fatalf("got %+v", e)
	}
	if err := errors.Join(os.RemoveAll(r.state), os.WriteFile(r.state, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	r.ledger.Record(entry("2", "igpu", 0, measured(power.Joule)))
	e := read[wire.Energy](t, r.ask("GET", "/joulemux/v1/energy", "").body)
	if e.Trouble == "" || len(e.Totals) != 1 || e.Totals[0].Jobs != 1 {
		t.Errorf("got %+v", e)
	}
	if j := read[wire.EnergyJob](t, r.ask("GET", "/joulemux/v1/energy/2", "").body); j.Trouble == "" || len(j.Attempts) != 1 {
		t.Errorf("got %+v", j)
	}
}
