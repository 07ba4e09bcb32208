package power_test

import (
	"math"
	"testing"
	"time"

	"github.com/joulemux/joulemux/power"
)

func TestUnitsPrintThemselves(t *testing.T) {
	for _, c := range []struct {
		got, want string
	}{
		{(90 * power.Joule).Over(6 * time.Second).String(), "15.0 W"},
		{(12 * power.Watt).For(3 * time.Second).String(), "36.0 J"},
		{power.Joules(0.5).String(), "0.50 J"},
		{power.Joules(1830.4).String(), "1830 J"},
		{power.Charge(62.4).String(), "62 %"},
		{power.Cost{Energy: power.Joules(12.4), Quality: power.Estimated}.String(), "12.4 J estimated"},
		{power.Cost{}.String(), "energy unknown"},
		{power.Cost{Quality: power.None}.String(), "energy none"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestWildFiguresSaturate(t *testing.T) {
	for _, c := range []struct {
		in   float64
		want power.Power
	}{
		{math.NaN(), 0},
		{math.Inf(1), math.MaxInt64},
		{1e300, math.MaxInt64},
		{-1e300, math.MinInt64},
	} {
		if got := power.Watts(c.in); got != c.want {
			t.Errorf("Watts(%g) = %d, want %d", c.in, got, c.want)
		}
	}
	if got := (1 * power.Joule).Over(0); got != 0 {
		t.Errorf("energy over no time is %v, want 0 W", got)
	}
}

func TestSumIsAsGoodAsItsWeakerPart(t *testing.T) {
	measured := power.Cost{Energy: 2 * power.Joule, Quality: power.Measured, Source: "rapl"}
	estimated := power.Cost{Energy: 3 * power.Joule, Quality: power.Estimated, Source: "prior"}
	sum := measured.Plus(estimated)
	if sum.Energy != 5*power.Joule || sum.Quality != power.Estimated || sum.Source != "rapl + prior" {
		t.Errorf("sum is %+v", sum)
	}
	trifle := power.Cost{Energy: 20_000, Quality: power.Estimated, Source: "prior"}
	whole := power.Cost{Energy: 2 * power.Joule, Quality: power.Measured, Source: "rapl", Coverage: 0.9, Uncertainty: 0.1}
	for _, sum := range []power.Cost{trifle.Plus(whole), whole.Plus(trifle)} {
		if sum.Quality != power.Measured || sum.Energy != 2_020_000 || sum.Coverage != 0.9 || sum.Uncertainty != 0.1 {
			t.Errorf("with a hundredth that is estimated the sum is %+v", sum)
		}
	}
	unknown := power.Cost{Quality: power.Unknown}
	if sum := unknown.Plus(measured); sum.Quality != power.Unknown {
		t.Errorf("with an unknown part the sum is %+v", sum)
	}
	if got := (power.Cost{}).Plus(measured); got != measured {
		t.Errorf("nothing plus measured is %+v", got)
	}
	remote := power.Cost{Quality: power.None, Radio: power.Joule}
	for _, sum := range []power.Cost{measured.Plus(remote), remote.Plus(measured), measured.Plus(remote).Plus(power.Cost{})} {
		if sum.Radio != power.Joule || sum.Energy != measured.Energy || sum.Quality != measured.Quality {
			t.Errorf("what was spent elsewhere leaves %+v", sum)
		}
	}
	if got := measured.Plus(power.Cost{Quality: power.None}); got != measured {
		t.Errorf("measured plus an answer from elsewhere is %+v", got)
	}
}

func TestEveryTierButTheUnknownOneCanBeHeld(t *testing.T) {
	for _, tier := range power.Tiers() {
		got, err := power.ParseHeldTier(tier.String())
		if refused := err != nil; refused != (tier == power.TierUnknown) || got != tier {
			t.Errorf("%v is %v, %v", tier, got, err)
		}
	}
}

func TestMeasuredFiguresAreToldInTenths(t *testing.T) {
	fine := power.Cost{
		Energy: 12_345_678, Gross: 20_000_001, Load: 100_000, Tail: 1, Quality: power.Measured, Scope: "package",
		Uncertainty: 0.0523, Coverage: 0.996,
	}
	want := fine
	want.Energy, want.Gross, want.Load, want.Tail = 12_400_000, 20_100_000, 100_000, 100_000
	want.Uncertainty, want.Coverage = 0.05, 1
	if got := fine.Told(); got != want {
		t.Errorf("told as %+v, want %+v", got, want)
	}
	assumed := power.Cost{Energy: 12_345_678, Quality: power.Estimated, Source: "12.0 W assumed x 1.03 s"}
	if got := assumed.Told(); got != assumed {
		t.Errorf("an assumption gives nothing away, but is told as %+v", got)
	}
}

func TestTierNamesRoundTrip(t *testing.T) {
	for _, tier := range power.Tiers() {
		text, err := tier.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back power.Tier
		if err := back.UnmarshalText(text); err != nil || back != tier {
			t.Errorf("%v came back as %v, %v", tier, back, err)
		}
	}
	if _, err := power.ParseTier("ac"); err == nil {
		t.Error("ParseTier accepts a name that is none")
	}
}

func TestGrossIsNoLessThanWhatItContains(t *testing.T) {
	failed := power.Cost{Energy: 20 * power.Joule, Quality: power.Estimated}
	answered := power.Cost{Energy: 10 * power.Joule, Gross: 12 * power.Joule, Quality: power.Measured}
	if sum := failed.Plus(answered); sum.Gross != 32*power.Joule {
		t.Errorf("of %v, gross is %v", sum, sum.Gross)
	}
	if sum := failed.Plus(failed); sum.Gross != 0 {
		t.Errorf("where no idle share is known, gross is %v", sum.Gross)
	}
}
