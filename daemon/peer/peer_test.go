package peer_test

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/joulemux/joulemux/daemon/peer"
)

// TestMain lets the test binary be a client or a server in a process of its
// own.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("PEER_DIAL") != "":
		dial(os.Getenv("PEER_DIAL"))
	case os.Getenv("PEER_SERVE") != "":
		serve(os.Getenv("PEER_SERVE"))
	default:
		os.Exit(m.Run())
	}
}

// dial connects, and stays until standard input ends.
func dial(address string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	defer conn.Close()
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// serve listens, says where, and leaves the file to a child of its own.
func serve(file string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	f, err := os.Open(file)
	if err != nil {
		panic(err)
	}
	child := exec.Command("cat")
	child.Stdin, child.ExtraFiles = os.Stdin, []*os.File{f}
	if err := child.Start(); err != nil {
		panic(err)
	}
	f.Close()
	fmt.Println(l.Addr())
	_ = child.Wait()
}

func open(t *testing.T) peer.Table {
	t.Helper()
	table, err := peer.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// start runs the test binary in another role, as another user if uid is not ours.
func start(t *testing.T, uid int, env string) *bufio.Reader {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	if uid != os.Getuid() {
		cmd = exec.Command("setpriv", "--reuid", fmt.Sprint(uid), "--regid", fmt.Sprint(uid), "--clear-groups", "/proc/self/fd/3")
		f, err := os.Open(exe)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
	}
	cmd.Env = append(os.Environ(), env)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	return bufio.NewReader(stdout)
}

func TestUserBehindAConnection(t *testing.T) {
	table := open(t)
	other := os.Getuid()
	if other == 0 {
		other = 1000 // root can be somebody else
	}
	for _, c := range []struct {
		what, network, listen, dial string
		uid                         int
	}{
		{"ourselves over IPv4", "tcp4", "127.0.0.1:0", "127.0.0.1:%d", os.Getuid()},
		{"ourselves over IPv6", "tcp6", "[::1]:0", "[::1]:%d", os.Getuid()},
		{"somebody else", "tcp4", "127.0.0.1:0", "127.0.0.1:%d", other},
		{"somebody else with an IPv6 socket", "tcp4", "127.0.0.1:0", "[::ffff:127.0.0.1]:%d", other},
	} {
		t.Run(c.what, func(t *testing.T) {
			l, err := net.Listen(c.network, c.listen)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			start(t, c.uid, "PEER_DIAL="+fmt.Sprintf(c.dial, l.Addr().(*net.TCPAddr).Port))
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			client, server := addr(conn.RemoteAddr()), addr(conn.LocalAddr())
			if uid, known := table.UID(client, server); !known || uid != c.uid {
				t.Errorf("the peer is %d, %v, want %d", uid, known, c.uid)
			}
			if uid, known := table.UID(netip.AddrPortFrom(client.Addr(), 1), server); known {
				t.Errorf("a connection that is none belongs to %d", uid)
			}
		})
	}
}

func addr(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

func TestFilesOfAServersFamily(t *testing.T) {
	file := t.TempDir() + "/device"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out := start(t, os.Getuid(), "PEER_SERVE="+file)
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddrPort(line[:len(line)-1])
	table := open(t)
	if files := table.Files(address.Port()); !slices.Contains(files, file) {
		t.Errorf("what its child holds is not among %q", files)
	}
	if files := table.Files(1); files != nil {
		t.Errorf("a port where nobody listens holds %q", files)
	}
}
