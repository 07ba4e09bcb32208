package daemon_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/joulemux/joulemux/daemon/daemontest"
)

func TestTakenPortsAreLoggedAndTheDaemonRunsOn(t *testing.T) {
	var ports [2]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t), Port: ports[0], GRPCPort: ports[1]})
	for i, what := range []string{"the HTTP port", "the gRPC port"} {
		d.Await(fmt.Sprintf("joulemux goes on without it\" what=%q err=\"listen tcp 127.0.0.1:%d", what, ports[i]))
	}
	if got := ran(t, d); got != "ollama-cpu" {
		t.Errorf("a job ran on %s", got)
	}
}

func TestListenersAreMovedByARestart(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	moved := fmt.Sprintf("server: {http_port: %d, grpc_port: 0, socket: %s/elsewhere}\n", daemontest.FreePort(t), t.TempDir())
	if err := os.WriteFile(d.ConfigPath(), []byte(moved+oneBackend(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Await(`msg="the configuration moves this with the next restart" what="the Unix socket"`)
	d.Await(`msg="the configuration moves this with the next restart" what="the HTTP port"`)
	d.Await(`msg="the configuration moves this with the next restart" what="the gRPC port"`)
	if got := ran(t, d); got != "ollama-cpu" {
		t.Errorf("over the socket that was, a job ran on %s", got)
	}
	if a, err := request(t, briefly(), "GET", "http://"+d.Addr+"/api/tags", nil); err != nil || a.status != http.StatusOK {
		t.Errorf("over the port that was: %v, %v", a, err)
	}
}

func TestOneSocketHasOneDaemon(t *testing.T) {
	first := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	runtime := filepath.Dir(filepath.Dir(first.Socket))
	_, err := daemontest.Try(t, daemontest.Options{Runtime: runtime, Beside: first})
	if err == nil || !strings.Contains(err.Error(), "another daemon listens on "+first.Socket) {
		t.Errorf("the second says %v", err)
	}
	if got := ran(t, first); got != "ollama-cpu" {
		t.Errorf("on the first a job ran on %s", got)
	}
}

func TestSocketOfADaemonThatIsSwampedStays(t *testing.T) {
	runtime := daemontest.Folder(t)
	path := filepath.Join(runtime, "joulemux", "api.sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for err == nil { // until no more can wait to be accepted
		var waiting net.Conn
		if waiting, err = net.Dial("unix", path); err == nil {
			t.Cleanup(func() { _ = waiting.Close() })
		}
	}
	if _, err := daemontest.Try(t, daemontest.Options{Runtime: runtime}); err == nil || !strings.Contains(err.Error(), "another daemon listens on "+path) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestSocketThatWasLeftBehindIsReplaced(t *testing.T) {
	runtime := daemontest.Folder(t)
	path := filepath.Join(runtime, "joulemux", "api.sock")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t), Runtime: runtime})
	if got := ran(t, d); got != "ollama-cpu" {
		t.Errorf("a job ran on %s", got)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the stop: %v", err)
	}
}

func TestFileInThePlaceOfTheSocketStays(t *testing.T) {
	runtime := daemontest.Folder(t)
	path := filepath.Join(runtime, "joulemux", "api.sock")
	if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("mine"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := daemontest.Try(t, daemontest.Options{Runtime: runtime}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(path); string(text) != "mine" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

func TestDaemonNeedsNoSessionBus(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t), Lonely: true})
	d.Await("there is no session bus")
	if got := ran(t, d); got != "ollama-cpu" {
		t.Errorf("a job ran on %s", got)
	}
}

func TestOtherUsersAreRefused(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	// Whoever gets as far as the socket's folder finds it closed.
	for dir := filepath.Dir(d.Socket); dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, err := asStranger(t, "http://"+d.Addr+"/api/tags")
	if err != nil || !strings.Contains(out, "forbidden: this joulemux serves the user 0 alone") || !strings.HasSuffix(out, "\n403") {
		t.Errorf("over TCP: %v, %s", err, out)
	}
	// curl's 7 is that it cannot connect; it says no more of why.
	var exit *exec.ExitError
	if out, err := asStranger(t, "--unix-socket", d.Socket, "http://localhost/api/tags"); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("over the socket: %v, %s", err, out)
	}
	own, err := request(t, briefly(), "GET", fmt.Sprintf("http://%s/api/tags", d.Addr), nil)
	if err != nil || own.status != http.StatusOK {
		t.Errorf("we ourselves: %v, %v", own, err)
	}
}
