package rig_test

import (
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/joulemux/joulemux/packaging/rig"
)

func TestTraceTellsWhatProgramsReachFor(t *testing.T) {
	folder := t.TempDir()
	socket, err := net.Listen("unix", filepath.Join(folder, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	// The shell opens what it redirects, and starts cat and python3.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `: >there; ln -s there link; cat link missing
		python3 -c 'import os, socket
os.open("there", 0, dir_fd=os.open("/proc/self/cwd", 0))
socket.socket(socket.AF_UNIX).connect("socket")'`)
	cmd.Dir = folder
	trace := filepath.Join(folder, "trace")
	if err := rig.Trace(cmd, trace); err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	paths := func(program string) (all []string) {
		calls, err := rig.Calls(trace, program)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range calls {
			all = append(all, c.Paths()...)
		}
		return all
	}
	for _, tt := range []struct{ program, path string }{
		{"sh", filepath.Join(folder, "there")},
		{"cat", filepath.Join(folder, "link")},
		{"cat", filepath.Join(folder, "there")}, // where the link leads
		{"cat", filepath.Join(folder, "missing")},
		{"python3", filepath.Join(folder, "there")},
		{"python3", "socket"},
	} {
		if got := paths(tt.program); !slices.Contains(got, tt.path) {
			t.Errorf("%s does not reach for %s, but for %q", tt.program, tt.path, got)
		}
	}
	if got := paths("sh"); slices.Contains(got, filepath.Join(folder, "missing")) {
		t.Errorf("what cat opens is said to be opened by sh: %q", got)
	}
}
