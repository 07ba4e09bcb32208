package daemon

import (
	"net/url"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/power"
)

func TestHowMuchMemoryABackendHas(t *testing.T) {
	t.Parallel()
	d := &daemon{Options: Options{
		Proc: fstest.MapFS{"meminfo": &fstest.MapFile{Data: []byte("MemTotal:       16000000 kB\nMemFree: 1 kB\n")}},
		Sys:  fstest.MapFS{},
	}}
	for name, tt := range map[string]struct {
		class    power.DeviceClass
		endpoint string
		told     int64
		bytes    int64
		unknown  string
	}{
		"a CPU":                  {class: power.CPU, bytes: 16000000 << 10},
		"an NPU":                 {class: power.NPU, bytes: 16000000 << 10},
		"an NVIDIA GPU":          {class: power.NVIDIA, unknown: "would wake it"},
		"one that the user told": {class: power.NVIDIA, told: 8 << 30, bytes: 8 << 30},
		"another GPU":            {class: power.DiscreteGPU, unknown: "memory_gib"},
		"an unknown device":      {class: power.Unclassified, unknown: "nobody knows its device"},
		"another machine":        {class: power.CPU, endpoint: "http://192.0.2.1:11434", unknown: "another machine"},
	} {
		if tt.endpoint == "" {
			tt.endpoint = "http://127.0.0.1:11434"
		}
		u, err := url.Parse(tt.endpoint)
		if err != nil {
			t.Fatal(err)
		}
		got := d.memory(backend.Backend{Spec: backend.Spec{Endpoint: *u, Memory: tt.told}, Class: tt.class})
		if got.Bytes != tt.bytes || !strings.Contains(got.Unknown, tt.unknown) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, text := range []string{"", "MemTotal: much kB\n", "MemTotal:\n", "MemTotal: -1 kB\n", "MemTotal: 99999999999999999999 kB"} {
		if got := systemMemory(fstest.MapFS{"meminfo": &fstest.MapFile{Data: []byte(text)}}); got > 0 {
			t.Errorf("%q has %d", text, got)
		}
	}
}
