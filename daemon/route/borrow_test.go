package route_test

import (
	"testing"

	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

func TestBorrowedDecisionTellsWhoseAnswerItIs(t *testing.T) {
	d := route.Borrow("ollama-npu", power.NPU, power.Critical, "answered before")
	f := d.Fields()
	if d.Reason() != "answered before" || len(d.Alternatives()) != 0 || len(d.Refused()) != 0 {
		t.Errorf("got %q, %v, %v", d.Reason(), d.Alternatives(), d.Refused())
	}
	if f["backend_used"] != "ollama-npu" || f["hardware"] != "npu" || f["tier"] != "critical" || f["from_cache"] != true || f["estimate_quality"] != "none" || f["estimated_energy_joules"] != 0.0 {
		t.Errorf("told as %v", f)
	}
}
