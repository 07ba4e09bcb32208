package power

import (
	"fmt"
	"slices"
	"strings"
)

// DeviceClass is the kind of processor behind a backend, by its word on every
// wire. A discrete GPU by NVIDIA has a word of its own, since its driver alone
// has the habits that the rules for discrete GPUs are about.
type DeviceClass string

// The device classes.
const (
	NPU           DeviceClass = "npu"
	IntegratedGPU DeviceClass = "igpu"
	NVIDIA        DeviceClass = "nvidia"
	DiscreteGPU   DeviceClass = "dgpu"
	CPU           DeviceClass = "cpu"
	Cloud         DeviceClass = "cloud"
	// Unclassified is a server that runs on nobody knows what.
	Unclassified DeviceClass = "unclassified"
)

// ParseDeviceClass accepts the words that people may write: all but
// Unclassified.
func ParseDeviceClass(word string) (DeviceClass, error) {
	words := []DeviceClass{NPU, IntegratedGPU, NVIDIA, DiscreteGPU, CPU, Cloud}
	if c := DeviceClass(strings.ToLower(word)); slices.Contains(words, c) {
		return c, nil
	}
	return Unclassified, fmt.Errorf("hardware %q is none of %s", word, join(words))
}

func join(words []DeviceClass) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(w))
	}
	return b.String()
}

// OnPackage reports whether a device is part of the processor's package, and so
// shares its heat.
func (c DeviceClass) OnPackage() bool { return c == NPU || c == IntegratedGPU || c == CPU }

// Discrete reports whether the rules for discrete GPUs apply: to those, and to
// what might be one.
func (c DeviceClass) Discrete() bool {
	return c == NVIDIA || c == DiscreteGPU || c == Unclassified
}
