package daemon

import (
	"context"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/energyd"
	"github.com/joulemux/joulemux/power/meter"
	"github.com/joulemux/joulemux/power/powertest"
	"github.com/joulemux/joulemux/power/sysfs"
)

// newcomer is a machine to which sensors come, and its meter.
type newcomer struct {
	*powertest.Machine
	metering
	log *powertest.Log
}

func startNewcomer(t *testing.T, m *powertest.Machine, socket string) *newcomer {
	t.Helper()
	log := powertest.NewLog(m.Sys())
	f := &finder{sys: log, energy: socket, log: slog.New(slog.DiscardHandler)}
	n := &newcomer{m, metering{meter.New(meter.Options{Sensors: f.start(t.Context())}), f}, log}
	t.Cleanup(n.Close)
	return n
}

// job begins and ends one, a minute after the last look for sensors.
func (n *newcomer) job(t *testing.T) {
	t.Helper()
	n.finder.looked = time.Now().Add(-seldom)
	n.Begin(t.Context(), meter.Work{Class: power.CPU}).End(t.Context(), 0, 0)
}

func TestSensorsThatComeAfterTheDaemon(t *testing.T) {
	const counter, gpu = "sys/class/powercap/intel-rapl:0/energy_uj", "gpu 0000:2f:00.0"
	n := startNewcomer(t, powertest.Load(t, "meteor-lake"), "")
	if n.Reads("package-0") || n.Reads(gpu) {
		t.Fatal("they are there already")
	}
	n.Chmod(counter, 0o444)
	n.Set("sys/bus/pci/devices/0000:2f:00.0/class", "0x030000\n")
	n.Set("sys/bus/pci/devices/0000:2f:00.0/vendor", "0x10de\n")
	n.Begin(t.Context(), meter.Work{Class: power.CPU}).End(t.Context(), 0, 0)
	if n.Reads("package-0") {
		t.Error("it looks for every job")
	}
	n.job(t)
	if !n.Reads("package-0") || !n.Reads(gpu) {
		t.Error("they are not found")
	}
	n.Remove("sys/class/powercap")
	n.job(t)
	if n.Reads("package-0") || !n.Reads(gpu) {
		t.Error("what has gone is kept")
	}
}

func TestDriverThatIsLoadedLater(t *testing.T) {
	const gpu = "bus/pci/devices/0000:c4:00.0/"
	m := powertest.Load(t, "strix")
	files := make(map[string]string)
	for _, name := range []string{gpu + "gpu_metrics", gpu + "hwmon/hwmon4/power1_average"} {
		text, err := fs.ReadFile(m.Sys(), name)
		if err != nil {
			t.Fatal(err)
		}
		files["sys/"+name] = string(text)
		m.Remove("sys/" + name)
	}
	n := startNewcomer(t, m, "")
	n.finder.unsure = false // as later on
	n.Set("sys/bus/pci/drivers/amdgpu/0000:c4:00.0/class", "0x030000\n")
	n.job(t)
	if n.Reads("npu") {
		t.Fatal("it is told of without its file")
	}
	for name, text := range files { // A driver has the device first, and its files are there a moment later.
		n.Set(name, text)
	}
	n.job(t)
	if !n.Reads("apu") || !n.Reads("npu") {
		t.Errorf("not found: %v", n.finder.current)
	}
}

func TestNothingIsLookedAtCloselyWithoutSigns(t *testing.T) {
	n := startNewcomer(t, powertest.Load(t, "strix"), "")
	n.job(t) // Once more, since not all may have been there at the start.
	used := n.finder.current
	log := powertest.NewLog(n.Sys())
	n.finder.sys = log
	n.job(t)
	for _, name := range log.Opened() {
		if strings.Contains(name, "gpu_metrics") || strings.Contains(name, "hwmon") {
			t.Errorf("%s was opened", name)
		}
	}
	if !n.finder.current.same(used) {
		t.Error("the sensors in use were replaced by the same")
	}
}

func TestSleepingGPUIsLeftAloneBySearches(t *testing.T) {
	n := startNewcomer(t, powertest.Load(t, "optimus"), "")
	for _, change := range []fs.FileMode{0o444, 0o400, 0o444} {
		n.Chmod("sys/class/powercap/intel-rapl:0/energy_uj", change)
		n.job(t)
	}
	if !n.Reads("package-0") {
		t.Error("a change was not seen")
	}
	for _, name := range n.log.Opened() {
		if powertest.Disturbs("/sys/" + name) {
			t.Errorf("%s was opened", name)
		}
	}
}

func TestHelperThatIsSetUpLater(t *testing.T) {
	folder, err := os.MkdirTemp("", "helper-") // Short enough for a socket's path.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	socket := filepath.Join(folder, "s")
	n := startNewcomer(t, powertest.Load(t, "meteor-lake"), socket)
	n.job(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	server := energyd.Server{
		Access: energyd.Access{Users: []uint32{uint32(os.Getuid())}}, Idle: time.Minute, Log: slog.New(slog.DiscardHandler),
	}
	for _, s := range sysfs.Sensors(powertest.Load(t, "meteor-lake").AsRoot().Sys()) {
		server.Readers = append(server.Readers, s)
	}
	go func() {
		defer close(ended)
		server.Serve(ctx, l)
	}()
	t.Cleanup(func() { stop(); <-ended })
	// It may take longer than a job waits, and then the next one has it.
	for end := time.Now().Add(10 * time.Second); !n.Reads("package-0"); {
		n.job(t)
		if time.Now().After(end) {
			t.Fatal("it is not found")
		}
	}
}

// BenchmarkBegin is what looking for sensors costs a job but once a minute.
func BenchmarkBegin(b *testing.B) {
	f := &finder{sys: powertest.Load(b, "meteor-lake").Sys(), log: slog.New(slog.DiscardHandler)}
	f.start(b.Context())
	for b.Loop() {
		f.renew(b.Context(), nil)
	}
}

func TestWhatSensorsHaveOpenIsClosedAtTheEnd(t *testing.T) {
	folder := t.TempDir()
	if err := powertest.Load(t, "optimus").WriteSys(folder); err != nil {
		t.Fatal(err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which closes files by and by
	open := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := open()
	f := &finder{sys: os.DirFS(folder), log: slog.New(slog.DiscardHandler)}
	n := &newcomer{nil, metering{meter.New(meter.Options{Sensors: f.start(t.Context())}), f}, nil}
	n.job(t)
	if open() == before {
		t.Error("nothing was opened")
	}
	n.Close()
	if now := open(); now > before {
		t.Errorf("of %d descriptors %d are left", before, now)
	}
}
