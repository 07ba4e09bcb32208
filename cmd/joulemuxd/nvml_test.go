package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/packaging/rig"
)

// askNVIDIA asks the reader of NVIDIA GPUs twice on one connection.
const askNVIDIA = `python3 -c '
import os, socket
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect(os.environ["XDG_RUNTIME_DIR"] + "/joulemux/nvml.sock")
lines = s.makefile()
for _ in range(2):
	s.sendall(b"{\"read\": \"0000:01:00.0\"}\n")
	print(lines.readline(), end="")
'`

// expectNVIDIA has the reader as it is installed, with all that confines it,
// read a GPU through a library that stands in for NVIDIA's.
func expectNVIDIA(t *testing.T, l *login, folder string) {
	t.Helper()
	l.run(t, fmt.Sprintf(`mkdir -p ~/.config/systemd/user/joulemux-nvml.service.d
		touch ~/nvidiactl
		printf '[Service]\nEnvironment=LD_LIBRARY_PATH=%[1]s NVML_STUB_LOG=%%%%h/calls NVML_STUB_DEVICE=%%%%h/nvidiactl NVML_STUB_DELAY=300\nExecStart=\nExecStart=/usr/bin/joulemux-nvml --sysfs %[1]s\n' >~/.config/systemd/user/joulemux-nvml.service.d/stand-in.conf
		systemctl --user daemon-reload
		systemctl --user start joulemuxd.service`, folder))
	l.run(t, "systemctl --user is-active joulemux-nvml.socket", "active")
	l.run(t, `stat -c '%a %U %F' "$XDG_RUNTIME_DIR/joulemux/nvml.sock"`, "600 joule socket")
	for range 2 {
		said := l.run(t, askNVIDIA, `"power_mw":30000`)
		t.Log(said)
		if n := strings.Count(said, `"energy_mj":`); n != 2 {
			t.Errorf("%d answers tell an energy", n)
		}
		daemontest.Eventually(t, "the end of the reader", func() bool {
			return l.run(t, "systemctl --user show --value -p ActiveState joulemux-nvml.service") == "inactive"
		})
		l.run(t, "systemctl --user show --value -p Result joulemux-nvml.service", "success")
		l.run(t, "tail -n 1 ~/calls", "nvmlShutdown")
	}
}

// waking is a server whose jobs wake up a GPU.
func waking(t *testing.T, folder string) (addr string) {
	t.Helper()
	answer := unhurried(daemontest.CannedOllama())
	return daemontest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			setStatus(t, folder, "active")
		}
		answer.ServeHTTP(w, r)
	}))
}

// expectMeasured has a job of three seconds wake up a GPU, which then draws 30 W.
// Opening its library takes a tenth of that time. It returns how often that was done.
func expectMeasured(t *testing.T, l *login, folder, server string) (opened string) {
	t.Helper()
	setStatus(t, folder, "suspended")
	l.configure(t, "backends:\n  - {id: ollama-nvidia, hardware: nvidia, characteristics: {power_watts: 80}, endpoint: 'http://"+server+"'}")
	l.run(t, fmt.Sprintf(`mkdir -p ~/.config/systemd/user/joulemuxd.service.d
		printf '[Service]\nExecStart=\nExecStart=/usr/bin/joulemuxd --sysfs %s\n' >~/.config/systemd/user/joulemuxd.service.d/laptop.conf
		systemctl --user daemon-reload
		systemctl --user restart joulemuxd.service`, folder))
	said := l.run(t, "joulemux generate --json --model llama3.2:1b --max-tokens 30 'Why is the sky blue?'")
	ended := time.Now()
	opened = l.run(t, nvmlOpened)
	// Whatever has the library or the device open: all processes here are the user's.
	const holders = `grep -ls libnvidia-ml /proc/[0-9]*/maps; find /proc/[0-9]*/fd -lname '*/nvidiactl' 2>/dev/null
		systemctl --user show --value -p ActiveState joulemux-nvml.service`
	daemontest.Eventually(t, "a GPU that nobody holds", func() bool { return l.run(t, holders) == "inactive" })
	if after := time.Since(ended); after > 10*time.Second { // two, and what a loaded machine adds
		t.Errorf("nobody holds the GPU only %v after the job", after)
	} else {
		t.Logf("nobody holds the GPU %v after the job", after.Round(time.Millisecond))
	}

	lines := strings.Split(said, "\n")
	var last wire.Event
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.End == nil {
		t.Fatalf("%v in %s", err, said)
	}
	own := last.End
	t.Logf("the answer says %v", own)
	joules, _ := own["energy_joules"].(float64)
	coverage, _ := own["energy_coverage"].(float64)
	took, _ := own["total_time_ms"].(float64)
	if own["energy_quality"] != "measured" || own["energy_source"] != "nvml" || coverage < 0.5 {
		t.Errorf("it is not measured well: %v", own)
	}
	// The counter is renewed every 100 ms, in which the GPU takes 3 J, at either
	// end. The time includes what it took to look for the server.
	if least, most := 30*coverage*3-6, 30*took/1000+3; joules < least || joules > most {
		t.Errorf("%v J, want %.1f to %.1f", joules, least, most)
	}
	return opened
}

