package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/joulemux/joulemux/cmd/program"
	"github.com/joulemux/joulemux/packaging/rig"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/nvml"
	"github.com/joulemux/joulemux/systemd"
)

const gpu = "0000:01:00.0"

// programs are built once for all tests.
var programs struct{ cgo, pure string }

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	folder, err := os.MkdirTemp("", "joulemux-nvml-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(folder)
	programs.cgo, programs.pure = filepath.Join(folder, "cgo"), filepath.Join(folder, "pure")
	for _, args := range [][]string{
		{"CGO_ENABLED=1", "-race", "-ldflags=-extldflags=-Wl,-z,lazy", "-o", programs.cgo},
		{"CGO_ENABLED=0", "-o", programs.pure},
	} {
		cmd := exec.Command("go", append(append([]string{"build"}, args[1:]...), ".")...)
		cmd.Env = append(os.Environ(), args[0])
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Printf("%v: %v\n%s", args, err, out)
			return 1
		}
	}
	return m.Run()
}

// laptop is a machine with an NVIDIA GPU, a driver's library that is none, and
// a service manager that starts the program when somebody connects.
type laptop struct {
	folder, program string
	env             []string
	sensor          *nvml.Sensor
	started         chan *exec.Cmd // one for each time
	ended           chan string    // what it said
}

// startLaptop makes a laptop whose GPU is awake. Faults are the library's, and
// without the functions that it lacks.
func startLaptop(t *testing.T, program, fault string, without ...string) *laptop {
	t.Helper()
	folder, err := os.MkdirTemp("", "laptop-") // Short enough for a socket's path.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	l := &laptop{folder: folder, program: program, started: make(chan *exec.Cmd, 10), ended: make(chan string, 10)}
	l.write(t, "sys/bus/pci/devices/"+gpu+"/class", "0x030200")
	l.write(t, "sys/bus/pci/devices/"+gpu+"/vendor", "0x10de")
	l.setStatus(t, "active")
	l.write(t, "nvidiactl", "")
	if err := rig.NVML(t.Context(), filepath.Join(folder, "lib"), without...); err != nil {
		t.Fatal(err)
	}
	l.env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(folder, "lib"), "NVML_STUB_LOG="+filepath.Join(folder, "calls"),
		"NVML_STUB_DEVICE="+filepath.Join(folder, "nvidiactl"), "NVML_STUB_DELAY=200", "NVML_STUB_FAULT="+fault,
		"GORACE=atexit_sleep_ms=0") // The detector makes programs end a second later.

	socket := filepath.Join(folder, "nvml.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	manage(t, l, listener)
	sensors, err := nvml.Find(os.DirFS(l.sys()), socket)
	if err != nil || len(sensors) != 1 {
		t.Fatalf("%d sensors, %v", len(sensors), err)
	}
	l.sensor = sensors[0]
	t.Cleanup(l.sensor.Rest)
	return l
}

// manage plays the service manager until the test ends.
func manage(t *testing.T, l *laptop, listener *net.UnixListener) {
	t.Helper()
	file, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		for ctx.Err() == nil {
			waiting := []unix.PollFd{{Fd: int32(file.Fd()), Events: unix.POLLIN}}
			if n, _ := unix.Poll(waiting, 20); n > 0 {
				l.ended <- l.serve(ctx, file)
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-over
		_ = file.Close()
		_ = listener.Close()
	})
}

// serve starts the program as a service manager does, and returns what it said
// and how it ended. The shell is there because LISTEN_PID is known to the child
// only.
func (l *laptop) serve(ctx context.Context, socket *os.File) string {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, l.program, "--sysfs", l.sys(), "--log-level", "debug")
	cmd.Env = append(slices.Clone(l.env), "LISTEN_FDS=1", "LISTEN_FDNAMES="+systemd.NVML)
	cmd.ExtraFiles = []*os.File{socket}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	l.started <- cmd
	if err := cmd.Wait(); err != nil {
		fmt.Fprintln(&said, err)
	}
	return said.String()
}

func (l *laptop) sys() string { return filepath.Join(l.folder, "sys") }

func (l *laptop) setStatus(t *testing.T, status string) {
	t.Helper()
	l.write(t, "sys/bus/pci/devices/"+gpu+"/power/runtime_status", status)
}

