package daemon_test

import (
	"encoding/json"
	"net/http"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// What is said to become of a job is the same on each wire, and is what becomes
// of it.
func TestExplanationsComeTrue(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	var e wire.Explanation
	a := ask(t, d, "POST", "/joulemux/v1/explain", `{"prompt":"Why?","options":{"model":"`+model+`"}}`)
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d: %s, %v", a.status, a.body, err)
	}
	var decision options
	var backends []options
	asked := options{"model": godbus.MakeVariant(model)}
	if err := call(t, inference(d.Bus.Connect(t)), "Explain", "Why?", asked).Store(&decision, &backends); err != nil {
		t.Fatal(err)
	}
	if got := decision["backend_used"].Value(); got != e.Backend || decision["reason"].Value() != e.Reason || len(backends) != len(e.Backends) {
		t.Errorf("over D-Bus it goes to %v, and over HTTP to %s", decision, e.Backend)
	}
	a = ask(t, d, "GET", "/joulemux/v1/energy", "")
	var spent wire.Energy
	if err := json.Unmarshal([]byte(a.body), &spent); err != nil || len(spent.Totals) != 0 {
		t.Errorf("to say so took %s, %v", a.body, err)
	}
	if got := ran(t, d); got != e.Backend {
		t.Errorf("then it ran on %s, not on %s", got, e.Backend)
	}
}
