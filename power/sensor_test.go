package power_test

import (
	"slices"
	"testing"
	"time"

	"github.com/joulemux/joulemux/power"
)

func TestEnergyBetweenTwoReadings(t *testing.T) {
	counter := power.Domain{Cumulative: true, Range: 1000 * power.Joule, Most: 50 * power.Watt, Period: time.Millisecond}
	endless := power.Domain{Cumulative: true, Most: 50 * power.Watt}
	unbounded := power.Domain{Cumulative: true, Range: 1000 * power.Joule}
	samples := power.Domain{}
	start := time.Now()
	for _, c := range []struct {
		rule     string
		domain   power.Domain
		from, to power.Reading
		after    time.Duration
		want     power.Energy
		ok       bool
	}{
		{"a counter counts", counter, count(100), count(130), time.Second, 30 * power.Joule, true},
		{"a machine may draw nothing", counter, count(100), count(100), time.Second, 0, true},
		{"it starts again at its range", counter, count(990), count(20), time.Second, 30 * power.Joule, true},
		{"it may have done so twice", counter, count(100), count(130), 20 * time.Second, 0, false},
		{"it was set back, and no machine draws what a wrap would mean", counter, count(500), count(20), time.Second, 0, false},
		{"it leapt", counter, count(100), count(300), time.Second, 0, false},
		{"what is shown late is no leap", counter, count(0), power.Reading{Energy: 50_000}, time.Nanosecond, 50_000, true},
		{"one without a range was set back", endless, count(100), count(20), time.Second, 0, false},
		{"one without a range counts for days", endless, count(0), count(86400), 24 * time.Hour, 86400 * power.Joule, true},
		{"nobody knows what it may draw", unbounded, count(990), count(20), time.Hour, 30 * power.Joule, true},
		{"beyond its range it is broken", counter, count(2000), count(20), time.Second, 0, false},
		{"time has to pass", counter, count(100), count(130), 0, 0, false},
		{"samples make a mean", samples, draw(10), draw(20), 2 * time.Second, 30 * power.Joule, true},
		{"if they are close together", samples, draw(10), draw(20), time.Minute, 0, false},
	} {
		c.from.At, c.to.At = start, start.Add(c.after)
		got, ok := c.domain.Between(c.from, c.to)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%s: got %v, %v, want %v, %v", c.rule, got, ok, c.want, c.ok)
		}
	}
}

func count(joules float64) power.Reading { return power.Reading{Energy: power.Joules(joules)} }
func draw(watts float64) power.Reading   { return power.Reading{Draw: power.Watts(watts)} }

func TestWhichDomainsADeviceShowsIn(t *testing.T) {
	pkg, npu := power.Domain{Scope: power.ScopePackage}, power.Domain{Scope: power.ScopeNPU}
	radeon := power.Domain{Scope: power.ScopeDiscreteGPU, Source: "amdgpu"}
	nvidia := power.Domain{Scope: power.ScopeDiscreteGPU, Source: power.SourceNVML}
	core, platform := power.Domain{Scope: power.ScopeCore}, power.Domain{Scope: power.ScopePlatform}
	for _, c := range []struct {
		class         power.DeviceClass
		covers, holds []power.Domain
	}{
		{power.CPU, []power.Domain{pkg}, []power.Domain{pkg}},
		{power.IntegratedGPU, []power.Domain{pkg}, []power.Domain{pkg}},
		{power.NPU, []power.Domain{pkg, npu}, []power.Domain{pkg, npu}},
		{power.NVIDIA, []power.Domain{pkg, nvidia}, []power.Domain{nvidia}},
		{power.DiscreteGPU, []power.Domain{pkg, radeon, nvidia}, []power.Domain{radeon, nvidia}},
		{power.Unclassified, []power.Domain{pkg}, nil},
		{power.Cloud, nil, nil},
	} {
		var covers, holds []power.Domain
		for _, d := range []power.Domain{pkg, npu, radeon, nvidia, core, platform} {
			if d.Covers(c.class) {
				covers = append(covers, d)
			}
			if d.Holds(c.class) {
				holds = append(holds, d)
			}
		}
		if !slices.Equal(covers, c.covers) || !slices.Equal(holds, c.holds) {
			t.Errorf("%s shows in %v and is held by %v, want %v and %v", c.class, covers, holds, c.covers, c.holds)
		}
	}
}
