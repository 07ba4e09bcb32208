package simulate_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/daemon/simulate"
	"github.com/joulemux/joulemux/power"
)

func TestLengthUnknown(t *testing.T) {
	fast := plain()
	fast.Decode, fast.DecodeDraw = 10, 100*power.Watt // 10 J a token, not 1
	m, rules := machine(plain(), fast), due(150*time.Second, 0)
	var lengths job.Lengths
	for i := range lengths {
		lengths[i] = int32(10 * i) // 0 to 200
	}
	known := map[simulate.Class]job.Lengths{simulate.Interactive: lengths}
	short := append(asks(100, 0, 0, 0), asks(190, 0)...)
	for _, c := range []struct {
		rule    string
		mayMiss float64
		want    power.Energy
		late    int
	}{
		{"where being late is nothing, joules decide", 1, 490 * power.Joule, 1},
		{"else it is insured against, for all alike", 0.01, 4900 * power.Joule, 0},
		{"up to the risk that is taken", 0.25, 490 * power.Joule, 1},
	} {
		got := simulate.LengthUnknown(m, rules, simulate.Foresight{Lengths: known, MayMiss: c.mayMiss}, short)
		if got.Energy != c.want || got.Late != c.late || got.ExpectedLate > 4*c.mayMiss+1e-9 {
			t.Errorf("%s: %+v, want %v", c.rule, got, c.want)
		}
	}
}

func TestPriceOfLatenessIsNoHigherThanNeeded(t *testing.T) {
	m, rules := hybrid(), route.DefaultRules()
	requests := random(rand.New(rand.NewPCG(9, 10)), 300)
	known := map[simulate.Class]job.Lengths{
		simulate.Interactive: job.Job{}.PriorLengths(),
		simulate.Completion:  job.Job{Completion: true}.PriorLengths(),
		simulate.Background:  job.Job{}.PriorLengths(),
	}
	before := simulate.Unaware{ExpectedLate: -1}
	for _, mayMiss := range []float64{0.001, 0.01, 0.05, 0.1, 0.5} {
		got := simulate.LengthUnknown(&m, &rules, simulate.Foresight{Lengths: known, MayMiss: mayMiss}, requests)
		if before.ExpectedLate >= 0 && (got.Price > before.Price || got.Expected > before.Expected || got.ExpectedLate < before.ExpectedLate) {
			t.Errorf("who may be late more often pays more: %+v after %+v", got, before)
		}
		before = got
	}
	impossible := simulate.LengthUnknown(&m, due(time.Second, 0), simulate.Foresight{Lengths: known}, requests)
	if impossible.Price.Joules() != 1e9 || impossible.Late < 200 {
		t.Errorf("where all are late: %+v", impossible)
	}
}
