package daemon

import (
	"net/url"
	"testing"
	"testing/fstest"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/peer"
	"github.com/joulemux/joulemux/power"
)

func TestClassOfAServerThatHoldsNoDevice(t *testing.T) {
	nvidia := fstest.MapFS{
		"bus/pci/devices/0000:01:00.0/class":  {Data: []byte("0x030000\n")},
		"bus/pci/devices/0000:01:00.0/vendor": {Data: []byte("0x10de\n")},
	}
	none := fstest.MapFS{"bus/pci/devices/0000:00:1f.0/class": {Data: []byte("0x060100\n")}}
	table, err := peer.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	inMemory := job.Model{Name: "a", Resident: true}
	inVRAM := job.Model{Name: "b", Resident: true, VRAM: 1e9}
	const here, elsewhere = "http://127.0.0.1:1", "http://192.0.2.1:1"
	for _, c := range []struct {
		rule     string
		sys      fstest.MapFS
		endpoint string
		models   []job.Model
		want     power.DeviceClass
	}{
		{"a model in the processor's memory tells", nvidia, here, []job.Model{inMemory}, power.CPU},
		{"unless another one is in a GPU's", nvidia, here, []job.Model{inMemory, inVRAM}, power.Unclassified},
		{"one that is not loaded tells nothing", nvidia, here, []job.Model{{Name: "c"}}, power.Unclassified},
		{"where there is no GPU there is only the processor", none, here, nil, power.CPU},
		{"of another machine this one tells nothing", none, elsewhere, nil, power.Unclassified},
		{"a socket is on this machine", none, "unix:///run/llama.sock", nil, power.CPU},
	} {
		endpoint, err := url.Parse(c.endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if got := (classifier{c.sys, table}).classify(backend.Spec{Endpoint: *endpoint}, job.Facts{Models: c.models}); got != c.want {
			t.Errorf("%s: got %s, want %s", c.rule, got, c.want)
		}
	}
}
