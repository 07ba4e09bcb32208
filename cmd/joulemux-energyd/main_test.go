package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/cmd/program"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/energyd"
	"github.com/joulemux/joulemux/power/powertest"
	"github.com/joulemux/joulemux/systemd"
)

// These tests run the program as its unit does: as root without capabilities.
// So they need root themselves, as the checks have it.

// asClient makes this process a client of the socket that it names.
const asClient = "ENERGYD_TEST_CLIENT"

// programs are in a folder that everybody may enter: the program itself, and
// this one as a client.
var programs struct{ energyd, client string }

func TestMain(m *testing.M) {
	if socket := os.Getenv(asClient); socket != "" {
		client(socket)
		return
	}
	os.Exit(buildAndRun(m))
}

// client says what it is told. A busy machine may take longer than a sensor
// waits.
func client(socket string) {
	sensors, err := energyd.Sensors(context.Background(), socket)
	fmt.Println("unavailable:", errors.Is(err, power.ErrUnavailable), "error:", err)
	for _, s := range sensors {
		r, err := s.Read(context.Background())
		for end := time.Now().Add(10 * time.Second); errors.Is(err, power.ErrUnavailable) && time.Now().Before(end); {
			r, err = s.Read(context.Background())
		}
		fmt.Println(s.Domain().Name, r.Energy, err)
	}
}

