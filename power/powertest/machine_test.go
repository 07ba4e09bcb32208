package powertest_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/joulemux/joulemux/power/powertest"
)

const sample = `Sample, written for this test.

-- sys/plain --
text
-- sys/secret 0400 --
1
-- sys/binary hex --
0000 01ff
0004 02
-- sys/empty/ --
-- proc/stat --
cpu  1
`

func TestMachine(t *testing.T) {
	m, err := powertest.Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	if m.About != "Sample, written for this test." {
		t.Errorf("it is about %q", m.About)
	}
	for name, want := range map[string]string{"plain": "text\n", "binary": "\x01\xff\x00\x00\x02"} {
		if got, err := fs.ReadFile(m.Sys(), name); err != nil || string(got) != want {
			t.Errorf("%s has %q, %v, want %q", name, got, err, want)
		}
	}
	if _, err := fs.ReadFile(m.Sys(), "secret"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("what is for root fails with %v", err)
	}
	if got, err := fs.ReadFile(m.AsRoot().Sys(), "secret"); err != nil || string(got) != "1\n" {
		t.Errorf("root reads %q, %v", got, err)
	}
	if err := fstest.TestFS(m.AsRoot().Sys(), "plain", "secret", "binary", "empty"); err != nil {
		t.Error(err)
	}
	if err := fstest.TestFS(m.Proc(), "stat"); err != nil {
		t.Error(err)
	}
}

func TestFilesChange(t *testing.T) {
	m, err := powertest.Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	m.Set("sys/plain", "other")
	m.Chmod("sys/secret", 0o444)
	m.Remove("sys/empty")
	if got, _ := fs.ReadFile(m.Sys(), "plain"); string(got) != "other" {
		t.Errorf("it still has %q", got)
	}
	if _, err := fs.ReadFile(m.Sys(), "secret"); err != nil {
		t.Error(err)
	}
	if _, err := fs.Stat(m.Sys(), "empty"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was removed: %v", err)
	}
}

func TestTreeIsWrittenBesideWhatIsThere(t *testing.T) {
	m, err := powertest.Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.WriteSys(folder); err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(os.DirFS(folder), "other", "plain", "secret", "binary", "empty"); err != nil {
		t.Error(err)
	}
}

func TestFaultyMachines(t *testing.T) {
	for name, text := range map[string]string{
		"hex that is none":  "-- a hex --\n0000 zz\n",
		"no offset":         "-- a hex --\nff\n",
		"a mode that is no": "-- a 9 --\n",
		"twice":             "-- a --\n-- a --\n",
		"no path":           "-- /a --\n",
	} {
		if _, err := powertest.Parse([]byte(text)); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
}

func TestEveryMachineSaysWhereItIsFrom(t *testing.T) {
	names := powertest.Names(t)
	if len(names) < 7 {
		t.Errorf("there are only %v", names)
	}
	for _, name := range names {
		about := powertest.Load(t, name).About
		if !strings.Contains(about, "Linux ") ||
			!strings.Contains(about, "recorded by joulemux capture") && !strings.Contains(about, "written from documentation, not recorded") {
			t.Errorf("%s does not say its kernel and where it is from: %q", name, about)
		}
	}
}

func TestLogRemembersWhatWasOpened(t *testing.T) {
	m, err := powertest.Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	log := powertest.NewLog(m.Sys())
	_, _ = fs.ReadFile(log, "plain")
	_, _ = fs.ReadFile(log, "secret")
	_, _ = fs.ReadFile(log, "missing")
	_, _ = fs.Stat(log, "plain")
	_, _ = fs.ReadDir(log, "empty")
	if got := strings.Join(log.Opened(), " "); got != "empty missing plain secret" {
		t.Errorf("opened: %s", got)
	}
}

func TestWhatDisturbsASleepingGPU(t *testing.T) {
	const gpu = "bus/pci/devices/0000:01:00.0"
	for name, want := range map[string]bool{
		"/dev/nvidia0": true, "/dev/nvidiactl": true, "/proc/driver/nvidia": false,
		gpu: true, gpu + "/vendor": false, "/sys/" + gpu + "/power/runtime_status": false, "/tmp/a/sys/" + gpu + "/power": true,
		gpu + "/config": true, gpu + "/hwmon/hwmon6/power1_input": true, gpu + "/current_link_speed": true,
		"bus/pci/devices/0000:00:02.0/config": true, "bus/pci/devices/0000:00:02.0/hwmon": false, "/home/me/config": false,
		"bus/pci/devices": false, "class/hwmon": true, "class/hwmon/hwmon6/temp1_input": true,
		"class/drm/card1/device/vendor": false, "class/drm/card1/device/gpu_metrics": true,
	} {
		if powertest.Disturbs(name) != want {
			t.Errorf("%s: got %v", name, !want)
		}
	}
}
