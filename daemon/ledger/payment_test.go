package ledger

import (
	"reflect"
	"testing"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// elsewhere is a job that a remote server has charged for.
func elsewhere(id, currency string, nano int64, change func(*Entry)) Entry {
	return but(func(e *Entry) {
		e.ID, e.Backend, e.Hardware, e.Price = id, "vendor", power.Cloud, job.Money{Nano: nano, Currency: currency}
		e.Cost = power.Cost{Quality: power.None, Source: "remote", Radio: 3 * power.Joule}
		if change != nil {
			change(e)
		}
	})
}

func TestWhatWasChargedIsKeptByCurrency(t *testing.T) {
	folder := t.TempDir()
	l := run(t, folder, forever())
	record := func() {
		l.Record(answer())
		l.Record(elsewhere("b", "EUR", 100, nil))
		l.Record(elsewhere("c", "EUR", 20, func(e *Entry) { e.Client = "mail" }))
		l.Record(elsewhere("d", "USD", 7, nil))
		l.Record(elsewhere("e", "EUR", 0, func(e *Entry) { e.Price.Unknown = true }))
	}
	record()
	check := func(l running) {
		t.Helper()
		got := l.totals(t, Everything)
		want := []Payment{{Currency: "EUR", Jobs: 3, Unknown: 1, Nano: 120}, {Currency: "USD", Jobs: 1, Nano: 7}}
		if len(got) != 1 || !reflect.DeepEqual(got[0].Paid, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if got[0].None.Radio != 12*power.Joule || got[0].None.Energy != 0 {
			t.Errorf("it took %+v", got[0].None)
		}
		byBackend := l.totals(t, ByBackend)
		for _, total := range byBackend {
			if (total.Key == "vendor") != (len(total.Paid) > 0) {
				t.Errorf("%s was paid %+v", total.Key, total.Paid)
			}
		}
		for _, total := range l.totals(t, ByClient) {
			if total.Key == "mail" && !reflect.DeepEqual(total.Paid, []Payment{{Currency: "EUR", Jobs: 1, Nano: 20}}) {
				t.Errorf("for mail was paid %+v", total.Paid)
			}
		}
	}
	check(l)
	l.stop()
	again := run(t, folder, forever())
	check(again)
	e, err := again.Job(t.Context(), "d")
	if err != nil || e.Price != (job.Money{Nano: 7, Currency: "USD"}) || e.Cost.Radio != 3*power.Joule {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestAFileOfTheSecondVersionKeepsItsSums(t *testing.T) {
	folder := t.TempDir()
	db := openRaw(t, folder)
	if err := migrate(db, migrations()[:2]); err != nil {
		t.Fatal(err)
	}
	if err := db.Exec(`INSERT INTO account VALUES ('2025-06-01', 'ollama-igpu', 'm:latest', 'editor', 'measured', 2, 0, 100, 200, 380000000, 0, 0, 0)`); err != nil {
		t.Fatal(err)
	}
	db.Close()
	l := run(t, folder, forever())
	l.Record(elsewhere("b", "EUR", 100, nil))
	got := l.totals(t, Everything)
	if len(got) != 1 || got[0].Measured.Jobs != 2 || got[0].Measured.Energy != 380*power.Joule || got[0].None.Jobs != 1 || len(got[0].Paid) != 1 {
		t.Errorf("got %+v", got)
	}
	l.mustHaveSaid(t, 0, 0)
}

func TestAnAbsurdPriceSpoilsNoSum(t *testing.T) {
	for _, nano := range []int64{-5, 1 << 62} {
		e := elsewhere("a", "EUR", nano, nil).normal(noon)
		if e.Price.Nano < 0 || e.Price.Nano > maxMoney {
			t.Errorf("%d is kept as %d", nano, e.Price.Nano)
		}
	}
}
