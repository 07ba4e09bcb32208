package dbus

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/dbustest"
)

func message(role, content string) options {
	return options{"role": option(role), "content": option(content)}
}

// pipe returns a pipe whose writing end is for the daemon. The test closes its
// own copy of that end when it is over.
func pipe(t *testing.T) (*os.File, godbus.UnixFD) {
	t.Helper()
	r, w := dbustest.Pipe(t)
	return r, godbus.UnixFD(w.Fd())
}

// ends is a sink's two ends: what the test reads, and what the daemon is sent.
type ends struct {
	near *os.File
	far  godbus.UnixFD
}

// sinks makes each kind of sink that there is.
var sinks = map[string]func() (near, far int, err error){
	"pipe": func() (int, int, error) {
		var fds [2]int
		err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC)
		return fds[0], fds[1], err
	},
	"socket": func() (int, int, error) {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		return fds[0], fds[1], err
	},
}

func newSink(t *testing.T, kind string) ends {
	t.Helper()
	near, far, err := sinks[kind]()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetNonblock(near, true); err != nil { // For read deadlines.
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(near), kind)
	t.Cleanup(func() { _ = f.Close() })
	return ends{f, godbus.UnixFD(far)}
}

// generateTo calls GenerateTo, and closes our copy of what it sends.
func generateTo(p *dbustest.Peer, e ends, o options) (path godbus.ObjectPath, route options, err error) {
	err = inferenceOf(p).Call(InferenceName+".GenerateTo", 0, e.far, []options{message("user", "Why?")}, o).Store(&path, &route)
	_ = syscall.Close(int(e.far))
	return path, route, err
}

// readAll reads a sink to its end.
func readAll(t *testing.T, e ends) string {
	t.Helper()
	_ = e.near.SetReadDeadline(time.Now().Add(patience))
	all, err := io.ReadAll(e.near)
	if err != nil {
		t.Fatalf("after %q: %v", all, err)
	}
	return string(all)
}

func TestGenerateTo(t *testing.T) {
	r := newRig(t, nil)
	peer := r.bus.Connect(t)
	for kind := range sinks {
		e := newSink(t, kind)
		path, route, err := generateTo(peer, e, options{"model": option("m")})
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if got := readAll(t, e); got != "Hello, world\x04" {
			t.Errorf("%s: got %q", kind, got)
		}
		if !strings.HasPrefix(string(path), string(requestsPath)+"/") || route["backend_used"].Value() != "ollama-npu" || !strings.HasPrefix(route["reason"].Value().(string), "fewest joules, ") {
			t.Errorf("%s: %s goes to %v", kind, path, route)
		}
	}
	if j := r.runner.last(); j.Kind != job.Chat || !j.Stream || j.PromptBytes != 4 || len(j.Content.Messages) != 1 || j.Deadline != 0 {
		t.Errorf("the job is %+v", j)
	}
}

func TestLinesAreAsOllamas(t *testing.T) {
	r := newRig(t, nil)
	r.runner.set(answers("<Hi> & ", "bye\x00\x04"))
	e := newSink(t, "pipe")
	if _, _, err := generateTo(r.bus.Connect(t), e, options{"format": option("ndjson"), "model": option("m"), "max_tokens": option(2)}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(readAll(t, e), "\n")
	if len(lines) != 4 || lines[3] != "" || !strings.Contains(lines[0], "<Hi> & ") {
		t.Fatalf("got %q", lines)
	}
	var text strings.Builder
	var last struct {
		line
		Joulemux struct {
			Backend string  `json:"backend_used"`
			Joules  float64 `json:"energy_joules"`
		} `json:"joulemux"`
	}
	for _, l := range lines[:3] {
		if err := json.Unmarshal([]byte(l), &last); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		text.WriteString(last.Message.Content)
		if last.Model != "m" || last.Message.Role != "assistant" || time.Since(last.CreatedAt) > time.Hour || last.Done != (l == lines[2]) {
			t.Errorf("got %s", l)
		}
	}
	if text.String() != "<Hi> & bye\x00\x04" || last.DoneReason != "length" || last.EvalCount != 2 || last.TotalDuration <= 0 ||
		last.Joulemux.Backend != "ollama-npu" || last.Joulemux.Joules != 5 {
		t.Errorf("got %q and then %s", text.String(), lines[2])
	}
}

func TestBytesThatEndAnAnswerAreNotInIt(t *testing.T) {
	r := newRig(t, nil)
	r.runner.set(answers("a\x04b", "\x18", "ü"))
	e := newSink(t, "pipe")
	if _, _, err := generateTo(r.bus.Connect(t), e, options{}); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, e); got != "abü\x04" {
		t.Errorf("got %q", got)
	}
}

