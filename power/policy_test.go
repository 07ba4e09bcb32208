package power_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/joulemux/joulemux/power"
)

// onBattery is what UPower says of a discharging machine that it does not warn of.
func onBattery(charge power.Charge) power.Supply {
	return power.Supply{Source: "upower", Battery: true, Discharging: true, Charge: charge, Warning: power.WarningNone}
}

func warned(s power.Supply, w power.Warning) power.Supply {
	s.Warning = w
	return s
}

func onLine(charge power.Charge) power.Supply {
	return power.Supply{Source: "upower", Battery: true, Charge: charge, Warning: power.WarningNone}
}

var desktop = power.Supply{Source: "upower"}

func TestNext(t *testing.T) {
	const line, steady = 3 * time.Second, 30 * time.Second
	for _, c := range []struct {
		rule   string
		prev   power.Tier
		supply power.Supply
		want   power.Tier
		reason power.Reason
		wait   time.Duration
	}{
		{"nobody can be asked", power.Battery, power.Supply{}, power.TierUnknown, power.ReasonNoSupply, 0},
		{"a desktop has no battery", power.TierUnknown, desktop, power.Mains, power.ReasonNoBattery, 0},
		{"the first look never waits", power.TierUnknown, onLine(40), power.Mains, power.ReasonLinePower, 0},
		{"a full battery discharges", power.Mains, onBattery(100), power.Battery, power.ReasonDischarging, 0},
		{"above the saver threshold", power.Mains, onBattery(50.1), power.Battery, power.ReasonDischarging, 0},
		{"at the saver threshold", power.Mains, onBattery(50), power.Saver, power.ReasonChargeSaver, 0},
		{"at the low threshold it is not low yet", power.Saver, onBattery(20), power.Saver, power.ReasonChargeSaver, 0},
		{"below the low threshold", power.Saver, onBattery(19.9), power.Low, power.ReasonChargeLow, 0},
		{"UPower's low stands above our percentage", power.Battery, warned(onBattery(25), power.WarningLow), power.Low, power.ReasonWarnsLow, 0},
		{"UPower's critical stands above our percentage", power.Battery, warned(onBattery(9), power.WarningCritical), power.Critical, power.ReasonWarnsCritical, 0},
		{"as long as UPower does not warn it is not critical", power.Low, onBattery(2), power.Low, power.ReasonChargeLow, 0},
		{"without UPower the percentage decides", power.Low, warned(onBattery(4.9), power.Unwarned), power.Critical, power.ReasonChargeCritical, 0},
		{"a fall skips tiers", power.Mains, warned(onBattery(3), power.WarningCritical), power.Critical, power.ReasonWarnsCritical, 0},
		{"holds just above the threshold on the way up", power.Low, onBattery(22.9), power.Low, power.ReasonRecovering, 0},
		{"climbs once recovered, after a while", power.Low, onBattery(23), power.Saver, power.ReasonChargeSaver, steady},
		{"does not climb to battery before it is above", power.Saver, onBattery(53), power.Saver, power.ReasonRecovering, 0},
		{"climbs to battery above", power.Saver, onBattery(53.1), power.Battery, power.ReasonDischarging, steady},
		{"climbs as far as it recovered", power.Critical, onBattery(52), power.Saver, power.ReasonChargeSaver, steady},
		{"a warning that ends is a climb", power.Critical, warned(onBattery(4), power.WarningLow), power.Low, power.ReasonWarnsLow, steady},
		{"line power means mains, whatever the charge", power.Critical, onLine(1), power.Mains, power.ReasonLinePower, line},
		{"a battery that vanishes may be a glitch", power.Battery, desktop, power.Mains, power.ReasonNoBattery, line},
		{"mains stays mains", power.Mains, onLine(50), power.Mains, power.ReasonLinePower, 0},
		{"a warning means nothing on line power", power.Mains, warned(onLine(3), power.WarningCritical), power.Mains, power.ReasonLinePower, 0},
		{"losing sight is no fall and no climb", power.Low, power.Supply{}, power.TierUnknown, power.ReasonNoSupply, 0},
	} {
		got := power.DefaultPolicy().Next(c.prev, c.supply)
		if want := (power.Step{Tier: c.want, Reason: c.reason, Wait: c.wait}); got != want {
			t.Errorf("%s: from %v with %v got %+v, want %+v", c.rule, c.prev, c.supply, got, want)
		}
	}
}

