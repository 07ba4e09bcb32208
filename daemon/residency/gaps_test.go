package residency_test

import (
	"math"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/residency"
)

func TestGaps(t *testing.T) {
	var g residency.Gaps
	if g.Count() != 0 || g.Longer(time.Hour) != 1 || g.Until(time.Minute) != time.Minute {
		t.Error("of nothing known, the next job never comes")
	}
	for _, gap := range []time.Duration{-time.Second, 0, time.Second, 11 * time.Second, 11 * time.Second, 24 * time.Hour} {
		g = g.With(gap)
	}
	if g.Count() != 6 {
		t.Errorf("%d gaps", g.Count())
	}
	// What came later weighs a little more.
	for _, c := range []struct {
		longer time.Duration
		want   float64
	}{{0, 1}, {time.Second, 0.515}, {10 * time.Second, 0.515}, {12 * time.Second, 0.175}, {time.Hour, 0.175}, {1000 * time.Hour, 0.175}} {
		if got := g.Longer(c.longer); math.Abs(got-c.want) > 0.005 {
			t.Errorf("%v are longer than %v, want %v", got, c.longer, c.want)
		}
	}
	if got := g.Until(12 * time.Second).Seconds(); math.Abs(got-(0.485*0.5+0.34*11+0.175*12)) > 0.05 {
		t.Errorf("of 12 s, %v pass until the next job", got)
	}
}

func TestGapsForget(t *testing.T) {
	var g residency.Gaps
	for range 1000 {
		g = g.With(5 * time.Second)
	}
	for range 100 {
		g = g.With(90 * time.Second)
	}
	if got := g.Longer(time.Minute); got < 0.8 {
		t.Errorf("after a hundred long gaps, %v are long", got)
	}
}

func TestGapsAreADistribution(t *testing.T) {
	for seed := range uint64(200) {
		g, draw := residency.Gaps{}, habit(seed)
		for range 30 {
			g = g.With(draw())
		}
		longer, until := 1.0, time.Duration(0)
		for d := time.Duration(0); d < 2*time.Hour; d += d/9 + 100*time.Millisecond {
			nowLonger, nowUntil := g.Longer(d), g.Until(d)
			if nowLonger > longer || nowLonger < 0 || nowUntil < until || nowUntil > d {
				t.Fatalf("seed %d: %v are longer than %v, of which %v pass; before it were %v and %v", seed, nowLonger, d, nowUntil, longer, until)
			}
			longer, until = nowLonger, nowUntil
		}
	}
}

func BenchmarkKeep(b *testing.B) {
	g, draw := residency.Gaps{}, habit(1)
	for range 100 {
		g = g.With(draw())
	}
	rules, h := residency.DefaultRules(), dgpu
	h.Gaps = g
	b.ReportAllocs()
	for b.Loop() {
		k := rules.Keep(mains, false, h)
		rules.Tail(h, k.For)
	}
}
