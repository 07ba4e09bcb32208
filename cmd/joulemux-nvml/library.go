//go:build cgo

package main

import (
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	gonvml "github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/nvml"
)

// soname is the library's, which comes with NVIDIA's driver.
const soname = "libnvidia-ml.so.1"

// needed is what the library has to have. The process would end at the call of
// a function that it does not have, since such are looked up when called.
var needed = []string{
	"nvmlInit_v2", "nvmlShutdown", "nvmlErrorString", "nvmlDeviceGetHandleByPciBusId_v2",
}

// library is NVML, opened.
type library struct {
	nvml    gonvml.Interface
	loaded  *dl.DynamicLibrary
	devices map[string]gonvml.Device
}

// open loads and initializes NVML.
func open() (nvml.Library, error) {
	loaded := dl.New(soname, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	if err := loaded.Open(); err != nil {
		return nil, err
	}
	for _, symbol := range needed {
		if err := loaded.Lookup(symbol); err != nil {
			return nil, errors.Join(err, loaded.Close())
		}
	}
	l := &library{nvml: gonvml.New(gonvml.WithLibraryPath(soname)), loaded: loaded, devices: make(map[string]gonvml.Device)}
	if err := failure("nvmlInit", l.nvml.Init()); err != nil {
		return nil, err
	}
	return l, nil
}

// Close implements nvml.Library.
func (l *library) Close() error {
	return errors.Join(failure("nvmlShutdown", l.nvml.Shutdown()), l.loaded.Close())
}

// Energy implements nvml.Library.
func (l *library) Energy(address string) (power.Energy, error) {
	const call = "nvmlDeviceGetTotalEnergyConsumption"
	device, err := l.device(address, call)
	if err != nil {
		return 0, err
	}
	millijoules, ret := device.GetTotalEnergyConsumption()
	return power.Energy(millijoules) * (power.Joule / 1000), failure(call, ret)
}

// Draw implements nvml.Library.
func (l *library) Draw(address string) (power.Power, error) {
	const call = "nvmlDeviceGetPowerUsage"
	device, err := l.device(address, call)
	if err != nil {
		return 0, err
	}
	milliwatts, ret := device.GetPowerUsage()
	return power.Power(milliwatts) * (power.Watt / 1000), failure(call, ret)
}

// device returns what NVML calls the GPU at an address, if it has a call to make
// of it.
func (l *library) device(address, call string) (gonvml.Device, error) {
	if l.loaded.Lookup(call) != nil {
		return nil, fmt.Errorf("%s: %w", call, nvml.ErrNotSupported)
	}
	if device, ok := l.devices[address]; ok {
		return device, nil
	}
	device, ret := l.nvml.DeviceGetHandleByPciBusId(address)
	if err := failure("nvmlDeviceGetHandleByPciBusId", ret); err != nil {
		return nil, err
	}
	l.devices[address] = device
	return device, nil
}

// failure is what a call returned, as an error.
func failure(call string, ret gonvml.Return) error {
	switch ret {
	case gonvml.SUCCESS:
		return nil
	case gonvml.ERROR_NOT_SUPPORTED, gonvml.ERROR_FUNCTION_NOT_FOUND:
		return fmt.Errorf("%s: %w", call, nvml.ErrNotSupported)
	default:
		return fmt.Errorf("%s: %w", call, ret)
	}
}
