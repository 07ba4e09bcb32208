package tracker_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/tracker"
)

func noSupply() power.Supply { return power.Supply{} }

func onBattery(charge power.Charge) power.Supply {
	return power.Supply{Source: "upower", Battery: true, Discharging: true, Charge: charge, Warning: power.WarningNone}
}

func onLine(charge power.Charge) power.Supply {
	return power.Supply{Source: "upower", Battery: true, Charge: charge, Warning: power.WarningNone}
}

// run has a tracker owned for the rest of the bubble.
func run(t *testing.T, read func() power.Supply) *tracker.Tracker {
	t.Helper()
	tr := tracker.New(power.DefaultPolicy(), power.PreferAuto, read)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tr.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	return tr
}

// say reports a supply.
func say(t *testing.T, tr *tracker.Tracker, s power.Supply) {
	t.Helper()
	if err := tr.Supply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// expect checks the tier and why.
func expect(t *testing.T, tr *tracker.Tracker, tier power.Tier, reason power.Reason) {
	t.Helper()
	if now := tr.Current(); now.Tier != tier || now.Reason != reason {
		t.Fatalf("tier is %v (%s), want %v (%s)", now.Tier, now.Reason, tier, reason)
	}
}

func TestFallsAtOnceAndClimbsWhenSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := run(t, noSupply)
		expect(t, tr, power.TierUnknown, power.ReasonNoSupply)
		say(t, tr, onLine(80))
		expect(t, tr, power.Mains, power.ReasonLinePower)
		say(t, tr, onBattery(80))
		expect(t, tr, power.Battery, power.ReasonDischarging)

		say(t, tr, onLine(80))
		time.Sleep(2999 * time.Millisecond)
		synctest.Wait()
		expect(t, tr, power.Battery, power.ReasonDischarging)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		expect(t, tr, power.Mains, power.ReasonLinePower)
	})
}

func TestLoosePlugDoesNotClimb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := run(t, noSupply)
		say(t, tr, onBattery(80))
		for range 20 {
			say(t, tr, onLine(80))
			time.Sleep(2 * time.Second)
			say(t, tr, onBattery(80))
			time.Sleep(time.Second)
			expect(t, tr, power.Battery, power.ReasonDischarging)
		}
		time.Sleep(time.Minute)
		expect(t, tr, power.Battery, power.ReasonDischarging)
	})
}

func TestJitterAtAThresholdChangesTierOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := run(t, noSupply)
		say(t, tr, onBattery(51))
		changes, last := 0, tr.Current().Tier
		for i := range 400 {
			say(t, tr, onBattery([]power.Charge{50.5, 49.5, 52.9, 50.1}[i%4]))
			time.Sleep(30 * time.Second)
			synctest.Wait()
			if now := tr.Current().Tier; now != last {
				changes, last = changes+1, now
			}
		}
		if changes != 1 || last != power.Saver {
			t.Errorf("%d changes, ending in %v; want one, to saver", changes, last)
		}
	})
}

func TestClimbOfChargeNeedsThirtySteadySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := run(t, noSupply)
		say(t, tr, onBattery(19))
		say(t, tr, onBattery(24))
		time.Sleep(29 * time.Second)
		say(t, tr, onBattery(25)) // still climbing to the same tier: the wait goes on
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, tr, power.Saver, power.ReasonChargeSaver)
	})
}

func TestReasonOfAClimbIsTheLastOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := run(t, noSupply)
		say(t, tr, onBattery(80))
		say(t, tr, onLine(80))
		time.Sleep(time.Second)
		say(t, tr, power.Supply{Source: "upower"}) // the battery is taken out
		time.Sleep(2 * time.Second)
		synctest.Wait()
		expect(t, tr, power.Mains, power.ReasonNoBattery)
	})
}

func TestUPowerLostAndFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := run(t, noSupply)
		say(t, tr, onBattery(60))
		say(t, tr, power.Supply{})
		expect(t, tr, power.TierUnknown, power.ReasonNoSupply)
		say(t, tr, onBattery(60))
		expect(t, tr, power.Battery, power.ReasonDischarging)
	})
}

// sysfs is a supply that is read rather than reported, and counts its reads.
type sysfs struct {
	mu     sync.Mutex
	supply power.Supply
	reads  int
}

func (f *sysfs) read() power.Supply {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	return f.supply
}

func (f *sysfs) set(discharging bool, charge power.Charge) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.supply = power.Supply{Source: "sysfs", Battery: true, Discharging: discharging, Charge: charge}
}

// expectReads checks how often the supply was read.
func (f *sysfs) expectReads(t *testing.T, want int, when string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reads != want {
		t.Errorf("%s: %d reads, want %d", when, f.reads, want)
	}
}

func TestReadsOnlyWhenSomebodyLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sys sysfs
		tr := run(t, sys.read)
		sys.set(true, 60)
		time.Sleep(time.Hour)
		synctest.Wait()
		sys.expectReads(t, 0, "an hour without a look")

		for range 100 {
			tr.Look(t.Context())
		}
		expect(t, tr, power.Battery, power.ReasonDischarging)
		sys.expectReads(t, 1, "a hundred looks in one moment")

		time.Sleep(time.Second)
		sys.set(true, 4)
		tr.Look(t.Context())
		expect(t, tr, power.Critical, power.ReasonChargeCritical)
		sys.expectReads(t, 2, "a look after a second")
	})
}

func TestUnwatchedClimbIsReadAgainBeforeItHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sys sysfs
		sys.set(true, 4)
		tr := run(t, sys.read)
		tr.Look(t.Context())
		time.Sleep(time.Second)
		sys.set(false, 4)
		tr.Look(t.Context())
		sys.set(true, 4)
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, tr, power.Critical, power.ReasonChargeCritical)
		sys.expectReads(t, 3, "two looks and a climb")
	})
}

func TestReasonOfAnUnwatchedClimbIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sys sysfs
		sys.set(true, 60)
		tr := run(t, sys.read)
		tr.Look(t.Context())
		time.Sleep(time.Second)
		sys.set(false, 60)
		tr.Look(t.Context())
		sys.mu.Lock()
		sys.supply = power.Supply{Source: "sysfs"}
		sys.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, tr, power.Mains, power.ReasonNoBattery)
	})
}

func TestUPowerReplacesReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sys sysfs
		sys.set(true, 60)
		tr := run(t, sys.read)
		say(t, tr, onBattery(70))
		tr.Look(t.Context())
		sys.expectReads(t, 0, "a look while UPower reports")
		say(t, tr, power.Supply{})
		sys.expectReads(t, 1, "UPower lost")
		if now := tr.Current().Supply; now.Source != "sysfs" {
			t.Errorf("supply is %+v, want sysfs's", now)
		}
	})
}

func TestHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := run(t, noSupply)
		say(t, tr, onLine(90))
		hold := func(tier power.Tier, holder string) uint32 {
			cookie, err := tr.Hold(t.Context(), power.Hold{Tier: tier, Reason: "a test", Holder: holder})
			if err != nil {
				t.Fatal(err)
			}
			return cookie
		}
		a, b := hold(power.Saver, ":1.1"), hold(power.Low, ":1.2")
		expect(t, tr, power.Low, power.ReasonHold)
		if err := tr.Release(t.Context(), b, ":1.1"); !errors.Is(err, tracker.ErrNotHolder) {
			t.Errorf("releasing another's hold: %v", err)
		}
		if err := tr.Release(t.Context(), 999, ":1.1"); !errors.Is(err, tracker.ErrNoHold) {
			t.Errorf("releasing no hold: %v", err)
		}
		if err := tr.Gone(t.Context(), ":1.2"); err != nil {
			t.Fatal(err)
		}
		expect(t, tr, power.Saver, power.ReasonHold)
		if err := tr.Release(t.Context(), a, ":1.1"); err != nil {
			t.Fatal(err)
		}
		expect(t, tr, power.Mains, power.ReasonLinePower)

		hold(power.Low, ":1.3")
		if err := tr.Prefer(t.Context(), power.PreferBalanced); err != nil {
			t.Fatal(err)
		}
		expect(t, tr, power.Battery, power.ReasonPreference)
		if n := len(tr.Current().Holds); n != 0 {
			t.Errorf("%d holds outlive the user's choice", n)
		}
	})
}

func TestHoldsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := run(t, noSupply)
		var err error
		for i := 0; err == nil && i < 10_000; i++ {
			_, err = tr.Hold(t.Context(), power.Hold{Tier: power.Low, Holder: ":1.1"})
		}
		if !errors.Is(err, tracker.ErrTooManyHolds) {
			t.Errorf("ten thousand holds: %v", err)
		}
	})
}

func TestWatchSeesEveryTierOfAReaderThatKeepsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := run(t, noSupply)
		ctx, cancel := context.WithCancel(t.Context())
		var seen []power.Tier
		done := make(chan struct{})
		go func() {
			defer close(done)
			for s := range tr.Watch(ctx) {
				seen = append(seen, s.Tier)
			}
		}()
		for _, s := range []power.Supply{onLine(90), onLine(90), onBattery(60), onBattery(10)} {
			synctest.Wait()
			say(t, tr, s)
		}
		synctest.Wait()
		cancel()
		<-done
		if want := []power.Tier{power.TierUnknown, power.Mains, power.Battery, power.Low}; !slices.Equal(seen, want) {
			t.Errorf("saw %v, want %v", seen, want)
		}
	})
}

func TestReloadedPolicyAppliesToTheSameSupply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := run(t, noSupply)
		say(t, tr, onBattery(60))
		policy := power.DefaultPolicy()
		policy.Saver = 70
		if err := tr.Configure(t.Context(), policy); err != nil {
			t.Fatal(err)
		}
		expect(t, tr, power.Saver, power.ReasonChargeSaver)
	})
}
