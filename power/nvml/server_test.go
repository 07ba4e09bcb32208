package nvml

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// startServer serves at a path, until the server ends by itself or the test does.
func startServer(t *testing.T, sys fs.FS, l *steady) (path string, ended <-chan error) {
	t.Helper()
	path, socket := listen(t)
	server := Server{Sys: sys, Open: l.open, Log: slog.New(slog.DiscardHandler)}
	result := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		result <- server.Serve(ctx, socket)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return path, result
}

// listen opens a socket whose path is short enough for one.
func listen(t *testing.T) (string, *net.UnixListener) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nvml-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "nvml.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return path, l
}

// dial connects to a server, with ten seconds for all that follows.
func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// exchange sends a line, and returns the answer.
func exchange(t *testing.T, conn net.Conn, line string) answer {
	t.Helper()
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		t.Fatal(err)
	}
	text, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return a
}

// await returns how a server ended.
func await(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
		return nil
	}
}

const readGPU = `{"read":"` + gpu + `"}`

func TestServerEndsWithItsLastConnection(t *testing.T) {
	l := newSteady()
	path, ended := startServer(t, machine(map[string]string{gpu: "active"}), l)
	first, second := dial(t, path), dial(t, path)
	for _, conn := range []net.Conn{first, second, first} {
		a := exchange(t, conn, readGPU)
		if a.EnergyMJ == nil || a.PowerMW == nil || *a.PowerMW != 30_000 || a.At <= 0 {
			t.Errorf("got %+v", a)
		}
	}
	_ = first.Close()
	exchange(t, second, readGPU)
	start := time.Now()
	_ = second.Close()
	if err := await(t, ended); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < grace || took > 5*grace {
		t.Errorf("it took %v", took)
	}
	if l.opened != 1 || l.closed != 1 {
		t.Errorf("opened %d times, closed %d times", l.opened, l.closed)
	}
}

func TestOneLookIsOfOneTimeHoweverOftenItIsTold(t *testing.T) {
	path, _ := startServer(t, awakeGPU(), newSteady())
	conn, times := dial(t, path), make(map[int64]int64) // by the energy
	for range 50 {
		a := exchange(t, conn, readGPU)
		if at, ok := times[*a.EnergyMJ]; ok && at != a.At {
			t.Fatalf("%d mJ are of %d and of %d", *a.EnergyMJ, at, a.At)
		}
		times[*a.EnergyMJ] = a.At
	}
}

func TestServerThatIsToldToStopDoes(t *testing.T) {
	path, socket := listen(t)
	l := newSteady()
	server := Server{Sys: machine(map[string]string{gpu: "active"}), Open: l.open, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, socket) }()
	exchange(t, dial(t, path), readGPU)
	cancel()
	if err := await(t, ended); err != nil || l.closed != 1 {
		t.Errorf("%v, closed %d times", err, l.closed)
	}
}

func TestAnswersSayWhy(t *testing.T) {
	path, _ := startServer(t, machine(map[string]string{gpu: "suspended"}), newSteady())
	conn := dial(t, path)
	if a := exchange(t, conn, readGPU); a.Kind != asleep || !strings.Contains(a.Error, "suspended") {
		t.Errorf("asleep: %+v", a)
	}
	if a := exchange(t, conn, `{"read":"0000:00:02.0"}`); a.Kind != unavailable || !strings.Contains(a.Error, "0000:00:02.0") {
		t.Errorf("no such GPU: %+v", a)
	}
	for _, nonsense := range []string{"", "read", `{"read":1}`, `{"read":"` + strings.Repeat("x", 2*longest) + `"}`} {
		conn := dial(t, path)
		if a := exchange(t, conn, nonsense); a.Kind != unavailable || !strings.Contains(a.Error, "question") {
			t.Errorf("%.20q: %+v", nonsense, a)
		}
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%.20q: then there came %d bytes", nonsense, n)
		}
	}
}

func TestOnlyOurUserAndRootAreServed(t *testing.T) {
	for uid, want := range map[int]bool{os.Getuid(): true, 0: true, os.Getuid() + 1: false, 65534: false} {
		if err := admitUser(uid); (err == nil) != want {
			t.Errorf("user %d: %v", uid, err)
		}
	}
	if admit(new(net.TCPConn)) == nil {
		t.Error("a caller whom nobody knows is served")
	}
}

// converseWith starts a conversation in a bubble, and returns its other end.
func converseWith(ctx context.Context, asked chan<- inquiry) (net.Conn, <-chan struct{}) {
	ours, theirs := net.Pipe()
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer theirs.Close()
		converse(ctx, theirs, asked)
	}()
	return ours, over
}

func TestSilentConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan inquiry)
		go func() {
			for q := range asked {
				q.reply <- reply{Sample{At: time.Now(), Drawn: true}, nil}
			}
		}()
		defer close(asked)
		conn, over := converseWith(t.Context(), asked)
		for range 10 { // As a job does.
			exchange(t, conn, readGPU)
			time.Sleep(time.Second)
		}
		start := time.Now()
		<-over
		if took := time.Since(start) + time.Second; took != silence {
			t.Errorf("closed after %v", took)
		}
	})
}

func TestHungLibraryIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan inquiry, 1) // Nobody answers.
		conn, over := converseWith(t.Context(), asked)
		if a := exchange(t, conn, readGPU); a.Kind != unavailable {
			t.Errorf("got %+v", a)
		}
		<-over
	})
}

func TestServerEndsWithALibraryThatDoesNot(t *testing.T) {
	opening, hang := make(chan struct{}), make(chan struct{})
	defer close(hang)
	l := newSteady()
	l.onOpen = func() {
		close(opening)
		<-hang
	}
	path, socket := listen(t)
	server := Server{Sys: machine(map[string]string{gpu: "active"}), Open: l.open, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, socket) }()
	if _, err := io.WriteString(dial(t, path), readGPU+"\n"); err != nil {
		t.Fatal(err)
	}
	<-opening
	cancel()
	if err := await(t, ended); !errors.Is(err, errHung) {
		t.Errorf("got %v", err)
	}
}
