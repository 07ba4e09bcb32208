package peer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/joulemux/joulemux/daemon/peer"
)

// process is one of a process table written down for a test.
type process struct {
	pid, uid int
	group    string
	inode    int // of a socket that it holds, if not 0
}

// proc writes a process table in which a server of a user listens on port 11434
// with the socket of inode 7.
func proc(t *testing.T, uid int, processes ...process) peer.Table {
	t.Helper()
	root := t.TempDir()
	write := func(name, text string) {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	write("net/tcp", header+fmt.Sprintf("   0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000 %d 0 7 1 0 100 0 0 10 0\n", uid))
	write("net/tcp6", header)
	for _, p := range processes {
		dir := fmt.Sprint(p.pid)
		write(dir+"/cgroup", "1:name=systemd:/\n0::"+p.group+"\n")
		write(dir+"/status", fmt.Sprintf("Name:\tserver\nPid:\t%d\nUid:\t%d\t%d\t%d\t%d\n", p.pid, p.uid, p.uid, p.uid, p.uid))
		if p.inode == 0 {
			continue // its descriptors are not for us to see
		}
		fd := filepath.Join(root, dir, "fd")
		if err := os.Mkdir(fd, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(fmt.Sprintf("socket:[%d]", p.inode), filepath.Join(fd, "3")); err != nil {
			t.Fatal(err)
		}
	}
	table, err := peer.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestGroupOfAServer(t *testing.T) {
	me, other := os.Getuid(), 4242
	const unit = "/system.slice/ollama.service"
	tests := []struct {
		rule      string
		uid       int
		processes []process
		want      string
	}{
		{"it is the one that holds the socket", me, []process{{10, me, "/user.slice/shell.scope", 8}, {11, me, "/user.slice/ollama.scope", 7}}, "/user.slice/ollama.scope"},
		{"a user of its own tells as well", other, []process{{10, me, "/user.slice/shell.scope", 8}, {11, other, unit, 0}, {12, other, unit, 0}}, unit},
		{"a user of many things does not", other, []process{{11, other, unit, 0}, {12, other, "/user.slice/shell.scope", 0}}, ""},
		{"what runs in the root is in no group", me, []process{{11, me, "/", 7}}, ""},
		{"nobody holds it that we can see", me, []process{{11, me, unit, 8}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			if got := proc(t, tt.uid, tt.processes...).Group(11434); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if got := proc(t, me).Group(1); got != "" {
		t.Errorf("nobody listens there, but its group is %q", got)
	}
}
