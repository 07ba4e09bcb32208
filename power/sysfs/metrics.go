package sysfs

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/joulemux/joulemux/power"
)

// ParseGPUMetrics returns what amdgpu's gpu_metrics says of the draw of a
// processor with a GPU: of the package, of the GPU (power.ScopeUncore) and of
// the NPU. What the hardware does not tell is not in the map.
//
// The layouts are gpu_metrics_v2_0 to v2_4 and v3_0 of the kernel's
// drivers/gpu/drm/amd/include/kgd_pp_interface.h; all others are an error.
func ParseGPUMetrics(b []byte) (map[power.Scope]power.Power, error) {
	const headerSize = 4 // u16 size, u8 format revision, u8 content revision
	if len(b) < headerSize {
		return nil, fmt.Errorf("gpu_metrics of %d bytes", len(b))
	}
	size, format, content := binary.LittleEndian.Uint16(b), b[2], b[3]
	l, ok := metricsLayout(format, content)
	if !ok {
		return nil, fmt.Errorf("gpu_metrics of the unknown revision %d.%d", format, content)
	}
	if int(size) != l.size || len(b) < l.size {
		return nil, fmt.Errorf("gpu_metrics %d.%d of %d bytes in %d, which should have %d", format, content, size, len(b), l.size)
	}
	draws := make(map[power.Scope]power.Power)
	for _, f := range l.fields {
		if p, ok := f.draw(b); ok {
			draws[f.scope] = p
		}
	}
	return draws, nil
}

// metricsTable is a revision of gpu_metrics.
type metricsTable struct {
	size   int
	fields []metricsField
}

// metricsField is a draw in milliwatts.
type metricsField struct {
	scope  power.Scope
	offset int
	bits   int
	// least is the least that is believed.
	least uint64
}

// unsureUnit is the least figure of a package that can only be in milliwatts.
// Renoir (2.0 to 2.2) has it in watts or in milliwatts as its firmware pleases
// (renoir_get_smu_metrics_data in renoir_ppt.c), and no package draws 1000 W.
// A figure below may be either, so it is none; hwmon knows.
const unsureUnit = 1000

func metricsLayout(format, content uint8) (metricsTable, bool) {
	version2 := func(size, socket int, least uint64) (metricsTable, bool) {
		const gfx = 6 // from the socket's
		return metricsTable{size, []metricsField{
			{power.ScopePackage, socket, 16, least},
			{power.ScopeUncore, socket + gfx, 16, 0},
		}}, true
	}
	switch (revision{format, content}) {
	case revision{2, 0}:
		return version2(120, 44, unsureUnit)
	case revision{2, 1}:
		return version2(120, 40, unsureUnit)
	case revision{2, 2}:
		return version2(128, 40, unsureUnit)
	case revision{2, 3}:
		return version2(152, 40, unsureUnit)
	case revision{2, 4}:
		return version2(168, 40, 0)
	case revision{3, 0}:
		return metricsTable{264, []metricsField{
			{power.ScopePackage, 112, 32, 0},
			{power.ScopeNPU, 116, 16, 0}, // AMD's driver says IPU
			{power.ScopeUncore, 124, 32, 0},
		}}, true
	default:
		return metricsTable{}, false
	}
}

type revision struct{ format, content uint8 }

// draw returns the field's figure. The driver fills a table with ones before
// it writes what there is (smu_cmn_init_soft_gpu_metrics).
func (f metricsField) draw(b []byte) (power.Power, bool) {
	n, none := uint64(binary.LittleEndian.Uint16(b[f.offset:])), uint64(math.MaxUint16)
	if f.bits == 32 {
		n, none = uint64(binary.LittleEndian.Uint32(b[f.offset:])), math.MaxUint32
	}
	return power.Power(n) * (power.Watt / 1000), n != none && n >= f.least
}