func buildAndRun(m *testing.M) int {
	folder, err := os.MkdirTemp("", "joulemux-energyd-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(folder)
	programs.energyd, programs.client = filepath.Join(folder, "joulemux-energyd"), filepath.Join(folder, "client")
	cmd := exec.Command("go", "build", "-o", programs.energyd, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // As it is installed.
	out, err := cmd.CombinedOutput()
	if err == nil {
		out, err = exec.Command("cp", os.Args[0], programs.client).CombinedOutput()
	}
	if err = errors.Join(err, os.Chmod(folder, 0o755), os.Chmod(programs.client, 0o755)); err != nil {
		fmt.Printf("%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// machine is a tree of files that belong to root, and a service manager's
// socket.
type machine struct {
	sys, socket string
	listener    *net.UnixListener
}

// startMachine makes a Meteor Lake laptop, where only root reads the counters.
func startMachine(t *testing.T) *machine {
	t.Helper()
	folder, err := os.MkdirTemp("", "energyd-") // Short enough for a socket's path.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	m := &machine{sys: filepath.Join(folder, "sys"), socket: filepath.Join(folder, "s")}
	if err := os.CopyFS(m.sys, powertest.Load(t, "meteor-lake").AsRoot().Sys()); err != nil {
		t.Fatal(err)
	}
	closed := 0
	for _, pattern := range []string{"class/powercap/*/energy_uj", "class/intel_pmt/*/telem"} {
		files, err := filepath.Glob(filepath.Join(m.sys, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if err := os.Chmod(file, 0o400); err != nil {
				t.Fatal(err)
			}
			closed++
		}
	}
	if closed < 6 {
		t.Fatalf("%d files are closed", closed)
	}
	// Everybody may come this far, so that what they see is the machine's doing.
	if m.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: m.socket, Net: "unix"}); err == nil {
		err = errors.Join(os.Chmod(folder, 0o755), os.Chmod(m.socket, 0o666))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.listener.Close() })
	return m
}

// move gives the package's counter one count after the other until over is
// closed, and returns how many there were.
func (m *machine) move(t *testing.T, over <-chan struct{}) int {
	t.Helper()
	counter, err := os.OpenFile(filepath.Join(m.sys, "class/powercap/intel-rapl:0/energy_uj"), os.O_WRONLY, 0)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer counter.Close()
	for count := 1; ; count++ {
		select {
		case <-over:
			return count
		default:
		}
		// As long as the first, which it takes the place of.
		if _, err := fmt.Fprintf(io.NewOffsetWriter(counter, 0), "%011d\n", count); err != nil {
			t.Error(err)
			return count
		}
	}
}

// root is what the unit makes of root.
var root = []string{"--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"}

// process is the program while it runs.
type process struct {
	cmd  *exec.Cmd
	said *strings.Builder
	end  chan error
}

// start starts the program as a service manager does. The shell is there
// because LISTEN_PID is known to the child only.
func (m *machine) start(t *testing.T, rights []string, args ...string) *process {
	t.Helper()
	socket, err := m.listener.File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	const script = `LISTEN_PID=$$ exec "$0" "$@"`
	args = append([]string{"--", "/bin/sh", "-c", script, programs.energyd, "--sysfs", m.sys}, args...)
	p := &process{exec.CommandContext(t.Context(), "setpriv", slices.Concat(rights, args)...), new(strings.Builder), make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES="+systemd.Energy)
	p.cmd.ExtraFiles = []*os.File{socket}
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.end <- p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-ended
	})
	return p
}

// awaitEnd waits until the program has ended, as it should.
func (p *process) awaitEnd(t *testing.T) {
	t.Helper()
	select {
	case err := <-p.end:
		if err != nil {
			t.Errorf("%v\n%s", err, p.said)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
}

// status returns a line of /proc/PID/status.
func (p *process) status(t *testing.T, key string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	t.Fatalf("no %s in %s", key, text)
	return ""
}

// ask runs a client with some rights, and returns what it was told.
func (m *machine) ask(t *testing.T, rights ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "setpriv", append(rights, "--", programs.client)...)
	cmd.Env = append(os.Environ(), asClient+"="+m.socket, "GORACE=atexit_sleep_ms=0") // Or it takes a second to end.
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestRootWithoutCapabilitiesReadsWhatOnlyRootMay(t *testing.T) {
	m := startMachine(t)
	p := m.start(t, root)
	sensors, err := energyd.Sensors(t.Context(), m.socket)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"Uid": "0 0 0 0", "CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1",
	} {
		if got := p.status(t, key); got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
	var got []string
	for _, s := range sensors {
		got = append(got, fmt.Sprintf("%s in %q: %s of %s", s.Domain().Name, s.Domain().Within, s.Domain().Source, s.Domain().Scope))
	}
	want := []string{
		`package-0 in "": rapl of package`, `core-0 in "package-0": rapl of core`, `uncore-0 in "package-0": rapl of uncore`,
		`psys in "": rapl of platform`, `npu in "package-0": pmt of npu`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("it reads\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	if told := m.ask(t, "--reuid", "0"); !strings.Contains(told, "package-0 84123 J <nil>\n") || !strings.Contains(told, "npu 1500 J <nil>\n") {
		t.Errorf("a client is told\n%s", told)
	}
}

func TestAnybodyElseReadsNothingThere(t *testing.T) {
	m := startMachine(t)
	m.start(t, []string{"--reuid", "65534", "--regid", "65534", "--clear-groups"}, "--allow-uid", "0")
	if told := m.ask(t, "--reuid", "0"); told != "unavailable: false error: <nil>\n" {
		t.Errorf("a client of a helper that is not root is told\n%s", told)
	}
}

func TestWhomItAnswers(t *testing.T) {
	const group = 990
	nobody := []string{"--reuid", "65534", "--regid", "65534"}
	var many []string
	for gid := range 300 {
		many = append(many, strconv.Itoa(2000+gid))
	}
	for _, tt := range []struct {
		name   string
		allow  []string
		client []string
		mode   os.FileMode
		want   string
	}{
		{"another user is refused", nil, append(nobody, "--clear-groups"), 0o666, "unavailable: true error: unavailable: joulemux-energyd: not for this user: 65534"},
		{"and so by the socket", nil, append(nobody, "--clear-groups"), 0o660, "permission denied"},
		{"a member of another group is refused", []string{"--allow-group", "990"}, append(nobody, "--groups", "991"), 0o666, "not for this user: 65534"},
		{"a member is told", []string{"--allow-group", "990"}, append(nobody, "--groups", "4,990"), 0o660, "package-0 84123 J"},
		{"a member of many groups is told", []string{"--allow-group", "990"}, append(nobody, "--groups", strings.Join(many, ",")+",990"), 0o660, "package-0 84123 J"},
		{"a group by name", []string{"--allow-group", "nogroup"}, append(nobody, "--clear-groups"), 0o666, "package-0 84123 J"},
		{"a user by number", []string{"--allow-uid", "65534"}, append(nobody, "--clear-groups"), 0o666, "package-0 84123 J"},
		{"root", []string{"--allow-uid", "65534"}, []string{"--reuid", "0"}, 0o660, "package-0 84123 J"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := startMachine(t)
			if err := errors.Join(os.Chown(m.socket, 0, group), os.Chmod(m.socket, tt.mode)); err != nil {
				t.Fatal(err)
			}
			m.start(t, root, tt.allow...)
			told := m.ask(t, tt.client...)
			if !strings.Contains(told, tt.want) || strings.Contains(tt.want, "J") == strings.Contains(told, "unavailable: true") {
				t.Errorf("told %s", told)
			}
			if !strings.Contains(tt.want, "J") && strings.Contains(told, "package") {
				t.Errorf("told %s", told)
			}
		})
	}
}

func TestHardwareIsReadTenTimesASecondWhateverIsAsked(t *testing.T) {
	m := startMachine(t)
	m.start(t, root)
	const window = time.Second
	m.ask(t, "--reuid", "0") // It runs.
	// The counter moves all the time, and three ask all the time.
	over, moved := make(chan struct{}), make(chan int)
	go func() { moved <- m.move(t, over) }()
	counts := make(chan []string)
	begin := time.Now()
	for range 3 {
		go func() { counts <- hammer(t, m.socket, begin.Add(window)) }()
	}
	var seen []string
	asked := 0
	for range 3 {
		got := <-counts
		asked += len(got)
		seen = append(seen, got...)
	}
	took := time.Since(begin)
	close(over)
	slices.Sort(seen)
	seen = slices.Compact(seen)
	count := <-moved
	t.Logf("%d questions in %v, %d different answers, of %d counts", asked, took, len(seen), count)
	if most := 2 + int(took/(100*time.Millisecond)); len(seen) > most || len(seen) < 2 || asked < 10*len(seen) || count < 10*len(seen) {
		t.Errorf("%d different answers to %d questions in %v, and %d counts", len(seen), asked, took, count)
	}
}

// hammer asks until some time, and returns what the package was said to count.
func hammer(t *testing.T, socket string, end time.Time) []string {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer conn.Close()
	var counts []string
	for lines := bufio.NewReader(conn); time.Now().Before(end); {
		var answer struct {
			Domains []struct {
				Name   string
				Energy json.Number `json:"energy_uj"`
				At     json.Number `json:"at_ns"`
			}
		}
		_, err := fmt.Fprintln(conn, `{"read":true}`)
		line, failed := lines.ReadBytes('\n')
		if err := errors.Join(err, failed, json.Unmarshal(line, &answer)); err != nil || len(answer.Domains) == 0 {
			t.Errorf("%v: %s", err, line)
			return counts
		}
		counts = append(counts, fmt.Sprint(answer.Domains[0]))
	}
	return counts
}

func TestItEndsWhenNobodyIsConnectedAndTheNextIsStarted(t *testing.T) {
	m := startMachine(t)
	for range 2 { // The socket stays with who starts it.
		p := m.start(t, root, "--idle", "200ms")
		conn, err := net.Dial("unix", m.socket)
		if err != nil {
			t.Fatal(err)
		}
		if told := m.ask(t, "--reuid", "0"); !strings.Contains(told, "package-0") {
			t.Errorf("told %s", told)
		}
		select {
		case err := <-p.end:
			t.Fatalf("it ended with a connection: %v", err)
		case <-time.After(500 * time.Millisecond):
		}
		_ = conn.Close()
		p.awaitEnd(t)
	}
}

func TestItStopsWhenToldTo(t *testing.T) {
	m := startMachine(t)
	p := m.start(t, root)
	conn, err := net.Dial("unix", m.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m.ask(t, "--reuid", "0") // It runs.
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	p.awaitEnd(t)
	if _, err := os.Stat(m.socket); err != nil {
		t.Errorf("it took the manager's socket along: %v", err)
	}
}

func TestItOpensNothingButCountersAndWritesNothing(t *testing.T) {
	m := startMachine(t)
	trace := filepath.Join(t.TempDir(), "trace")
	p := m.start(t, []string{"--reuid", "0", "strace", "-f", "-qq", "-e", "trace=%file,socket,connect", "-o", trace}, "--idle", "200ms")
	conn, err := net.Dial("unix", m.socket) // or it may have ended before the client comes
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, `{"read":true}`)
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if told := m.ask(t, "--reuid", "0"); !strings.Contains(told, "package-0 84123 J") {
		t.Errorf("told %s", told)
	}
	_ = conn.Close()
	p.awaitEnd(t)
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	_, own, ok := strings.Cut(string(text), `execve("`+programs.energyd)
	if !ok {
		t.Fatalf("it did not start:\n%s", text)
	}
	_, own, _ = strings.Cut(own, "\n")
	counters := 0
	for line := range strings.Lines(own) {
		switch {
		case strings.Contains(line, "socket(") || strings.Contains(line, "connect("):
			t.Errorf("it connects to somebody: %s", line)
		case strings.Contains(line, "O_WRONLY") || strings.Contains(line, "O_RDWR") || strings.Contains(line, "O_CREAT"):
			t.Errorf("it writes: %s", line)
		case strings.Contains(line, m.sys+"/class/powercap"), strings.Contains(line, m.sys+"/class/intel_pmt"):
			counters++
		case strings.Contains(line, m.sys):
			t.Errorf("it opens something else: %s", line)
		}
	}
	if counters < 10 {
		t.Errorf("it opened %d counters:\n%s", counters, own)
	}
}

func TestUnitsAndProgramAgree(t *testing.T) {
	unit, err := os.ReadFile("../../systemd/system/joulemux-energyd.service")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(unit), "\nExecStart=")
	line, _, _ = strings.Cut(line, "\n")
	// There need not be such a group here.
	line = strings.ReplaceAll(line, "joulemux-energy", "nogroup")
	c, err := parse(strings.Fields(line)[1:], t.Output(), t.Output())
	if err != nil || c.sys != "/sys" || c.idle != 30*time.Second || len(c.access.Groups) != 1 || len(c.access.Users) != 0 {
		t.Errorf("%s: %+v, %v", line, c, err)
	}
	socket, err := os.ReadFile("../../systemd/system/joulemux-energyd.socket")
	if err != nil || !strings.Contains(string(socket), "\nListenStream="+energyd.Socket+"\n") {
		t.Errorf("the client looks for %s: %v\n%s", energyd.Socket, err, socket)
	}
}

func TestWhatIsNoCommandIsSaid(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, program.ExitFailure, "joulemux-energyd.socket"},
		{[]string{"now"}, program.ExitUsage, `unexpected argument "now"`},
		{[]string{"--allow-uid", "root"}, program.ExitUsage, "invalid value"},
		{[]string{"--allow-uid", "-1"}, program.ExitUsage, "invalid value"},
		{[]string{"--allow-uid", "4294967296"}, program.ExitUsage, "invalid value"},
		{[]string{"--allow-group", "no such group"}, program.ExitUsage, "unknown group"},
		{[]string{"--log-level", "loud"}, program.ExitUsage, "invalid value"},
		{[]string{"--version"}, 0, "joulemux-energyd "},
		{[]string{"--help"}, 0, "--allow-group"},
	} {
		var said strings.Builder
		if code := run(tt.args, &said, io.MultiWriter(&said)); code != tt.code || !strings.Contains(strings.ReplaceAll(said.String(), " -allow", " --allow"), tt.want) {
			t.Errorf("%q: exit code %d, %s", tt.args, code, &said)
		}
	}
}
