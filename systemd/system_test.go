package systemd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/systemd"
)

// These are the units for the system's service manager, which can do more than
// a user's.
const (
	energyService = "system/joulemux-energyd.service"
	energySocket  = "system/joulemux-energyd.socket"
)

// systemUnits installs the units, and returns where they are.
func systemUnits(t *testing.T) []string {
	t.Helper()
	folder := t.TempDir()
	if err := os.Symlink(os.Args[0], filepath.Join(folder, "joulemux-energyd")); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, name := range []string{energyService, energySocket} {
		text := strings.ReplaceAll(readFile(t, name), "@LIBEXECDIR@", folder)
		path := filepath.Join(folder, filepath.Base(name))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// analyze is systemd's own view of units, in plain words: a locale that is not
// there has the shells that it runs complain.
func analyze(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "systemd-analyze", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0")
	return cmd
}

func TestSystemUnitsHaveNoFaults(t *testing.T) {
	cmd := analyze(t, append([]string{"verify"}, systemUnits(t)...)...)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestRootsHelperIsExposedToLittle(t *testing.T) {
	cmd := analyze(t, "--no-pager", "--offline=true", "security", systemUnits(t)[0])
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found := regexp.MustCompile(`Overall exposure level for joulemux-energyd.service: ([0-9.]+)`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("no score in\n%s", out)
	}
	const most = 2.0
	if score, err := strconv.ParseFloat(string(found[1]), 64); err != nil || score > most {
		t.Errorf("the score is %s, %v:\n%s", found[1], err, out)
	}
}

func TestHelperHasTheSocketThatItAsksFor(t *testing.T) {
	u := readUnit(t, energySocket)
	for key, want := range map[string]string{
		"FileDescriptorName": systemd.Energy, "SocketMode": "0660", "SocketGroup": "joulemux-energy", "WantedBy": "sockets.target",
	} {
		if !slices.Equal(u[key], []string{want}) {
			t.Errorf("%s is %q, want %q", key, u[key], want)
		}
	}
	// The group of the socket is the one that the helper answers.
	if got := readUnit(t, energyService)["ExecStart"]; len(got) != 1 || !strings.HasSuffix(got[0], " --allow-group="+fmt.Sprint(u["SocketGroup"][0])) {
		t.Errorf("it starts %q", got)
	}
}

func TestRootsHelperHasNoRights(t *testing.T) {
	u := readUnit(t, energyService)
	for key, want := range map[string]string{
		"CapabilityBoundingSet": "", "AmbientCapabilities": "", "DeviceAllow": "", "NoNewPrivileges": "yes", "TemporaryFileSystem": "/:ro",
		"RestrictAddressFamilies": "none", "IPAddressDeny": "any", "PrivateNetwork": "yes", "ProtectKernelTunables": "yes", "ProcSubset": "pid",
	} {
		if !slices.Equal(u[key], []string{want}) {
			t.Errorf("%s is %q, want %q", key, u[key], want)
		}
	}
	for key, why := range map[string]string{
		"ProtectSystem": "brings back the system's root directory", "PrivateTmp": "is a folder to write to",
		"PrivateUsers": "makes all callers one", "User": "cannot read what is root's", "ReadWritePaths": "is for those who write",
	} {
		if u[key] != nil {
			t.Errorf("%s= %s", key, why)
		}
	}
}
