package meter_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/meter"
	"github.com/joulemux/joulemux/power/sysfs"
)

// idleCPU is a CPU that has nothing to tell.
type idleCPU struct{}

func (idleCPU) Count() int                         { return 8 }
func (idleCPU) Busy() (time.Duration, error)       { return sysfs.CPUBusy(os.DirFS("/proc")) }
func (idleCPU) Used(string) (time.Duration, error) { return 0, power.ErrUnavailable }

// BenchmarkJob is what the meter adds to a job, with a counter to read and
// without.
func BenchmarkJob(b *testing.B) {
	sys := b.TempDir()
	for name, text := range map[string]string{"name": "package-0", "energy_uj": "1000000", "max_energy_range_uj": "262143328850"} {
		file := filepath.Join(sys, "class/powercap/intel-rapl:0", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	var sensors []meter.Sensor
	for _, s := range sysfs.Sensors(os.DirFS(sys)) {
		sensors = append(sensors, s)
	}
	for name, o := range map[string]meter.Options{"a counter": {Sensors: sensors, CPU: idleCPU{}}, "no sensor": {}} {
		b.Run(name, func(b *testing.B) {
			m := meter.New(o)
			defer m.Close()
			for b.Loop() {
				s := m.Begin(context.Background(), meter.Work{ID: "j", Backend: "b", Class: power.CPU, Draw: power.Watt})
				s.Tokens(context.Background(), 1)
				s.End(context.Background(), 0, 0)
			}
		})
	}
}
