package endpoint_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
)

func TestOnceClosedNoConnectionIsLeft(t *testing.T) {
	ended := make(chan struct{}, 4)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			ended <- struct{}{}
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	there, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	e := endpoint.New(there)
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