func (l *laptop) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(l.folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// calls returns what was called of the library, which was not loaded if there
// is nothing.
func (l *laptop) calls(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(l.folder, "calls"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// read reads the sensor until it says something else than that it waits.
func (l *laptop) read(t *testing.T) (power.Reading, error) {
	t.Helper()
	for ctx := t.Context(); ; {
		r, err := l.sensor.Read(ctx)
		if err == nil || !strings.Contains(err.Error(), "has not been read yet") {
			return r, err
		}
	}
}

// readAfter reads the sensor until it has looked again.
func (l *laptop) readAfter(t *testing.T, last power.Reading) power.Reading {
	t.Helper()
	for {
		r, err := l.read(t)
		if err != nil {
			t.Fatal(err)
		}
		if r.At.After(last.At) {
			return r
		}
	}
}

// awaitEnd waits until the program has ended, and returns what it said.
func (l *laptop) awaitEnd(t *testing.T) string {
	t.Helper()
	select {
	case said := <-l.ended:
		return said
	case <-time.After(20 * time.Second):
		t.Fatal("the program does not end")
		return ""
	}
}

// holds reports whether a process has the stand-in's device open.
func (l *laptop) holds(t *testing.T, process *exec.Cmd) bool {
	t.Helper()
	folder := fmt.Sprintf("/proc/%d/fd", process.Process.Pid)
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(f os.DirEntry) bool {
		target, err := os.Readlink(filepath.Join(folder, f.Name()))
		return err == nil && target == filepath.Join(l.folder, "nvidiactl")
	})
}

func TestEnergyIsReadAndNothingIsHeldAfterwards(t *testing.T) {
	l := startLaptop(t, programs.cgo, "")
	first, err := l.read(t)
	if err != nil {
		t.Fatal(err)
	}
	process := <-l.started
	if !l.holds(t, process) {
		t.Error("the stand-in is in use, and its device is not open")
	}
	last := first
	for last.At.Sub(first.At) < 2*time.Second {
		last = l.readAfter(t, last)
	}
	if d := l.sensor.Domain(); !d.Cumulative {
		t.Errorf("the domain is %+v", d)
	}
	// The counter is renewed every 100 ms, in which the GPU takes 3 J.
	elapsed := last.At.Sub(first.At)
	if off := (last.Energy - first.Energy).Joules() - (30 * power.Watt).For(elapsed).Joules(); off < -3.1 || off > 3.1 {
		t.Errorf("%v in %v is off by %.2f J", last.Energy-first.Energy, elapsed, off)
	}

	l.sensor.Rest()
	if said := l.awaitEnd(t); strings.Contains(said, "exit status") {
		t.Error(said)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", process.Process.Pid)); err == nil {
		t.Error("the process is there")
	}
	calls := l.calls(t)
	if calls[0] != "load" || calls[len(calls)-1] != "nvmlShutdown" {
		t.Errorf("the calls were %v", calls)
	}
}

func TestHardwareIsReadTwiceASecondHoweverOftenTheSensorIs(t *testing.T) {
	l := startLaptop(t, programs.cgo, "")
	first, err := l.read(t)
	if err != nil {
		t.Fatal(err)
	}
	const seconds = 3
	reads := 0
	for last := first; last.At.Sub(first.At) < seconds*time.Second; reads++ {
		if last, err = l.read(t); err != nil {
			t.Fatal(err)
		}
	}
	looks := 0
	for _, call := range l.calls(t) {
		if call == "nvmlDeviceGetTotalEnergyConsumption" {
			looks++
		}
	}
	// Three may be saved up for the beginning.
	if looks < 2*seconds || looks > 3+2*seconds+1 || reads < 10*looks {
		t.Errorf("%d looks at the hardware for %d reads in %d s", looks, reads, seconds)
	}
}

func TestLibraryIsNotLoadedForASleepingGPU(t *testing.T) {
	l := startLaptop(t, programs.cgo, "")
	l.setStatus(t, "suspended")
	if _, err := l.sensor.Read(t.Context()); !errors.Is(err, power.ErrAsleep) {
		t.Errorf("got %v", err)
	}
	// Nor is it by the program, whoever asks.
	conn, err := net.Dial("unix", filepath.Join(l.folder, "nvml.sock"))
	if err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4096)
	if _, err := conn.Write([]byte(`{"read":"` + gpu + `"}` + "\n")); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(answer)
	if err != nil || !strings.Contains(string(answer[:n]), `"kind":"asleep"`) {
		t.Errorf("%s, %v", answer[:n], err)
	}
	_ = conn.Close()
	l.awaitEnd(t)
	if calls := l.calls(t); len(calls) > 0 {
		t.Errorf("the calls were %v", calls)
	}
}

func TestGPUIsLetGoWhenItFallsAsleepAndReadWhenItWakesUp(t *testing.T) {
	l := startLaptop(t, programs.cgo, "")
	// Somebody else keeps the program running.
	conn, err := net.Dial("unix", filepath.Join(l.folder, "nvml.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	process := <-l.started
	var last power.Reading
	for round := range 2 {
		l.setStatus(t, "active")
		last = l.readAfter(t, last)
		if !l.holds(t, process) {
			t.Errorf("round %d: it is read, and its device is not open", round)
		}
		l.setStatus(t, "suspended")
		if _, err := conn.Write([]byte(`{"read":"` + gpu + `"}` + "\n")); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 4096)); n == 0 || err != nil {
			t.Fatal(err)
		}
		if l.holds(t, process) {
			t.Errorf("round %d: it sleeps, and its device is open", round)
		}
		if _, err := l.sensor.Read(t.Context()); !errors.Is(err, power.ErrAsleep) {
			t.Errorf("round %d: %v", round, err)
		}
	}
}

func TestWhatIsWrongWithNVMLIsOnlyAnAbsentSensor(t *testing.T) {
	for _, tt := range []struct {
		name, program, fault string
		without              []string
		want                 string
	}{
		{name: "a driver of another version", fault: "mismatch", want: "Driver/library version mismatch"},
		{name: "no driver", fault: "no-driver", want: "Driver Not Loaded"},
		{name: "a GPU that fell off its bus", fault: "lost", want: "GPU is lost"},
		{name: "a GPU that tells nothing", fault: "no-figures", want: "not supported"},
		{name: "a library that lacks what is needed", without: []string{"WITHOUT_SHUTDOWN"}, want: "nvmlShutdown"},
		{name: "a library that crashes", fault: "crash", want: "EOF"},
		{name: "a build without C", program: programs.pure, want: "built without cgo"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			program := tt.program
			if program == "" {
				program = programs.cgo
			}
			l := startLaptop(t, program, tt.fault, tt.without...)
			if r, err := l.read(t); !errors.Is(err, power.ErrUnavailable) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v", r, err)
			} else {
				t.Log(err)
			}
			l.awaitEnd(t)
		})
	}
	t.Run("no library", func(t *testing.T) {
		t.Parallel()
		l := startLaptop(t, programs.cgo, "")
		if err := os.RemoveAll(filepath.Join(l.folder, "lib")); err != nil {
			t.Fatal(err)
		}
		if _, err := l.read(t); !errors.Is(err, power.ErrUnavailable) || !strings.Contains(err.Error(), "libnvidia-ml.so.1") {
			t.Errorf("got %v", err)
		}
		l.awaitEnd(t)
	})
}

