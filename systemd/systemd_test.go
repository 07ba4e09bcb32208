package systemd_test

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/joulemux/joulemux/systemd"
)

// as says which part of the program this process plays: inherited sockets and
// the standard error belong to a whole process.
const as = "SYSTEMD_TEST_AS"

func TestMain(m *testing.M) {
	switch os.Getenv(as) {
	case "heir":
		heir()
	case "logger":
		logger()
	default:
		os.Exit(m.Run())
	}
}

func TestManagerIsTold(t *testing.T) {
	told := startManager(t)
	tests := []struct {
		name string
		tell func() error
		want string
	}{
		{"ready, and its first status", func() error { return systemd.Ready("battery, 62 %") }, "READY=1\nSTATUS=battery, 62 %"},
		{"a status of its own", func() error { return systemd.Status("saver") }, "STATUS=saver"},
		{"an empty status clears the last", func() error { return systemd.Status("") }, "STATUS="},
		{"stopping", systemd.Stopping, "STOPPING=1"},
		{"a status cannot tell anything else", func() error { return systemd.Status("a\nMAINPID=1") }, "STATUS=a MAINPID=1"},
		{"a status is UTF-8", func() error { return systemd.Status("a\xff") }, "STATUS=a\uFFFD"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.tell(); err != nil {
				t.Fatal(err)
			}
			if got := told(); got != tt.want {
				t.Errorf("told %q, want %q", got, tt.want)
			}
		})
	}
}

func TestReloadingComesWithItsTime(t *testing.T) {
	told := startManager(t)
	var sent [3]int64
	for i := range sent {
		if err := systemd.Reloading(); err != nil {
			t.Fatal(err)
		}
		var err error
		usec, ok := strings.CutPrefix(told(), "RELOADING=1\nMONOTONIC_USEC=")
		if sent[i], err = strconv.ParseInt(strings.TrimSpace(usec), 10, 64); !ok || err != nil {
			t.Fatalf("told %q, %v", usec, err)
		}
	}
	if sent[0] <= 0 || sent[0] > sent[1] || sent[1] > sent[2] {
		t.Errorf("the times were %v", sent)
	}
}

func TestWithoutManagerNothingIsSaid(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	for _, err := range []error{systemd.Ready("a"), systemd.Status("a"), systemd.Reloading(), systemd.Stopping()} {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestDeafManagerIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nobody")
	t.Setenv("NOTIFY_SOCKET", path)
	if err := systemd.Ready("a"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("nobody listens at %s, and that gave %v", path, err)
	}
}

// startManager listens as the service manager does, and returns what gives the
// next datagram.
func startManager(t *testing.T) func() string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		return receive(t, conn)
	}
}

// receive returns the next datagram.
func receive(t *testing.T, conn net.Conn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	datagram := make([]byte, 4096)
	n, err := conn.Read(datagram)
	if err != nil {
		t.Fatal(err)
	}
	return string(datagram[:n])
}

func TestSocketsAreInheritedByName(t *testing.T) {
	api, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "api.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	http := listenTCP(t)
	second := listenTCP(t)
	out := inherit(t, systemd.API+":"+systemd.HTTP+":"+systemd.HTTP, api, http, second)

	for _, want := range []string{"error <nil>", "api 1", "http 2", "environment []"} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("no %q in what the heir saw:\n%s", want, out)
		}
	}
	if _, passed, _ := strings.Cut(out, "passed on\n"); strings.Contains(passed, "socket:") {
		t.Errorf("its child has sockets:\n%s", passed)
	}
	if _, err := os.Stat(api.Addr().String()); err != nil {
		t.Errorf("the heir closed its listener, and that took the path with it: %v", err)
	}
}

func TestWhatIsNoListenerIsAnError(t *testing.T) {
	packets, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	out := inherit(t, "http:packets", listenTCP(t), packets)
	if !strings.Contains(out, "error inherited socket packets:") || !strings.Contains(out, "http 0") {
		t.Errorf("the heir saw:\n%s", out)
	}
}

func TestSocketsOfAnotherProcessAreNotOurs(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	listeners, err := systemd.Listeners()
	if len(listeners) != 0 || err != nil {
		t.Errorf("got %v, %v", listeners, err)
	}
}

func listenTCP(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// inherit starts an heir with sockets as the service manager does, and returns
// what it saw. The shell is there because LISTEN_PID is known to the child only.
func inherit(t *testing.T, names string, sockets ...interface{ File() (*os.File, error) }) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
	for _, s := range sockets {
		f, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	cmd.Env = append(os.Environ(), as+"=heir", "LISTEN_FDNAMES="+names, fmt.Sprint("LISTEN_FDS=", len(sockets)))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// heir says what it was given, and what it passes on.
func heir() {
	listeners, err := systemd.Listeners()
	fmt.Println("error", err)
	fmt.Println("api", len(listeners[systemd.API]))
	fmt.Println("http", len(listeners[systemd.HTTP]))
	var left []string
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "LISTEN_") {
			left = append(left, v)
		}
	}
	fmt.Println("environment", left)
	fmt.Println("passed on")
	ls := exec.Command("ls", "-l", "/proc/self/fd")
	ls.Stdout, ls.Stderr = os.Stdout, os.Stdout
	if err := ls.Run(); err != nil {
		fmt.Println(err)
	}
	for _, named := range listeners {
		for _, l := range named {
			_ = l.Close()
		}
	}
}

func TestLogForTheJournal(t *testing.T) {
	lines := startLogger(t, true)
	for _, want := range []string{
		"<7>msg=looking device=gpu\n",
		"<6>msg=\"backend is up\" device=gpu took=2ms\n",
		"<4>msg=\"backend is down\" device=gpu level=low cause.err=\"two\\nlines\"\n",
		"<3>msg=gone device=gpu time=noon\n",
	} {
		if got := receive(t, lines); got != want {
			t.Errorf("wrote %q, want %q", got, want)
		}
	}
}

func TestLogForAnybodyElse(t *testing.T) {
	lines := startLogger(t, false)
	for _, want := range []string{
		"level=DEBUG msg=looking device=gpu\n",
		"level=INFO msg=\"backend is up\" device=gpu took=2ms\n",
	} {
		got := receive(t, lines)
		if !strings.HasPrefix(got, "time=") || !strings.HasSuffix(got, want) {
			t.Errorf("wrote %q, want a time and %q", got, want)
		}
	}
}

// startLogger runs a logger whose standard error keeps writes apart, and
// returns the other end of it.
func startLogger(t *testing.T, journal bool) net.Conn {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer theirs.Close()
	defer ours.Close()
	lines, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lines.Close() })

	var is syscall.Stat_t
	if err := syscall.Fstat(fds[1], &is); err != nil {
		t.Fatal(err)
	}
	if !journal {
		is.Ino++ // Of whoever started us, whose standard error was another.
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), as+"=logger", fmt.Sprintf("JOURNAL_STREAM=%d:%d", is.Dev, is.Ino))
	cmd.Stderr = theirs
	if out, err := cmd.Output(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return lines
}

// logger logs a line of each kind.
func logger() {
	level := new(slog.LevelVar)
	log := slog.New(systemd.NewLogHandler(level)).With("device", "gpu")
	log.Debug("nobody wants to know")
	level.Set(slog.LevelDebug)
	log.Debug("looking")
	log.Info("backend is up", "took", 2*time.Millisecond)
	log.Warn("backend is down", "level", "low", slog.Group("cause", "err", "two\nlines"))
	level.Set(slog.LevelError)
	log.Warn("nor this")
	log.Error("gone", "time", "noon")
}
