package rig_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/packaging/rig"
	"github.com/joulemux/joulemux/packaging/rig/rigtest"
)

func TestMain(m *testing.M) {
	if os.Getenv("RIG_TEST_VICTIM") != "" {
		victim()
	}
	os.Exit(m.Run())
}

func TestUPowerFollowsTheMachine(t *testing.T) {
	m, read := startMachine(t)
	if err := m.StartUPower(t.Context()); err != nil {
		t.Fatal(err)
	}
	// UPower's numbers: State 1 charging, 2 discharging; WarningLevel 1 none,
	// 3 low, 4 critical; Type 2 battery, 0 unknown.
	steps := []struct {
		name   string
		change func() error
		want   map[string]string
	}{
		{
			"it begins on battery", func() error { return nil },
			map[string]string{"OnBattery": "b true", "Percentage": "d 80", "EnergyRate": "d 14", "State": "u 2"},
		},
		{
			"plugging in charges", m.Plug,
			map[string]string{"OnBattery": "b false", "State": "u 1"},
		},
		{
			"a weak charger does not", func() error { return m.SetStatus("Discharging") },
			map[string]string{"OnBattery": "b false", "State": "u 2"},
		},
		{
			"unplugging ends it", m.Unplug,
			map[string]string{"OnBattery": "b true", "State": "u 2", "WarningLevel": "u 1"},
		},
		{
			"18 % is low", func() error { return m.SetCharge(18) },
			map[string]string{"Percentage": "d 18", "WarningLevel": "u 3"},
		},
		{
			"4 % is critical", func() error { return m.SetCharge(4) },
			map[string]string{"Percentage": "d 4", "WarningLevel": "u 4"},
		},
		{
			"it draws more", func() error { return m.SetDraw(31.5) },
			map[string]string{"EnergyRate": "d 31.5"},
		},
		{
			"two batteries make one", func() error { return m.Add("BAT1", rig.Battery(84)) },
			map[string]string{"Percentage": "d 44", "WarningLevel": "u 1", "EnergyRate": "d 45.5"},
		},
		{
			"without batteries it is a desktop", m.RemoveBatteries,
			map[string]string{"OnBattery": "b false", "Type": "u 0"},
		},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			start := time.Now()
			if err := step.change(); err != nil {
				t.Fatal(err)
			}
			for property, want := range step.want {
				await(t, property+" to be "+want, func() bool { return read(property) == want })
				t.Logf("%s after %v", property, time.Since(start).Round(time.Millisecond))
			}
		})
	}
}

