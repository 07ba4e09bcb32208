package daemon

import (
	"io/fs"
	"net/url"
	"testing"
	"testing/fstest"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/power"
)

// pci is a bus with devices: what each is, whose, and its runtime status.
func pci(devices ...[3]string) fs.FS {
	sys := fstest.MapFS{"bus/pci/devices": {Mode: fs.ModeDir | 0o755}}
	for i, d := range devices {
		dir := "bus/pci/devices/0000:0" + string(rune('0'+i)) + ":00.0/"
		sys[dir+"class"] = &fstest.MapFile{Data: []byte(d[0] + "\n")}
		sys[dir+"vendor"] = &fstest.MapFile{Data: []byte(d[1] + "\n")}
		sys[dir+"power/runtime_status"] = &fstest.MapFile{Data: []byte(d[2] + "\n")}
	}
	return sys
}

func TestWhoLooksSeesWhoseDeviceSleeps(t *testing.T) {
	const gpu, npu, nvidia, intel = "0x030200", "0x120000", "0x10de", "0x8086"
	here, elsewhere := url.URL{Scheme: "http", Host: "127.0.0.1:11434"}, url.URL{Scheme: "http", Host: "192.0.2.7:11434"}
	for _, c := range []struct {
		name   string
		sys    fs.FS
		class  power.DeviceClass
		at     url.URL
		asleep bool
	}{
		{"a GPU that sleeps", pci([3]string{gpu, nvidia, "suspended"}), power.NVIDIA, here, true},
		{"one that is awake", pci([3]string{gpu, nvidia, "active"}), power.NVIDIA, here, false},
		{"one of two is awake", pci([3]string{gpu, nvidia, "suspended"}, [3]string{gpu, nvidia, "active"}), power.NVIDIA, here, false},
		{"another's sleep is not its own", pci([3]string{gpu, intel, "suspended"}, [3]string{gpu, nvidia, "active"}), power.NVIDIA, here, false},
		{"an NPU that sleeps", pci([3]string{npu, intel, "suspended"}, [3]string{gpu, intel, "active"}), power.NPU, here, true},
		{"the processor never does", pci([3]string{gpu, nvidia, "suspended"}), power.CPU, here, false},
		{"nor does what is not there", pci(), power.NVIDIA, here, false},
		{"of another machine nobody knows", pci([3]string{gpu, nvidia, "suspended"}), power.NVIDIA, elsewhere, false},
	} {
		before := backend.Snapshot{{Spec: backend.Spec{Endpoint: c.at}, ID: "one", Class: c.class, Healthy: true}}
		after := dozing(c.sys, before)
		if after[0].Asleep != c.asleep || before[0].Asleep {
			t.Errorf("%s: asleep is %v, and before %v", c.name, after[0].Asleep, before[0].Asleep)
		}
	}
}
