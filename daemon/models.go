package daemon

import (
	"bufio"
	"bytes"
	"context"
	"io/fs"
	"strconv"
	"strings"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/backend/ollama"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/registry"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/sysfs"
)

// newRegistry returns the list of models.
func (d *daemon) newRegistry() *registry.Registry {
	return registry.New(registry.Parts{Backends: d.backends, Describe: describeModel, Memory: d.memory})
}

// describeModel asks an Ollama of this machine about a model. What other servers tell
// is in their listings.
func describeModel(ctx context.Context, b backend.Backend, model string) (job.Description, error) {
	if b.Remote() || b.Program() != "ollama" {
		return job.Description{}, nil
	}
	return ollama.Show(ctx, b.Server().Do, model)
}

// memory tells how much a backend's device has, and wakes none to find out.
func (d *daemon) memory(b backend.Backend) registry.Memory {
	switch {
	case b.Spec.Memory > 0:
		return registry.Memory{Bytes: b.Spec.Memory}
	case !local(b.Endpoint):
		return registry.Memory{Unknown: "it is on another machine"}
	}
	switch b.Class {
	case power.CPU, power.NPU, power.IntegratedGPU:
		if bytes := systemMemory(d.Proc); bytes > 0 {
			return registry.Memory{Bytes: bytes}
		}
	case power.DiscreteGPU:
		if bytes, known := sysfs.VideoMemory(d.Sys); known {
			return registry.Memory{Bytes: bytes}
		}
	case power.NVIDIA:
		return registry.Memory{Unknown: "asking the GPU would wake it; characteristics.memory_gib can tell"}
	case power.Unclassified, power.Cloud:
		return registry.Memory{Unknown: "nobody knows its device"}
	}
	return registry.Memory{Unknown: "its device does not tell; characteristics.memory_gib can"}
}

// systemMemory returns how much memory the machine has, in bytes, or zero.
func systemMemory(proc fs.FS) int64 {
	text, err := fs.ReadFile(proc, "meminfo")
	if err != nil {
		return 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "MemTotal:"); ok {
			kB, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 54)
			if err != nil {
				return 0
			}
			return kB << 10
		}
	}
	return 0
}
