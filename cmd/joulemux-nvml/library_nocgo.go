//go:build !cgo

package main

import (
	"errors"

	"github.com/joulemux/joulemux/power/nvml"
)

// open says why there is no library. Questions are answered with that: a
// program that ended instead would be started again for every one of them.
func open() (nvml.Library, error) {
	return nil, errors.New("joulemux-nvml was built without cgo, which NVIDIA's library needs")
}
