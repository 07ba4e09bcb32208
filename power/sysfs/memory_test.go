package sysfs_test

import (
	"testing"
	"testing/fstest"

	"github.com/joulemux/joulemux/power/sysfs"
)

func TestVideoMemoryIsOfTheOneDiscreteGPU(t *testing.T) {
	t.Parallel()
	gpu := func(tree fstest.MapFS, address, status, metrics, memory string) {
		dir := "bus/pci/devices/" + address + "/"
		for name, text := range map[string]string{"class": "0x030000", "vendor": "0x1002", "power/runtime_status": status, "gpu_metrics": metrics, "mem_info_vram_total": memory} {
			tree[dir+name] = &fstest.MapFile{Data: []byte(text + "\n")}
		}
	}
	const discrete, integrated = "\x00\x00\x01\x00", "\x00\x00\x02\x00"
	for name, tt := range map[string]struct {
		fill  func(fstest.MapFS)
		bytes int64
		known bool
	}{
		"none":                    {func(fstest.MapFS) {}, 0, false},
		"one":                     {func(s fstest.MapFS) { gpu(s, "0000:03:00.0", "active", discrete, "17163091968") }, 17163091968, true},
		"one that sleeps":         {func(s fstest.MapFS) { gpu(s, "0000:03:00.0", "suspended", discrete, "17163091968") }, 17163091968, true},
		"a part of the processor": {func(s fstest.MapFS) { gpu(s, "0000:c1:00.0", "active", integrated, "536870912") }, 0, false},
		"both": {func(s fstest.MapFS) {
			gpu(s, "0000:03:00.0", "active", discrete, "8000")
			gpu(s, "0000:c1:00.0", "active", integrated, "5000")
		}, 8000, true},
		"two": {func(s fstest.MapFS) {
			gpu(s, "0000:03:00.0", "active", discrete, "8000")
			gpu(s, "0000:04:00.0", "active", discrete, "8000")
		}, 0, false},
		"one of another make": {func(s fstest.MapFS) {
			gpu(s, "0000:03:00.0", "active", discrete, "8000")
			s["bus/pci/devices/0000:03:00.0/vendor"].Data = []byte("0x10de\n")
		}, 0, false},
		"one that says nonsense": {func(s fstest.MapFS) { gpu(s, "0000:03:00.0", "active", discrete, "much") }, 0, false},
	} {
		tree := fstest.MapFS{"bus/pci/devices/0000:00:00.0/class": &fstest.MapFile{Data: []byte("0x060000\n")}}
		tt.fill(tree)
		bytes, known := sysfs.VideoMemory(tree)
		if known != tt.known || known && bytes != tt.bytes {
			t.Errorf("%s: %d, %v", name, bytes, known)
		}
	}
}
