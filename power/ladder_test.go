package power_test

import (
	"testing"
	"time"

	"github.com/joulemux/joulemux/power"
)

func TestLadder(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	battery := func(charge power.Charge) power.Supply {
		return power.Supply{Source: "a test", Battery: true, Discharging: true, Charge: charge}
	}
	line := power.Supply{Source: "a test", Battery: true, Charge: 40}
	var l power.Ladder
	for _, c := range []struct {
		rule   string
		after  time.Duration // since the begin
		supply power.Supply
		tier   power.Tier
		due    time.Duration // since the begin; zero is never
	}{
		{"what leaves the unknown tier does not wait", 0, battery(60), power.Battery, 0},
		{"it falls at once", time.Second, battery(50), power.Saver, 0},
		{"a climb waits", 2 * time.Second, battery(60), power.Saver, 32 * time.Second},
		{"the same climb goes on with its wait", 10 * time.Second, battery(61), power.Saver, 32 * time.Second},
		{"another begins its own", 20 * time.Second, line, power.Saver, 23 * time.Second},
		{"until it is due nothing happens", 23*time.Second - 1, line, power.Saver, 23 * time.Second},
		{"then it is taken", 23 * time.Second, line, power.Mains, 0},
		{"falling drops a climb", 24 * time.Second, battery(15), power.Low, 0},
	} {
		l = l.Observe(power.DefaultPolicy(), c.supply, begin.Add(c.after))
		var due time.Time
		if c.due > 0 {
			due = begin.Add(c.due)
		}
		if l.Tier != c.tier || !l.Due.Equal(due) {
			t.Errorf("%s: tier is %v, due %v; want %v, %v", c.rule, l.Tier, l.Due.Sub(begin), c.tier, c.due)
		}
	}
}