func TestUPowerComesAndGoes(t *testing.T) {
	m, read := startMachine(t)
	for range 2 {
		if got := read("OnBattery"); got != "" {
			t.Fatalf("somebody says %q before upowerd runs", got)
		}
		if err := m.StartUPower(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := read("Percentage"); got != "d 80" {
			t.Errorf("upowerd begins with a charge of %q, want d 80", got)
		}
		if err := m.StopUPower(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheTreeReadsLikeTheKernels(t *testing.T) {
	m, _ := startMachine(t)
	got, err := os.ReadFile(filepath.Join(m.SysDir(), "class/power_supply/BAT0/capacity"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(got)) != "80" {
		t.Errorf("capacity is %q, want 80", got)
	}
	err = m.Set(map[string]rig.Attributes{"BAT7": {"capacity": "1"}})
	if err == nil || !strings.Contains(err.Error(), "BAT7") {
		t.Errorf("changing a supply that is not there: %v", err)
	}
}

func TestThePowerProfileIsTheUsers(t *testing.T) {
	m, _ := startMachine(t)
	p, err := rig.StartPowerProfiles(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, p)

	firmware := filepath.Join(m.SysDir(), "firmware/acpi/platform_profile")
	for profile, want := range map[string]string{"power-saver": "low-power", "performance": "performance", "balanced": "balanced"} {
		if err := p.Set(t.Context(), profile); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(firmware)
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(got)) != want {
			t.Errorf("with profile %s the firmware is set to %q, want %q", profile, got, want)
		}
	}
	if err := p.Set(t.Context(), "ludicrous"); err == nil {
		t.Error("a profile that does not exist was accepted")
	}
}

func TestBothDaemonsHearOfTheHardware(t *testing.T) {
	m, read := startMachine(t)
	if err := m.StartUPower(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := rig.StartPowerProfiles(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, p)
	if err := m.SetCharge(33); err != nil {
		t.Fatal(err)
	}
	await(t, "upowerd, which came first, to hear", func() bool { return read("Percentage") == "d 33" })
}

func TestOllamaSpeaksInWords(t *testing.T) {
	s := rigtest.Ollama(t)
	var answer struct {
		Response  string `json:"response"`
		EvalCount int    `json:"eval_count"`
	}
	err := generate(t.Context(), s, `{"model": "tiny", "prompt": "Why is the sky blue?", "stream": false, "options": {"num_predict": 64}}`, &answer)
	if err != nil {
		t.Fatal(err)
	}
	if answer.EvalCount != 64 {
		t.Errorf("%d tokens, want the 64 asked for", answer.EvalCount)
	}
	if !regexp.MustCompile(`^( [A-Za-z]+\.?)+$`).MatchString(answer.Response) {
		t.Errorf("not words: %q", answer.Response)
	}
	t.Log(answer.Response)
}

func TestOllamaThaws(t *testing.T) {
	s := rigtest.Ollama(t)
	short := `{"model": "tiny", "prompt": "x", "options": {"num_predict": 1}}`
	if err := generate(t.Context(), s, short, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.FreezeRunners(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := generate(ctx, s, short, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with its runner frozen: %v, want nothing until the deadline", err)
	}
	if err := s.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := generate(t.Context(), s, short, nil); err != nil {
		t.Errorf("after the thaw: %v", err)
	}
}

func TestNothingOutlivesUs(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "RIG_TEST_VICTIM=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var parent, child int
	if _, err := fmt.Fscan(out, &parent, &child); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // It was killed: that is what it says.
	for _, pid := range []int{parent, child} {
		await(t, fmt.Sprintf("process %d to end", pid), func() bool { return !alive(pid) })
	}
}

// victim starts a family, prints its numbers, and waits to be killed.
func victim() {
	cmd := exec.CommandContext(context.Background(), "/bin/sh", "-c", "sleep 600 & echo $!; wait")
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	cmd.Stdout = w
	p, err := rig.StartFamily(cmd)
	if err != nil {
		panic(err)
	}
	child, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		panic(err)
	}
	if _, err := fmt.Fprintln(os.Stdout, p.PID(), child); err != nil {
		panic(err)
	}
	select {}
}

// alive says whether a process runs. One that nobody has reaped does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

func TestAUserManagerRunsWhatIsInstalled(t *testing.T) {
	needRig(t)
	if os.Getuid() != 0 {
		if testing.Short() {
			t.Skip("it takes root to give a user manager a machine of its own")
		}
		t.Fatal("it takes root to give a user manager a machine of its own: run as root, or with -short")
	}
	installed := t.TempDir()
	units := filepath.Join(installed, "usr/lib/systemd/user")
	unit := "[Service]\nType=oneshot\nProtectSystem=strict\n" +
		"StandardOutput=file:%t/said\nStandardError=inherit\n" +
		"ExecStart=/bin/sh -c 'touch /usr/x || id -un'\n"
	if err := errors.Join(
		os.MkdirAll(units, 0o755),
		os.WriteFile(filepath.Join(units, "rig-test.service"), []byte(unit), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	script := `systemctl --user is-system-running
		systemctl --user start rig-test
		cat "$XDG_RUNTIME_DIR/said"
		exit 7`
	userns, err := rig.Script("userns")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), userns, "--root", installed, "--", "bash", "-c", script)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("exit: %v, want the script's own 7", err)
	}
	for _, want := range []string{"running\n", "Read-only file system\n", "joule\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in what it says: %s", want, out)
		}
	}
}

// startMachine starts a machine without upowerd, and returns a function that
// reads a property of UPower or of its display device.
func startMachine(t *testing.T) (*rig.Machine, func(property string) string) {
	t.Helper()
	needRig(t)
	start := time.Now()
	bus, err := rig.StartBus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closing(t, bus) })
	t.Logf("bus after %v", time.Since(start).Round(time.Millisecond))
	m, err := rig.StartMachine(t.Context(), bus.Address(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closing(t, m) })
	t.Logf("machine after %v", time.Since(start).Round(time.Millisecond))

	return m, func(property string) string {
		object, iface := "/org/freedesktop/UPower/devices/DisplayDevice", "org.freedesktop.UPower.Device"
		if property == "OnBattery" {
			object, iface = "/org/freedesktop/UPower", "org.freedesktop.UPower"
		}
		out, _ := exec.CommandContext(t.Context(), "busctl", "--address="+bus.Address(),
			"get-property", "org.freedesktop.UPower", object, iface, property).Output()
		return strings.TrimSpace(string(out)) // Empty if nobody answers.
	}
}

// generate asks for an answer, and unpacks it unless it is of no interest.
func generate(ctx context.Context, s *rig.Ollama, request string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+"/api/generate", strings.NewReader(request))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	if answer == nil {
		_, err := io.Copy(io.Discard, resp.Body)
		return err
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

// await waits, 30 seconds at most, for something that the parts do in their
// own time.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func closing(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func needRig(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real daemons")
	}
}
