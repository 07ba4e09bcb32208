package daemon

import (
	"testing"

	"github.com/joulemux/joulemux/power/powertest"
	"github.com/joulemux/joulemux/power/sysfs"
)

func TestDevicesOfAMachine(t *testing.T) {
	optimus := powertest.Load(t, "optimus")
	seen := map[string]string{}
	for _, d := range devices(optimus.Sys(), nil) {
		seen[d.Vendor+" "+d.Kind] = d.Status
	}
	if seen["nvidia display"] != "suspended" || seen["intel display"] != "active" {
		t.Errorf("an Optimus laptop has %v", seen)
	}
	meteor := powertest.Load(t, "meteor-lake")
	npu, ok := sysfs.NPUOccupancy(meteor.Sys())
	if !ok {
		t.Fatal("its NPU tells nothing")
	}
	for _, d := range devices(meteor.Sys(), npu) {
		if (d.BusyMs > 0) != (d.Kind == "accelerator") {
			t.Errorf("busy is %+v", d)
		}
	}
}
