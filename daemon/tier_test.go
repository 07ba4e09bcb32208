package daemon_test

import (
	"os"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/packaging/rig"
)

func TestJobsFollowTheBattery(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real daemons")
	}
	m, address := startMachine(t)
	d := daemontest.Start(t, daemontest.Options{
		SystemBus: address, Sys: os.DirFS(m.SysDir()),
		Config: "thresholds: {steady_line_seconds: 0}\n" + backends(map[string]string{
			"nvidia": daemontest.Serve(t, daemontest.CannedOllama()),
			"npu":    daemontest.Serve(t, daemontest.CannedOllama()),
		}),
	})
	daemontest.Eventually(t, "tier battery at the start", func() bool { return status(t, d).Tier == "battery" })
	for _, step := range []struct {
		name       string
		change     func() error
		tier, runs string
	}{
		{"plugging in", m.Plug, "mains", "ollama-nvidia"},
		{"unplugging", m.Unplug, "battery", "ollama-npu"},
		{"a charge of 40 %", func() error { return m.SetCharge(40) }, "saver", "ollama-npu"},
		{"a charge of 15 %", func() error { return m.SetCharge(15) }, "low", "ollama-npu"},
		{"a charge of 3 %", func() error { return m.SetCharge(3) }, "critical", "ollama-npu"},
	} {
		t.Run(step.name, func(t *testing.T) {
			at := follow(t, d, step.tier)
			began := time.Now()
			if err := step.change(); err != nil {
				t.Fatal(err)
			}
			took := receive(t, at).Sub(began)
			t.Logf("tier %s after %v", step.tier, took.Round(time.Millisecond))
			if took > within {
				t.Errorf("tier %s took %v", step.tier, took)
			}
			if got := ran(t, d); got != step.runs {
				t.Errorf("a job ran on %s, want %s", got, step.runs)
			}
		})
	}
}

// within is how soon the tier follows the machine: a second, and what a loaded
// machine adds. UPower itself looks twice a minute.
const within = 10 * time.Second

// startMachine starts a laptop on battery at 80 % with a real upowerd, on a bus
// whose address it returns.
func startMachine(t *testing.T) (*rig.Machine, string) {
	t.Helper()
	bus, err := rig.StartBus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bus.Close() })
	m, err := rig.StartMachine(t.Context(), bus.Address(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	if err := m.StartUPower(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m, bus.Address()
}
