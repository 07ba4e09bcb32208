package sysfs

import (
	"io/fs"
	"path"
	"strings"

	"github.com/joulemux/joulemux/power"
)

// PCI ids of https://pci-ids.ucw.cz: display controllers and their makers.
const (
	classDisplay = "0x03"
	vendorNVIDIA = "0x10de"
	vendorAMD    = "0x1002"
	vendorIntel  = "0x8086"
)

// GPUs returns the class of every display controller by its PCI address.
// Reading class and vendor wakes nothing.
func GPUs(sys fs.FS) (map[string]power.DeviceClass, error) {
	entries, err := fs.ReadDir(sys, pciDevices)
	if err != nil {
		return nil, err
	}
	gpus := make(map[string]power.DeviceClass)
	for _, e := range entries {
		dir := path.Join(pciDevices, e.Name())
		if isDisplay(attribute(sys, dir, "class")) {
			gpus[e.Name()] = gpuClass(sys, dir)
		}
	}
	return gpus, nil
}

// RenderNode returns the class of the GPU behind a node such as "renderD128".
func RenderNode(sys fs.FS, node string) power.DeviceClass {
	return gpuClass(sys, path.Join("class/drm", node, "device"))
}

// gpuClass tells a discrete GPU from one that is part of the processor.
func gpuClass(sys fs.FS, dir string) power.DeviceClass {
	switch attribute(sys, dir, "vendor") {
	case vendorNVIDIA:
		return power.NVIDIA
	case vendorIntel:
		return intelClass(sys, dir)
	case vendorAMD:
		return amdClass(sys, dir)
	default:
		return power.Unclassified
	}
}

// intelClass goes by the PCI address: Intel's integrated GPU has been function
// 00:02.0 of every generation; a discrete one sits behind a bridge.
func intelClass(sys fs.FS, dir string) power.DeviceClass {
	for line := range strings.Lines(attribute(sys, dir, "uevent")) {
		if address, ok := strings.CutPrefix(strings.TrimSpace(line), "PCI_SLOT_NAME="); ok {
			if address == "0000:00:02.0" {
				return power.IntegratedGPU
			}
			return power.DiscreteGPU
		}
	}
	return power.Unclassified
}

// amdClass goes by the layout of gpu_metrics, of which revision 1 describes
// discrete GPUs and 2 and 3 processors with a GPU (struct metrics_table_header
// in the kernel's kgd_pp_interface.h). Reading it can wake the GPU, so one that
// is not active stays unclassified.
func amdClass(sys fs.FS, dir string) power.DeviceClass {
	if attribute(sys, dir, "power/runtime_status") != "active" {
		return power.Unclassified
	}
	const headerSize, revision = 4, 2 // u16 size, u8 format revision, u8 content revision
	header, err := fs.ReadFile(sys, path.Join(dir, "gpu_metrics"))
	switch {
	case err != nil || len(header) < headerSize:
		return power.Unclassified
	case header[revision] == 1:
		return power.DiscreteGPU
	default:
		return power.IntegratedGPU
	}
}
