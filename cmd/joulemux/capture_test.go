package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/powertest"
	"github.com/joulemux/joulemux/power/sysfs"
)

// seen is all that the readers see of a machine.
func seen(t *testing.T, m *powertest.Machine) string {
	t.Helper()
	sys := m.Sys()
	var b strings.Builder
	for _, s := range sysfs.Sensors(sys) {
		r, err := s.Read(t.Context())
		fmt.Fprintln(&b, s.Domain(), r.Energy, r.Draw, err)
	}
	thermal := sysfs.Thermal(sys)
	thermal.At = time.Time{}
	devices, err := sysfs.Devices(sys)
	gpus, gpuErr := sysfs.GPUs(sys)
	_, npu := sysfs.NPUOccupancy(sys)
	cpu, cpuErr := sysfs.CPUBusy(m.Proc())
	fmt.Fprintln(&b, sysfs.Unreadable(sys), sysfs.Supply(sys), thermal, devices, err, gpus, gpuErr, npu, cpu, cpuErr)
	return b.String()
}

func captured(t *testing.T, m *powertest.Machine) (string, *powertest.Machine) {
	t.Helper()
	text, err := capture(m.Sys(), m.Proc(), time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	again, err := powertest.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return text, again
}

func TestCaptureHasWhatReadersSee(t *testing.T) {
	for _, name := range powertest.Names(t) {
		m := powertest.Load(t, name)
		for who, m := range map[string]*powertest.Machine{"a user": m, "root": m.AsRoot()} {
			text, again := captured(t, m)
			if want, got := seen(t, m), seen(t, again); got != want {
				t.Errorf("of %s, %s sees\n%s\nand in the capture\n%s\n\n%s", name, who, want, got, text)
			}
		}
	}
}

func TestCaptureSaysWhatItIsOf(t *testing.T) {
	m := powertest.Load(t, "meteor-lake")
	m.Set("sys/class/dmi/id/product_name", "ThinkPad X1 Carbon Gen 12\n")
	m.Set("proc/sys/kernel/osrelease", "6.11.0-8-generic\n")
	text, again := captured(t, m)
	want := "ThinkPad X1 Carbon Gen 12, Linux 6.11.0-8-generic, recorded by joulemux capture on 2026-11-24."
	if again.About != want {
		t.Errorf("it is about %q", again.About)
	}
	if secret := "-- sys/class/powercap/intel-rapl:0/energy_uj 0400 --\n--"; !strings.Contains(text, secret) {
		t.Errorf("what is for root is not there by its mode:\n%s", text)
	}
}

func TestCaptureIsRedacted(t *testing.T) {
	m := powertest.Load(t, "optimus").AsRoot()
	for name, text := range map[string]string{
		"sys/class/power_supply/BAT0/serial_number":                     "PLANTED-1",
		"sys/class/power_supply/BAT0/manufacturer":                      "PLANTED-2",
		"sys/class/power_supply/BAT0/model_name":                        "PLANTED-3",
		"sys/class/dmi/id/product_serial":                               "PLANTED-4",
		"sys/class/dmi/id/product_uuid":                                 "PLANTED-5",
		"sys/class/net/wlan0/address":                                   "PLANTED-6",
		"proc/sys/kernel/hostname":                                      "PLANTED-7",
		"proc/self/environ":                                             "USER=PLANTED-8",
		"proc/stat":                                                     "cpu  1 2 3 4 5 6 7\nbtime PLANTED-9",
		"sys/class/thermal/thermal_zone0/device":                        "PLANTED-10",
		"sys/class/power_supply/hid-PLANTED-11/type":                    "Battery",
		"sys/class/power_supply/hid-11:22:33:aa:bb:cc-battery/type":     "Battery",
		"sys/class/power_supply/hid-11:22:33:aa:bb:cc-battery/scope":    "Device",
		"sys/class/power_supply/hid-11:22:33:aa:bb:cc-battery/capacity": "50",
	} {
		m.Set(name, text+"\n")
	}
	text, again := captured(t, m)
	for _, secret := range []string{"PLANTED", "11:22:33"} {
		if strings.Contains(text, secret) {
			t.Errorf("it has %s:\n%s", secret, text)
		}
	}
	if want, got := sysfs.Supply(m.Sys()), sysfs.Supply(again.Sys()); got != want {
		t.Errorf("the supply is %v, and %v in the capture", want, got)
	}
	if !strings.Contains(text, "-- sys/class/power_supply/supply-2/type --") {
		t.Errorf("supplies with names of their own are not told apart:\n%s", text)
	}
}

func TestCaptureWakesNothing(t *testing.T) {
	m := powertest.Load(t, "desktop")
	m.Set("sys/bus/pci/devices/0000:03:00.0/power/runtime_status", "suspended\n")
	text, again := captured(t, m)
	for _, asleep := range []string{"hwmon2", "gpu_metrics"} {
		if strings.Contains(text, asleep) {
			t.Errorf("it has %s of a GPU that sleeps", asleep)
		}
	}
	for _, s := range sysfs.Sensors(again.Sys()) {
		if _, err := s.Read(t.Context()); s.Domain().Scope == power.ScopeDiscreteGPU && !errors.Is(err, power.ErrAsleep) {
			t.Errorf("the GPU in the capture: %v", err)
		}
	}
}

func TestCaptureOfWhatIsNotText(t *testing.T) {
	for name, data := range map[string]string{
		"zeros in the middle": "\x01" + strings.Repeat("\x00", 100) + "\x02",
		"zeros at the end":    "\x01" + strings.Repeat("\x00", 100),
		"an archive":          "-- sys/other --\n",
		"not UTF-8":           "\xff\n",
	} {
		var b strings.Builder
		b.WriteString("-- sys/file")
		(&extract{data: []byte(data)}).write(&b, "file")
		m, err := powertest.Parse([]byte(b.String()))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := fs.ReadFile(m.Sys(), "file"); err != nil || string(got) != data {
			t.Errorf("%s: %q, %v from %q", name, got, err, b.String())
		}
	}
}

func TestCaptureCommand(t *testing.T) {
	out, complaint, code := run(t, "/nowhere", nil, "capture")
	if _, err := powertest.Parse([]byte(out)); code != 0 || err != nil || !strings.Contains(out, "recorded by joulemux capture on ") {
		t.Errorf("it exits with %d and says %q, %q", code, out, complaint)
	}
	out, _, _ = run(t, "/nowhere", nil, "capture", "--json")
	var record struct{ Capture string }
	if err := json.Unmarshal([]byte(out), &record); err != nil || !strings.Contains(record.Capture, "recorded by joulemux capture on ") {
		t.Errorf("as JSON: %v, %q", err, out)
	}
}
