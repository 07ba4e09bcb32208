// Package nvml reads what NVIDIA GPUs take, without ever waking one.
//
// NVIDIA's library needs cgo, can crash, and keeps a GPU awake for as long as
// it is open. So it lives in a program of its own, cmd/joulemux-nvml, which the
// user's service manager starts when somebody connects to its socket, and which
// ends with its last connection: when a process is gone, it holds nothing.
// This package is both ends of that socket, the Sensor and the Server, and the
// rules between them. It has no cgo; the program brings the Library.
//
// When a job runs on a GPU, and the sensor is to be read at all, is for
// power/meter to say.
package nvml

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/power"
)

// Socket is where the program listens, under the user's runtime folder.
const Socket = "joulemux/nvml.sock"

// ErrNotSupported is a figure that a GPU, or its driver, does not have.
var ErrNotSupported = errors.New("not supported")

// A Library is NVIDIA's, opened. Devices are PCI addresses. Where nothing else
// is said, errors mean that the GPU cannot be read at all.
type Library interface {
	// Energy is what the GPU has counted since its driver was loaded, or
	// ErrNotSupported.
	Energy(device string) (power.Energy, error)
	// Draw is what it draws, or ErrNotSupported. Ampere and newer say the mean
	// of a second (nvmlDeviceGetPowerUsage of nvml.h).
	Draw(device string) (power.Power, error)
	// Close lets go of all GPUs.
	Close() error
}

// A Sample is one look at a GPU.
type Sample struct {
	At time.Time
	at int64 // as on the wire
	// Energy is what it has counted since its driver was loaded, if Counted.
	Energy  power.Energy
	Counted bool
	// Draw is what it draws, if Drawn.
	Draw  power.Power
	Drawn bool
}

// PCI ids of https://pci-ids.ucw.cz.
const (
	bus          = "bus/pci/devices"
	classDisplay = "0x03"
	vendorNVIDIA = "0x10de"
)

// GPUs returns the PCI addresses of NVIDIA's display controllers. A machine
// without a PCI bus has none. The kernel keeps class and vendor in memory:
// reading them wakes nothing.
func GPUs(sys fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(sys, bus)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for NVIDIA GPUs: %w", err)
	}
	var gpus []string
	for _, e := range entries {
		class, _ := attribute(sys, e.Name(), "class")
		if !strings.HasPrefix(class, classDisplay) {
			continue
		}
		if vendor, _ := attribute(sys, e.Name(), "vendor"); vendor == vendorNVIDIA {
			gpus = append(gpus, e.Name())
		}
	}
	slices.Sort(gpus)
	return gpus, nil
}

// awake says whether a look through NVML would wake nobody: it is nil, or
// wraps power.ErrAsleep or power.ErrUnavailable.
//
// All GPUs have to be awake for one to be read, since the driver powers up
// every one it has for each call (_rmapiRefGpuAccessNeeded in NVIDIA's
// open-gpu-kernel-modules).
func awake(sys fs.FS, gpus []string) error {
	for _, gpu := range gpus {
		status, err := attribute(sys, gpu, "power/runtime_status")
		if err != nil {
			return fmt.Errorf("%w: whether GPU %s is awake: %w", power.ErrUnavailable, gpu, err)
		}
		if status != "active" {
			return fmt.Errorf("GPU %s is %s: %w", gpu, status, power.ErrAsleep)
		}
	}
	return nil
}

// attribute reads an attribute of a PCI function.
func attribute(sys fs.FS, address, name string) (string, error) {
	text, err := fs.ReadFile(sys, path.Join(bus, address, name))
	return strings.TrimSpace(string(text)), err
}
