package daemon_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/daemontest"
)

func TestFoundServerIsWhatItsModelsSay(t *testing.T) {
	addr := daemontest.Serve(t, daemontest.CannedOllama())
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	nobody := daemontest.FreePort(t)
	d := daemontest.Start(t, daemontest.Options{Config: fmt.Sprintf("discover: {ports: [%d, %s]}\n", nobody, port)})
	if got := ran(t, d); got != "ollama-cpu" {
		t.Errorf("a job ran on %s", got)
	}
	found := status(t, d).Backends
	if len(found) != 1 || found[0].ID != "ollama-cpu" || found[0].Hardware != "cpu" {
		t.Errorf("found are %+v", found)
	}
}

func TestDaemonsAreNoBackendsOfEachOther(t *testing.T) {
	first, second := daemontest.FreePort(t), daemontest.FreePort(t)
	both := fmt.Sprintf("discover: {ports: [%d, %d]}\n", first, second)
	one := daemontest.Start(t, daemontest.Options{Port: first, Config: both})
	other := daemontest.Start(t, daemontest.Options{Port: second, Config: both, Beside: one})
	for _, d := range []*daemontest.Daemon{one, other} {
		if got := status(t, d).Backends; len(got) != 0 {
			t.Errorf("found are %+v", got)
		}
		a := ask(t, d, "POST", "/api/generate", generate)
		if a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "no backend") {
			t.Errorf("a job: %d, %s", a.status, a.body)
		}
	}
}
