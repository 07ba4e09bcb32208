package sysfs

import (
	"io/fs"
	"path"
	"strconv"

	"github.com/joulemux/joulemux/power"
)

// VideoMemory returns how much memory of its own the machine's one discrete GPU
// of AMD's has, in bytes. It reports false if there is none, or several. What is
// read is a figure that amdgpu has taken down (mem_info_vram_total), so that
// nothing is woken for it.
func VideoMemory(sys fs.FS) (bytes int64, known bool) {
	gpus, err := GPUs(sys)
	if err != nil {
		return 0, false
	}
	found := 0
	for address, class := range gpus {
		dir := path.Join(pciDevices, address)
		if class == power.IntegratedGPU || attribute(sys, dir, "vendor") != vendorAMD {
			continue // of another make nothing is opened in vain, while it sleeps
		}
		if n, err := strconv.ParseInt(attribute(sys, dir, "mem_info_vram_total"), 10, 64); err == nil && n > 0 {
			bytes = n
			found++
		}
	}
	return bytes, found == 1
}
