package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/daemontest"
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
func expectNVIDIA(t *testing.T, l *login) {
	t.Helper()
	folder := nvidiaLaptop(t)
	l.run(t, fmt.Sprintf(`mkdir -p ~/.config/systemd/user/joulemux-nvml.service.d
		printf '[Service]\nEnvironment=LD_LIBRARY_PATH=%[1]s NVML_STUB_LOG=%%%%h/calls\nExecStart=\nExecStart=/usr/bin/joulemux-nvml --sysfs %[1]s\n' >~/.config/systemd/user/joulemux-nvml.service.d/stand-in.conf
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

// nvidiaLaptop makes a folder that anybody can read, with the tree of a machine
// whose NVIDIA GPU is awake, and the library.
func nvidiaLaptop(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "nvidia-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	device := filepath.Join(folder, "bus/pci/devices/0000:01:00.0")
	if err := os.MkdirAll(filepath.Join(device, "power"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"class": "0x030200", "vendor": "0x10de", "power/runtime_status": "active"} {
		if err := os.WriteFile(filepath.Join(device, name), []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := rig.NVML(t.Context(), folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return folder
}
