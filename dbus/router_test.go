package dbus

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/dbustest"
	"github.com/joulemux/joulemux/power"
)

func property[T any](t *testing.T, o godbus.BusObject, name string) (value T) {
	t.Helper()
	v, err := o.GetProperty(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	value, ok := v.Value().(T)
	if !ok {
		t.Fatalf("%s is %v, a %T", name, v, v.Value())
	}
	return value
}

func TestRouterTellsTheTier(t *testing.T) {
	r := newRig(t, func(r *rig) { r.Draw = func() (power.Power, bool) { return 14500 * power.Watt / 1000, true } })
	router := routerOf(r.bus.Connect(t))
	for name, want := range map[string]any{
		"Tier": "battery", "TierReason": "discharging", "Policy": "auto", "Charge": 80.0, "Version": "1.2.3", "DrawWatts": 14.5,
		"ActiveBackend": godbus.ObjectPath("/io/github/joulemux/Router1/backend/ollama_2dnpu"),
	} {
		if got := property[any](t, router, RouterName+"."+name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if holds := property[[]map[string]godbus.Variant](t, router, RouterName+".ActiveHolds"); len(holds) != 0 {
		t.Errorf("there are the holds %v", holds)
	}
}

func TestRouterWithoutBatteryNorBackend(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.configure()
		_ = r.tiers.Supply(t.Context(), power.Supply{Source: "upower"})
	})
	peer := r.bus.Connect(t)
	router := routerOf(peer)
	for name, want := range map[string]any{"Charge": -1.0, "ActiveBackend": godbus.ObjectPath("/")} {
		if got := property[any](t, router, RouterName+"."+name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if w := property[float64](t, router, RouterName+".DrawWatts"); !math.IsNaN(w) {
		t.Errorf("the draw is %v", w)
	}
	if property[bool](t, inferenceOf(peer), InferenceName+".Available") {
		t.Error("jobs can be run")
	}
}

// told is what a PropertiesChanged tells, as text.
func told(t *testing.T, s *godbus.Signal) string {
	t.Helper()
	var iface string
	var changed map[string]godbus.Variant
	var invalidated []string
	if err := godbus.Store(s.Body, &iface, &changed, &invalidated); err != nil {
		t.Fatalf("%v: %v", s, err)
	}
	var list []string
	for name, v := range changed {
		list = append(list, name+"="+strings.TrimLeft(v.String(), "@od "))
	}
	slices.Sort(list)
	return strings.Join(append(list, invalidated...), " ")
}

func TestRouterTellsChangesOnce(t *testing.T) {
	r := newRig(t, nil)
	signals := hear(t, r.bus.Connect(t))
	r.supply(t, 79.6) // The same percent.
	r.supply(t, 79.4)
	if got := told(t, next(t, signals)); got != "Charge=79" {
		t.Errorf("a percent less is told as %s", got)
	}
	r.supply(t, 15)
	if got := told(t, next(t, signals)); !strings.HasPrefix(got, "Charge=15") || !strings.Contains(got, `Tier="low" TierReason=`) {
		t.Errorf("another tier is told as %s", got)
	}
	_ = r.tiers.Profile(t.Context(), power.PowerSaver) // Nothing that is seen.
	if err := r.tiers.Supply(t.Context(), power.Supply{Source: "upower", Battery: true, Discharging: true, Charge: 3, Warning: power.WarningCritical}); err != nil {
		t.Fatal(err)
	}
	got := told(t, next(t, signals))
	if !strings.Contains(got, `ActiveBackend="/"`) || !strings.Contains(got, `Tier="critical"`) {
		t.Errorf("a critical battery is told as %s", got)
	}
	if s := next(t, signals); s.Path != inferencePath || told(t, s) != "Available=false" {
		t.Errorf("then came %v", s)
	}
}

func TestPolicy(t *testing.T) {
	r := newRig(t, nil)
	peer := r.bus.Connect(t)
	signals := hear(t, peer)
	err := routerOf(peer).SetProperty(RouterName+".Policy", "frugal")
	expectError(t, "a policy that there is not", err, bus.InvalidArgs, `Policy: "frugal" is none of auto`)
	err = routerOf(peer).SetProperty(RouterName+".Tier", "mains")
	expectError(t, "setting the tier", err, bus.PropertyReadOnly, "Tier")
	if err := routerOf(peer).SetProperty(RouterName+".Policy", "saver"); err != nil {
		t.Fatal(err)
	}
	if got := told(t, next(t, signals)); got != `Policy="saver" Tier="saver" TierReason="policy chosen by the user"` {
		t.Errorf("a policy is told as %s", got)
	}
	if p := r.tiers.Current().Preference; p != power.PreferSaver {
		t.Errorf("the preference is %s", p)
	}
}

func holdTier(t *testing.T, o godbus.BusObject, tier string) (cookie uint32) {
	t.Helper()
	if err := o.Call(RouterName+".Hold", 0, tier, "a long render").Store(&cookie); err != nil {
		t.Fatal(err)
	}
	return cookie
}

func TestHoldAndRelease(t *testing.T) {
	r := newRig(t, nil)
	peer, other := r.bus.Connect(t), r.bus.Connect(t)
	router := routerOf(peer)
	cookie := holdTier(t, router, "low")
	if tier := property[string](t, router, RouterName+".Tier"); tier != "low" {
		t.Errorf("the tier is %s", tier)
	}
	holds := property[[]map[string]godbus.Variant](t, router, RouterName+".ActiveHolds")
	if len(holds) != 1 {
		t.Fatalf("there are %v", holds)
	}
	since, _ := holds[0]["since"].Value().(uint64)
	if h := holds[0]; h["cookie"].Value() != cookie || h["tier"].Value() != "low" || h["reason"].Value() != "a long render" ||
		h["holder"].Value() != peer.Name() || time.Since(time.Unix(int64(since), 0)) > time.Hour {
		t.Errorf("the hold is %v", h)
	}
	for _, c := range []struct {
		rule   string
		peer   godbus.BusObject
		cookie uint32
		name   string
	}{
		{"somebody else's", routerOf(other), cookie, bus.AccessDenied},
		{"none", router, cookie + 7, bus.InvalidArgs},
	} {
		expectError(t, c.rule, c.peer.Call(RouterName+".Release", 0, c.cookie).Err, c.name, "")
	}
	if err := router.Call(RouterName+".Release", 0, cookie).Err; err != nil {
		t.Fatal(err)
	}
	if tier := property[string](t, router, RouterName+".Tier"); tier != "battery" {
		t.Errorf("after the release the tier is %s", tier)
	}
}

func TestBadHolds(t *testing.T) {
	r := newRig(t, nil)
	router := routerOf(r.bus.Connect(t))
	for _, c := range []struct {
		rule, tier, reason, name, says string
	}{
		{"no tier", "green", "x", bus.InvalidArgs, `tier: "green" is none of`},
		{"a tier that nobody can want", "unknown", "x", bus.InvalidArgs, `tier: "unknown" is none of mains`},
		{"a novel", "low", strings.Repeat("x", 257), bus.InvalidArgs, "257 bytes"},
	} {
		expectError(t, c.rule, router.Call(RouterName+".Hold", 0, c.tier, c.reason).Err, c.name, c.says)
	}
	for range 256 {
		holdTier(t, router, "battery")
	}
	expectError(t, "a client in a loop", router.Call(RouterName+".Hold", 0, "low", "x").Err, bus.LimitsExceeded, "too many holds")
}

func TestHoldsEndWithTheirHolder(t *testing.T) {
	r := newRig(t, nil)
	peer := r.bus.Connect(t)
	holdTier(t, routerOf(peer), "low")
	holdTier(t, routerOf(peer), "saver")
	kept := holdTier(t, routerOf(r.bus.Connect(t)), "battery")
	_ = peer.Close()
	dbustest.Eventually(t, "the holds of who has left are gone", func() bool {
		holds := r.tiers.Current().Holds
		return len(holds) == 1 && holds[0].Cookie == kept
	})
}

// busyTiers are those of a tracker that is busy when somebody releases a hold.
type busyTiers struct {
	Tiers
	asked chan struct{}
}

func (b busyTiers) Release(ctx context.Context, _ uint32, _ string) error {
	close(b.asked)
	<-ctx.Done()
	return ctx.Err()
}

func TestHoldEndsThoughTheBusIsLostWhileItIsReleased(t *testing.T) {
	asked := make(chan struct{})
	r := newRig(t, func(r *rig) { r.Tiers = busyTiers{r.tiers, asked} })
	router := routerOf(r.bus.Connect(t))
	router.Go(RouterName+".Release", godbus.FlagNoReplyExpected, nil, holdTier(t, router, "low"))
	receive(t, asked)
	r.bus.Stop(t)
	dbustest.Eventually(t, "the hold has ended", func() bool { return len(r.tiers.Current().Holds) == 0 })
}

func TestHolderIsToldWhenSomebodyElseEndsHisHold(t *testing.T) {
	r := newRig(t, nil)
	peer, bystander, user := r.bus.Connect(t), r.bus.Connect(t), r.bus.Connect(t)
	signals, overheard := hear(t, peer), hear(t, bystander)
	released := holdTier(t, routerOf(peer), "saver")
	if err := routerOf(peer).Call(RouterName+".Release", 0, released).Err; err != nil {
		t.Fatal(err)
	}
	cookie := holdTier(t, routerOf(peer), "low")
	if err := routerOf(user).SetProperty(RouterName+".Policy", "performance"); err != nil {
		t.Fatal(err)
	}
	for {
		s := next(t, signals)
		if s.Name == RouterName+".HoldReleased" {
			if s.Body[0] != cookie || s.Path != routerPath {
				t.Errorf("got %v, want cookie %d", s, cookie)
			}
			break
		}
	}
	expectError(t, "releasing it", routerOf(peer).Call(RouterName+".Release", 0, cookie).Err, bus.InvalidArgs, "no such hold")
	// The bystander hears of the policy, which is told after, and of no cookie.
	for {
		s := next(t, overheard)
		if s.Name == RouterName+".HoldReleased" {
			t.Errorf("a bystander was told %v", s)
		}
		if s.Name == "org.freedesktop.DBus.Properties.PropertiesChanged" && strings.Contains(told(t, s), `Policy="performance"`) {
			break
		}
	}
}

func TestBackendsAreObjects(t *testing.T) {
	r := newRig(t, nil)
	peer := r.bus.Connect(t)
	var all map[godbus.ObjectPath]map[string]map[string]godbus.Variant
	if err := routerOf(peer).Call("org.freedesktop.DBus.ObjectManager.GetManagedObjects", 0).Store(&all); err != nil {
		t.Fatal(err)
	}
	igpu := all[backendPath("ollama-igpu")]["io.github.joulemux.Backend1"]
	for name, want := range map[string]string{
		"Id": `"ollama-igpu"`, "Name": `"IGPU"`, "Type": `"ollama"`, "Hardware": `"igpu"`,
		"State": `"healthy"`, "Problem": `""`, "Models": `["m", "n"]`, "Resident": `["m"]`,
	} {
		if got := igpu[name].String(); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if len(all) != 2 || len(igpu) != 8 {
		t.Errorf("there are %v", all)
	}
	expectError(t, "a backend that is not", peer.Object(RouterName, backendPath("x")).Call("org.freedesktop.DBus.Properties.GetAll", 0, "").Err, bus.UnknownObject, "")
}

func TestBackendsTellWhatBecomesOfThem(t *testing.T) {
	r := newRig(t, nil)
	signals := hear(t, r.bus.Connect(t))
	r.backends.Failed("ollama-igpu", job.Errorf(job.BackendFailed, "out of memory"))
	s := next(t, signals)
	if got := told(t, s); s.Path != backendPath("ollama-igpu") || got != `Problem="backend failed: out of memory"` {
		t.Errorf("a failure is told as %s of %s", got, s.Path)
	}
	r.backends.Served("ollama-igpu", "n", time.Second, nil)
	if got := told(t, next(t, signals)); got != `Problem="" Resident=["m", "n"]` {
		t.Errorf("a success is told as %s", got)
	}
	r.servers["cpu"] = newServer()
	r.configure(spec("ollama-npu", power.NPU), spec("ollama-igpu", power.Unclassified), spec("ollama-cpu", power.CPU))
	// What is constant changed for one of them: it is another.
	var got []string
	for len(got) < 3 {
		if s := next(t, signals); s.Path == routerPath && s.Name != "org.freedesktop.DBus.Properties.PropertiesChanged" {
			got = append(got, strings.TrimPrefix(s.Name, "org.freedesktop.DBus.ObjectManager.Interfaces")+" "+
				strings.TrimPrefix(string(s.Body[0].(godbus.ObjectPath)), string(backendsPath)+"/"))
		}
	}
	if want := []string{"Removed ollama_2digpu", "Added ollama_2dcpu", "Added ollama_2digpu"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLogLevel(t *testing.T) {
	r := newRig(t, nil)
	object := r.bus.Connect(t).Object(RouterName, logControlPath)
	const iface = "org.freedesktop.LogControl1."
	for _, level := range []string{"debug", "notice", "emerg", "alert", "crit", "err", "warning", "info"} {
		if err := object.SetProperty(iface+"LogLevel", level); err != nil {
			t.Fatal(err)
		}
		if got := property[string](t, object, iface+"LogLevel"); got != level {
			t.Errorf("%s became %s", level, got)
		}
	}
	if l := r.Level.Level(); l != 0 {
		t.Errorf("info is %v", l)
	}
	expectError(t, "a level that there is not", object.SetProperty(iface+"LogLevel", "loud"), bus.InvalidArgs, `"loud" is none of`)
	expectError(t, "the target", object.SetProperty(iface+"LogTarget", "journal"), bus.PropertyReadOnly, "LogTarget")
	if target, id := property[string](t, object, iface+"LogTarget"), property[string](t, object, iface+"SyslogIdentifier"); target != "console" || id != "joulemuxd" {
		t.Errorf("the log is %s's at %s", id, target)
	}
}
