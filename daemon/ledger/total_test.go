package ledger

import (
	"reflect"
	"testing"
	"time"

	"github.com/joulemux/joulemux/power"
)

func TestAllAddsUpNoEnergies(t *testing.T) {
	s := sumOf(answer())
	total := Total{Measured: s, Estimated: s, Unknown: Sum{Jobs: 1}}
	if got, want := total.All(), (Sum{Jobs: 3, PromptTokens: 100, Tokens: 200}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestASpanHasEveryDayThatItTouches(t *testing.T) {
	midnight := time.Date(2026, 3, 15, 0, 0, 0, 0, time.Local)
	s := spanOf(midnight.Add(-time.Second), midnight.Add(time.Second))
	for day, want := range map[string]bool{"2026-03-13": false, "2026-03-14": true, "2026-03-15": true, "2026-03-16": false} {
		if got := s.contains(day); got != want {
			t.Errorf("%s: %v", day, got)
		}
	}
}

func TestEveryQualityHasASumOfItsOwn(t *testing.T) {
	all := totals{}
	for i, q := range []power.Quality{power.Measured, power.Derived, power.Estimated, power.Unknown, power.None} {
		all.add("k", q, Sum{Jobs: int64(i + 1)})
	}
	got := all.sorted()[0]
	want := Total{"k", Sum{Jobs: 1}, Sum{Jobs: 2}, Sum{Jobs: 3}, Sum{Jobs: 4}, Sum{Jobs: 5}, nil}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}