func TestApply(t *testing.T) {
	hold := func(tier power.Tier) []power.Hold { return []power.Hold{{Tier: tier}} }
	for _, c := range []struct {
		rule   string
		base   power.Tier
		wishes power.Wishes
		want   power.Tier
		reason power.Reason
	}{
		{"without wishes the supplies decide", power.Battery, power.Wishes{}, power.Battery, power.ReasonDischarging},
		{"power-saver on line power", power.Mains, power.Wishes{Profile: power.PowerSaver}, power.Saver, power.ReasonProfile},
		{"power-saver on battery", power.Battery, power.Wishes{Profile: power.PowerSaver}, power.Low, power.ReasonProfile},
		{"power-saver frees nothing", power.Critical, power.Wishes{Profile: power.PowerSaver}, power.Critical, power.ReasonDischarging},
		{"other profiles do nothing", power.Mains, power.Wishes{Profile: power.Balanced}, power.Mains, power.ReasonDischarging},
		{"prefer saver", power.Mains, power.Wishes{Preference: power.PreferSaver}, power.Saver, power.ReasonPreference},
		{"prefer saver frees nothing", power.Low, power.Wishes{Preference: power.PreferSaver}, power.Low, power.ReasonDischarging},
		{"prefer balanced", power.Mains, power.Wishes{Preference: power.PreferBalanced}, power.Battery, power.ReasonPreference},
		{"prefer performance", power.Low, power.Wishes{Preference: power.PreferPerformance}, power.Mains, power.ReasonPreference},
		{"performance lifts the profile too", power.Battery, power.Wishes{Preference: power.PreferPerformance, Profile: power.PowerSaver}, power.Mains, power.ReasonPreference},
		{"performance leaves critical alone", power.Critical, power.Wishes{Preference: power.PreferPerformance}, power.Critical, power.ReasonDischarging},
		{"performance leaves a desktop alone", power.Mains, power.Wishes{Preference: power.PreferPerformance}, power.Mains, power.ReasonDischarging},
		{"a hold", power.Mains, power.Wishes{Holds: hold(power.Low)}, power.Low, power.ReasonHold},
		{"a hold frees nothing", power.Low, power.Wishes{Holds: hold(power.Battery)}, power.Low, power.ReasonDischarging},
		{"a hold stands above performance", power.Low, power.Wishes{Preference: power.PreferPerformance, Holds: hold(power.Saver)}, power.Saver, power.ReasonHold},
		{"the more careful hold wins", power.Mains, power.Wishes{Holds: append(hold(power.Battery), append(hold(power.Low), hold(power.Saver)...)...)}, power.Low, power.ReasonHold},
		{"the unknown tier can be held down", power.TierUnknown, power.Wishes{Holds: hold(power.Saver)}, power.Saver, power.ReasonHold},
		{"a hold of mains asks for nothing", power.TierUnknown, power.Wishes{Holds: hold(power.Mains)}, power.TierUnknown, power.ReasonDischarging},
	} {
		tier, reason := c.wishes.Apply(c.base, power.ReasonDischarging)
		if tier != c.want || reason != c.reason {
			t.Errorf("%s: got %v (%s), want %v (%s)", c.rule, tier, reason, c.want, c.reason)
		}
	}
}

// randomSupply covers every kind of supply, charges around thresholds above all.
func randomSupply(r *rand.Rand) power.Supply {
	s := power.Supply{
		Battery:     r.IntN(8) > 0,
		Discharging: r.IntN(4) > 0,
		Charge:      power.Charge(r.Float64() * 100),
		Warning:     power.Warning(r.IntN(4)),
	}
	if r.IntN(8) > 0 {
		s.Source = "upower"
	}
	return s
}

func TestLaws(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	policy := power.DefaultPolicy()
	for range 200_000 {
		prev, s := power.Tier(r.IntN(6)), randomSupply(r)
		step := policy.Next(prev, s)

		if again := policy.Next(step.Tier, s); again.Tier != step.Tier || again.Wait != 0 {
			t.Fatalf("asking twice from %v with %+v: %+v, then %+v", prev, s, step, again)
		}
		if step.Wait > 0 && !prev.MoreCarefulThan(step.Tier) {
			t.Fatalf("a step that is no climb waits: from %v with %+v: %+v", prev, s, step)
		}
		fuller := s
		fuller.Charge += power.Charge(r.Float64() * (100 - float64(s.Charge)))
		if more := policy.Next(prev, fuller); more.Tier.MoreCarefulThan(step.Tier) {
			t.Fatalf("more charge, more careful: from %v: %+v gives %v, %+v gives %v", prev, s, step.Tier, fuller, more.Tier)
		}
		base := step.Tier
		w := power.Wishes{Holds: []power.Hold{{Tier: power.Tier(r.IntN(6))}}}
		if held, _ := w.Apply(base, step.Reason); base.MoreCarefulThan(held) || w.Holds[0].Tier.MoreCarefulThan(held) {
			t.Fatalf("hold of %v on %v gives %v", w.Holds[0].Tier, base, held)
		}
	}
}
