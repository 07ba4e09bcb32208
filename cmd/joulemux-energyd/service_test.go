package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/packaging/rig"
)

// script is what root does on a machine with the units: a member and another
// user ask, and root looks at the process that answers. The words it says
// between are for the test to find its way.
const script = `set -eu
mount --bind "$1/class" /sys/class
{ cat /etc/group; echo joulemux-energy:x:990:; } >/run/group
mount --bind /run/group /etc/group
systemctl start joulemux-energyd.socket
as() { setpriv --reuid 65534 --regid 65534 "$@" -- env ` + asClient + `=/run/joulemux/energyd.sock GORACE=atexit_sleep_ms=0 "$client"; }
client=$2
echo =other; as --clear-groups
echo =before; systemctl show --value -p ActiveState joulemux-energyd.service
echo =member; as --groups 990
pid=$(systemctl show --value -p MainPID joulemux-energyd.service)
echo =status; cat /proc/$pid/status
echo =root; ls -A /proc/$pid/root /proc/$pid/root/etc
echo =mounts; cat /proc/$pid/mountinfo
systemctl stop joulemux-energyd.service 2>/dev/null
echo =again; as --groups 990
`

// runScript runs it with the units as they are installed, and returns what
// followed each word.
func runScript(t *testing.T) map[string]string {
	t.Helper()
	system, err := rig.Script("system")
	if err != nil {
		t.Fatal(err)
	}
	m, units := startMachine(t), t.TempDir()
	for _, name := range []string{"joulemux-energyd.service", "joulemux-energyd.socket"} {
		text, err := os.ReadFile(filepath.Join("../../systemd/system", name))
		if err != nil {
			t.Fatal(err)
		}
		unit := strings.ReplaceAll(string(text), "@LIBEXECDIR@", filepath.Dir(programs.energyd))
		if err := os.WriteFile(filepath.Join(units, name), []byte(unit), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, system, units, "bash", "-c", script, "script", m.sys, programs.client)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // It then takes all of it down.
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	said := make(map[string]string)
	for _, part := range strings.Split("\n"+string(out), "\n=")[1:] {
		word, text, _ := strings.Cut(part, "\n")
		said[word] = text
	}
	return said
}

func TestServiceOfARealSystemManager(t *testing.T) {
	said := runScript(t)
	if !strings.Contains(said["other"], "unavailable: true") || !strings.Contains(said["other"], "permission denied") {
		t.Errorf("another user is told %s", said["other"])
	}
	if said["before"] != "inactive" {
		t.Errorf("before a member asks it is %s", said["before"])
	}
	for _, word := range []string{"member", "again"} { // The second time, it had been stopped.
		if !strings.Contains(said[word], "package-0 84123 J <nil>\n") || !strings.Contains(said[word], "npu 1500 J <nil>") {
			t.Errorf("a member is told %s", said[word])
		}
	}
	for _, line := range []string{"Uid:\t0\t0\t0\t0", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(said["status"], line+"\n") {
			t.Errorf("no %q in %s", line, said["status"])
		}
	}
	for name := range strings.FieldsSeq(said["root"]) {
		switch name {
		case "dev", "etc", "group", "proc", "run", "sys", "tmp": // The program itself is in /tmp here.
		default:
			if !strings.HasPrefix(name, "/proc/") {
				t.Errorf("it sees %s in its root", name)
			}
		}
	}
	expectNothingToWriteTo(t, said["mounts"])
}

// expectNothingToWriteTo checks a mountinfo (proc(5)): a root without
// capabilities could write to whatever belongs to root. What the manager
// mounts anew for a process is gone with it.
func expectNothingToWriteTo(t *testing.T, mounts string) {
	t.Helper()
	own := map[string]string{"/proc": "proc", "/run": "tmpfs", "/dev/pts": "devpts", "/dev/mqueue": "mqueue"}
	root := false
	for line := range strings.Lines(mounts) {
		before, after, _ := strings.Cut(line, " - ")
		place, options, kind := strings.Fields(before)[4], strings.Fields(before)[5], strings.Fields(after)[0]
		root = root || place == "/" && kind == "tmpfs"
		if strings.HasPrefix(options, "rw") && own[place] != kind {
			t.Errorf("it can write to %s: %s", place, line)
		}
	}
	if !root {
		t.Errorf("its root is not empty:\n%s", mounts)
	}
}
