package ledger

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestMain lets the test binary be a daemon that somebody kills.
func TestMain(m *testing.M) {
	if folder := os.Getenv("LEDGER_WRITE"); folder != "" {
		writeForEver(folder)
	}
	os.Exit(m.Run())
}

// inChild is set where a test runs once more, on a machine of its own making.
const inChild = "LEDGER_CHILD"

// onDiskOfItsOwn runs the rest of the test in a process that has a file system
// to itself: it returns its folder there, and "" here, when that has passed.
func onDiskOfItsOwn(t *testing.T, size string) string {
	t.Helper()
	if os.Getenv(inChild) == "" {
		cmd := exec.Command("/proc/self/exe")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
		}
		runChild(t, cmd)
		return ""
	}
	// Nobody else is to see what is mounted here.
	if err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := syscall.Mount("tiny", folder, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(folder, syscall.MNT_DETACH) })
	return folder
}

// asNobodySpecial runs the rest of the test as a user to whom permissions
// apply. It reports false here, when that has passed.
func asNobodySpecial(t *testing.T) bool {
	t.Helper()
	if os.Getuid() != 0 || os.Getenv(inChild) != "" {
		return true
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	// By its descriptor: its folder is closed to others.
	cmd := exec.Command("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{self}
	runChild(t, cmd)
	return false
}

// runChild has a command, which ends in this binary, run the test.
func runChild(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.Args = append(cmd.Args, "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), inChild+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("--- PASS: %s ", t.Name())) {
		t.Errorf("in a process of its own: %v\n%s", err, out)
	}
}