func TestFailureIsToldOnce(t *testing.T) {
	early := job.Errorf(job.ModelNotFound, "none")
	late := func(ctx context.Context, _ job.Job, sink dispatch.Sink) error {
		sink.Routed(decision)
		if err := sink.Chunk(ctx, job.Chunk{Text: "Hel"}, nil); err != nil {
			return err
		}
		return job.Errorf(job.BackendFailed, "it died")
	}
	r := newRig(t, nil)
	peer := r.bus.Connect(t)
	for _, c := range []struct {
		rule   string
		script script
		format string
		name   string // of the error
		want   string // on the sink
	}{
		{"before it is routed, by the call", fails(early), "text", "io.github.joulemux.Error.ModelNotFound", ""},
		{"before it is routed, whatever the format", fails(early), "ndjson", "io.github.joulemux.Error.ModelNotFound", ""},
		{"later, in text", late, "text", "", "Hel\x18backend failed: it died"},
		{"a panic, by the call", func(context.Context, job.Job, dispatch.Sink) error { panic("bang") }, "text", bus.Failed, ""},
		{"a format that there is not", late, "xml", bus.InvalidArgs, ""},
	} {
		r.runner.set(c.script)
		e := newSink(t, "pipe")
		_, _, err := generateTo(peer, e, options{"format": option(c.format)})
		if c.name != "" {
			expectError(t, c.rule, err, c.name, "")
		} else if err != nil {
			t.Errorf("%s: %v", c.rule, err)
		}
		if got := readAll(t, e); got != c.want {
			t.Errorf("%s: on the sink is %q", c.rule, got)
		}
	}
	r.runner.set(late)
	e := newSink(t, "pipe")
	if _, _, err := generateTo(peer, e, options{"format": option("ndjson")}); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, e); !strings.HasSuffix(got, "\n{\"error\":\"backend failed: it died\"}\n") {
		t.Errorf("in lines it is %q", got)
	}
}

func TestSinksThatAreNone(t *testing.T) {
	r := newRig(t, nil)
	peer := r.bus.Connect(t)
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	reading, _ := pipe(t)
	readerless, readerlessEnd := pipe(t)
	_ = readerless.Close()
	datagrams, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = syscall.Close(datagrams[0]), syscall.Close(datagrams[1]) }()
	shut := newSink(t, "socket")
	defer syscall.Close(int(shut.far))
	if err := syscall.Shutdown(int(shut.far), syscall.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	listening, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer listening.Close()
	for _, c := range []struct {
		rule string
		fd   int
		says string
	}{
		{"a file", int(file.Fd()), "sink: is neither a pipe nor a socket"},
		{"a device", int(null.Fd()), "sink: is neither a pipe nor a socket"},
		{"the wrong end of a pipe", int(reading.Fd()), "sink: is the reading end"},
		{"a pipe that nobody reads", int(readerlessEnd), "sink: has nobody at its other end"},
		{"a socket for datagrams", datagrams[0], "sink: is a socket for messages"},
		{"a socket whose sending half is shut down", int(shut.far), "sink: is a socket whose sending half is shut down"},
		{"a socket that listens", int(listening.Fd()), "sink: is a socket without a peer"},
	} {
		err := inferenceOf(peer).Call(InferenceName+".GenerateTo", 0, godbus.UnixFD(c.fd), []options{message("user", "x")}, options{}).Err
		expectError(t, c.rule, err, bus.InvalidArgs, c.says)
	}
	err = inferenceOf(peer).Call(InferenceName+".GenerateTo", 0, "stdout", []options{message("user", "x")}, options{}).Err
	expectError(t, "no descriptor at all", err, bus.InvalidArgs, "takes (haa{sv}a{sv}), got (saa{sv}a{sv})")
}

func TestSinkIsNotMadeNonBlocking(t *testing.T) {
	r := newRig(t, nil)
	peer := r.bus.Connect(t)
	for kind := range sinks {
		e := newSink(t, kind)
		mine, err := syscall.Dup(int(e.far))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := generateTo(peer, e, options{}); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		_ = e.near.SetReadDeadline(time.Now().Add(patience))
		for !bytes.Contains(buf, []byte{endOfText}) {
			if _, err := e.near.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
		flags, err := fcntl(mine, syscall.F_GETFL, 0)
		if err != nil || flags&syscall.O_NONBLOCK != 0 {
			t.Errorf("%s: flags are %#x, %v", kind, flags, err)
		}
		_ = syscall.Close(mine)
	}
}
