package sysfs

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Signs returns a text that is another once Sensors may find others than before:
// when counters have come, or may now be read; when GPUs have come, or drivers
// that tell of them. It lists folders and opens counters, and nothing of a GPU:
// so it can be had without keeping one awake.
func Signs(sys fs.FS) string {
	var all strings.Builder
	zones := make(map[string]string)
	for _, class := range raplClasses() {
		findZones(sys, class, zones)
	}
	for _, id := range slices.Sorted(maps.Keys(zones)) {
		sign(&all, id, opens(sys, path.Join(zones[id], "energy_uj")))
	}
	for _, name := range names(sys, pmt) {
		sign(&all, name, opens(sys, path.Join(pmt, name, "telem")))
	}
	// One that has no driver yet is on the bus as well.
	for _, folder := range []string{pciDevices, "bus/pci/drivers/amdgpu", "bus/pci/drivers/amdxdna"} {
		sign(&all, folder, true)
		for _, name := range names(sys, folder) {
			sign(&all, name, true)
		}
	}
	return all.String()
}

func sign(all *strings.Builder, name string, there bool) {
	if there {
		all.WriteByte('+')
	}
	all.WriteString(name)
	all.WriteByte('\n')
}

func names(sys fs.FS, folder string) (list []string) {
	entries, _ := fs.ReadDir(sys, folder)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// opens reports whether a file is there and for us to read.
func opens(sys fs.FS, name string) bool {
	file, err := sys.Open(name)
	if err != nil {
		return false
	}
	_ = file.Close()
	return true
}