// readHeld prints what the ledger has of backends that held models, in tens of watts:
// the counter is renewed every 100 ms, which is 5 % of what is measured.
const readHeld = `python3 -c '
import os, sqlite3
ledger = sqlite3.connect(os.path.expanduser("~/.local/state/joulemux/ledger.db"))
for row in ledger.execute("SELECT backend, round(value / 1e7), count FROM learned WHERE figure = ?", ["hold_draw"]):
	print(*row)
'`

// nvmlOpened prints how often the library was opened.
const nvmlOpened = "grep -c nvmlInit ~/calls"

// expectHeld has measured what the GPU draws while it holds the model of the last
// job, after which the library had been opened so often. Nobody asks for anything.
// Where a loaded machine starts the reader too late for that, it is left to the next
// job.
func expectHeld(t *testing.T, l *login, folder, opened string) {
	t.Helper()
	for range 5 {
		daemontest.Eventually(t, "another look at the GPU", func() bool { return l.run(t, nvmlOpened) != opened })
		daemontest.Eventually(t, "the end of the reader", func() bool {
			return l.run(t, "systemctl --user show --value -p ActiveState joulemux-nvml.service") == "inactive"
		})
		l.stop(t) // the ledger is its own until then
		if said := l.run(t, readHeld); said != "" || t.Failed() {
			if t.Log(said); said != "ollama-nvidia 3.0 1" {
				t.Errorf("the ledger has %q", said)
			}
			return
		}
		setStatus(t, folder, "suspended")
		l.run(t, "joulemux generate --model llama3.2:1b --max-tokens 30 'Why?'")
		opened = l.run(t, nvmlOpened)
	}
	t.Error("it is never measured")
}

// nvidiaLaptop makes a folder that anybody can read, with the tree of a machine
// whose NVIDIA GPU is awake, and the library.
func nvidiaLaptop(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "nvidia-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.MkdirAll(filepath.Join(folder, nvidiaGPU, "power"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"class": "0x030200\n", "vendor": "0x10de\n"} {
		if err := os.WriteFile(filepath.Join(folder, nvidiaGPU, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	setStatus(t, folder, "active")
	if err := rig.NVML(t.Context(), folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return folder
}

// nvidiaGPU is the GPU of that machine.
const nvidiaGPU = "bus/pci/devices/0000:01:00.0"

// setStatus has the GPU fall asleep or wake up.
func setStatus(t *testing.T, folder, status string) {
	t.Helper()
	name := filepath.Join(folder, nvidiaGPU, "power", "runtime_status")
	// In one step: somebody reads it at the same time.
	if err := errors.Join(os.WriteFile(name+".new", []byte(status+"\n"), 0o644), os.Rename(name+".new", name)); err != nil {
		t.Error(err)
	}
}