func TestGPUWithoutCounterTellsItsDraw(t *testing.T) {
	for _, l := range []*laptop{startLaptop(t, programs.cgo, "no-energy"), startLaptop(t, programs.cgo, "", "WITHOUT_ENERGY")} {
		r, err := l.read(t)
		if err != nil || r.Draw != 30*power.Watt || l.sensor.Domain().Cumulative {
			t.Errorf("got %+v, %v, %+v", r, err, l.sensor.Domain())
		}
	}
}

func TestLibraryThatHangsBlocksNoJob(t *testing.T) {
	l := startLaptop(t, programs.cgo, "hang")
	for start := time.Now(); time.Since(start) < time.Second || len(l.calls(t)) == 0; { // It runs.
		if r, err := l.sensor.Read(t.Context()); !errors.Is(err, power.ErrUnavailable) {
			t.Fatalf("got %+v, %v", r, err)
		}
	}
	process := <-l.started
	l.sensor.Rest()
	if err := process.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if said := l.awaitEnd(t); !strings.Contains(said, "NVML does not answer") {
		t.Error(said)
	}
}

func TestMeasurementForPeople(t *testing.T) {
	l := startLaptop(t, programs.cgo, "")
	said, err := l.run(t, "--measure", "1s")
	for _, want := range []string{"GPU 0000:01:00.0, watched for 1", "counter: renewed every ", "counted, ", "call for energy: ", "call for draw: "} {
		if err != nil || !strings.Contains(said, want) {
			t.Errorf("%v, and no %q in\n%s", err, want, said)
		}
	}
	t.Log(said)
	l.setStatus(t, "suspended")
	loaded := len(l.calls(t))
	if said, err := l.run(t, "--measure", "1s"); err == nil || !strings.Contains(said, "GPU 0000:01:00.0 is suspended") {
		t.Errorf("%v, %s", err, said)
	}
	if calls := l.calls(t); len(calls) != loaded {
		t.Errorf("the calls were %v", calls[loaded:])
	}
}

func TestWhatIsNoCommandIsSaid(t *testing.T) {
	l := startLaptop(t, programs.cgo, "")
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, program.ExitFailure, "joulemux-nvml.socket"},
		{[]string{"now"}, program.ExitUsage, `unexpected argument "now"`},
		{[]string{"--measure", "long"}, program.ExitUsage, "invalid value"},
		{[]string{"--log-level", "loud"}, program.ExitFailure, "--log-level"},
		{[]string{"--version"}, 0, "joulemux-nvml "},
	} {
		said, err := l.run(t, tt.args...)
		code := 0
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		if code != tt.code || !strings.Contains(said, tt.want) {
			t.Errorf("%q: exit code %d, %s", tt.args, code, said)
		}
	}
}

// run runs the program by hand.
func (l *laptop) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), l.program, append([]string{"--sysfs", l.sys()}, args...)...)
	cmd.Env = l.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}
