package simulate_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/daemon/simulate"
	"github.com/joulemux/joulemux/power"
)

func TestHeldBound(t *testing.T) {
	slow, held := plain(), plain()
	held.Decode, held.DecodeDraw = 10, 20*power.Watt // 2 J a token, not 1
	held.Hold, held.Load, held.LoadDraw = 2*power.Watt, 5*time.Second, 10*power.Watt
	m, soon := machine(slow, held), due(10*time.Second, 0)
	for _, c := range []struct {
		rule     string
		requests []simulate.Request
		want     power.Energy
	}{
		{"who can go elsewhere does", asks(10, 0, 100), 20 * power.Joule},
		{"who cannot has the device loaded", asks(20, 0), (50 + 40) * power.Joule},
		{"and held from when one is due to when the next comes", asks(20, 0, 20), (50 + 80 + 20) * power.Joule},
		{"or loaded again", asks(20, 0, 100), (50 + 80 + 50) * power.Joule},
		{"and no more where they may be answered at once", asks(20, 0, 5), (50 + 80) * power.Joule},
	} {
		if got := simulate.HeldBound(m, soon, c.requests); got != c.want {
			t.Errorf("%s: %v, want %v", c.rule, got, c.want)
		}
	}
}

func TestHeldBoundIsBetweenBoundAndOptimum(t *testing.T) {
	rules := route.DefaultRules()
	m := hybrid()
	m.Devices[3].SleepAfter = 10 * time.Second
	r := rand.New(rand.NewPCG(11, 12))
	tighter := 0
	for range 60 {
		requests := random(r, 5)
		low, held := simulate.LowerBound(&m, &rules, requests).Energy, simulate.HeldBound(&m, &rules, requests)
		best := optimal(t, &m, &rules, requests)
		if held < low || best.Late == 0 && held > best.Energy {
			t.Errorf("%v is not between %v and %v", held, low, best)
		}
		if held > low {
			tighter++
		}
	}
	if tighter == 0 {
		t.Error("it is never tighter")
	}
}
