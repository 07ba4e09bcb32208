package helper

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// listen opens a socket whose path is short enough for one.
func listen(t *testing.T) net.Listener {
	t.Helper()
	folder, err := os.MkdirTemp("", "helper-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	l, err := net.Listen("unix", filepath.Join(folder, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// dial returns a line to whoever comes to a socket, and that one.
func dial(t *testing.T, longest int) (*Line, net.Conn) {
	t.Helper()
	socket := listen(t)
	l := &Line{Socket: socket.Addr().String(), Longest: longest}
	t.Cleanup(l.HangUp)
	if _, err := l.Ask(t.Context(), []byte("?"), 100*time.Millisecond); !Late(err) {
		t.Fatal(err)
	}
	other, err := socket.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	return l, other
}

func TestAnswerThatDoesNotEndIsGivenUp(t *testing.T) {
	l, other := dial(t, 100)
	// In pieces of which none is too long, each of them late.
	for range 20 {
		if _, err := other.Write(bytes.Repeat([]byte("x"), 30)); err != nil {
			t.Fatal(err)
		}
		_, err := l.Ask(t.Context(), []byte("?"), 10*time.Millisecond)
		if errors.Is(err, errTooLong) {
			return
		}
		if !Late(err) {
			t.Fatal(err)
		}
	}
	t.Errorf("it has taken in %d bytes", len(l.part))
}

func TestWhoHasNoTimeLeftAsksNothingAndLosesNothing(t *testing.T) {
	l, other := dial(t, 100)
	if _, err := io.ReadFull(other, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	over, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, ctx := range []context.Context{gone, over} {
		if _, err := l.Ask(ctx, []byte("?"), time.Second); !Late(err) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := other.Write([]byte("!\n")); err != nil {
		t.Fatal(err)
	}
	if answer, err := l.Ask(t.Context(), []byte("?"), 10*time.Second); string(answer) != "!\n" || err != nil {
		t.Errorf("got %q, %v", answer, err)
	}
}
