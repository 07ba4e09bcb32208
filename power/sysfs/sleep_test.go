package sysfs_test

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/power/powertest"
	"github.com/joulemux/joulemux/power/sysfs"
)

func TestSleepingNPUOfAMDIsLeftAlone(t *testing.T) {
	const npu = "bus/pci/devices/0000:c5:00.1/"
	m := powertest.Load(t, "strix")
	for _, name := range []string{"npu_busy_time_us", "accel/accel0/dev", "config"} {
		m.Set("sys/"+npu+name, "1\n")
	}
	log := powertest.NewLog(m.Sys())
	readEverything(t, log, m.Proc())
	for _, name := range log.Opened() {
		if attribute, ok := strings.CutPrefix(name, npu); ok && !powertest.Harmless(attribute) {
			t.Errorf("of the NPU was opened %s", attribute)
		}
	}
}

// readEverything calls every reader there is.
func readEverything(t *testing.T, sys, proc fs.FS) {
	t.Helper()
	for _, s := range sysfs.Sensors(sys) {
		_, _ = s.Read(t.Context())
	}
	sysfs.Unreadable(sys)
	sysfs.Signs(sys)
	sysfs.Supply(sys)
	sysfs.Thermal(sys)
	if o, ok := sysfs.NPUOccupancy(sys); ok {
		_, _, _ = o.Busy()
	}
	gpus, err := sysfs.GPUs(sys)
	if err != nil {
		t.Fatal(err)
	}
	for range gpus {
		sysfs.RenderNode(sys, "renderD128")
		sysfs.RenderNode(sys, "renderD129")
	}
	if _, err := sysfs.Devices(sys); err != nil {
		t.Fatal(err)
	}
	if _, err := sysfs.CPUBusy(proc); err != nil {
		t.Fatal(err)
	}
}

func TestSleepingDiscreteGPUIsLeftAlone(t *testing.T) {
	const gpu = "bus/pci/devices/0000:01:00.0/"
	for _, status := range []string{"suspended", "suspending", "resuming"} {
		for vendor, device := range map[string]string{"0x10de": "NVIDIA's", "0x1002": "AMD's", "0x8086": "Intel's"} {
			m := powertest.Load(t, "optimus")
			m.Set("sys/"+gpu+"vendor", vendor+"\n")
			m.Set("sys/"+gpu+"power/runtime_status", status+"\n")
			m.Set("sys/"+gpu+"gpu_metrics", string(table(120, 1, 3, nil)))
			m.Set("sys/class/drm/renderD129/device/vendor", vendor+"\n")
			m.Set("sys/class/drm/renderD129/device/power/runtime_status", status+"\n")
			log := powertest.NewLog(m.Sys())
			readEverything(t, log, m.Proc())
			for _, name := range log.Opened() {
				if powertest.Disturbs(name) {
					t.Errorf("of %s GPU that is %s was opened %s", device, status, name)
				}
			}
		}
	}
}
