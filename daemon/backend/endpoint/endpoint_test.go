package endpoint_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
)

// to returns the endpoint of a server. Both end with the test.
func to(t *testing.T, s *httptest.Server) *endpoint.Endpoint {
	t.Helper()
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	e := endpoint.New(u)
	t.Cleanup(e.Close)
	return e
}

func TestOnceClosedNoConnectionIsLeft(t *testing.T) {
	ended := make(chan struct{}, 4)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			ended <- struct{}{}
		}
	}
	server.Start()
	e := to(t, server)
	e.Close()
	for range 2 { // as jobs do that were sent there before
		var into struct{}
		if _, err := e.Get(t.Context(), "/", &into); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("a connection stays")
		}
	}
}

// TestAServerThatFallsOverARequestHasItTwiceAtMost, however many connections to it
// are kept.
func TestAServerThatFallsOverARequestHasItTwiceAtMost(t *testing.T) {
	const kept = 8
	var together sync.WaitGroup
	together.Add(kept)
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/fatal" {
			asked.Add(1)
			panic(http.ErrAbortHandler)
		}
		together.Done()
		together.Wait()
	}))
	e := to(t, s)
	ask := func(path string) error {
		resp, err := e.Post(t.Context(), path, []byte("{}"))
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.Body.Close()
	}
	var all sync.WaitGroup
	for range kept {
		all.Go(func() {
			if err := ask("/"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := ask("/fatal"); !errors.Is(err, io.EOF) || asked.Load() != 2 {
		t.Errorf("it was asked %d times: %v", asked.Load(), err)
	}
}

// TestAKeptConnectionThatTheServerHasClosedIsNoFailure asks what does as
// llama-server b11669 of Debian was seen to: it says that it keeps the connection,
// and closes it behind a stream. This one does when it has been asked again, so
// that nobody can have heard of it.
func TestAKeptConnectionThatTheServerHasClosedIsNoFailure(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n" +
		"Keep-Alive: timeout=5, max=100\r\n\r\nE\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				if req, err := http.ReadRequest(in); err == nil {
					_, _ = io.Copy(io.Discard, req.Body)
					_, _ = io.WriteString(conn, answer)
					_, _ = http.ReadRequest(in)
				}
			}()
		}
	}()
	e := endpoint.New(&url.URL{Scheme: "http", Host: l.Addr().String()})
	t.Cleanup(e.Close)
	for range 3 {
		resp, err := e.Post(t.Context(), "/v1/chat/completions", []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "data: [DONE]\n\n" {
			t.Fatalf("got %q, %v", got, err)
		}
		_ = resp.Body.Close()
	}
}
