package daemon

import (
	"io/fs"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/peer"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/sysfs"
)

// classifier finds out on what device a server runs, without waking any.
type classifier struct {
	sys   fs.FS
	peers peer.Table
}

// classify goes by what a server says, or has loaded, then by what its processes hold
// open, then by what there is: where there is no GPU, there is only the CPU.
// Of another machine only its user knows.
func (c classifier) classify(s backend.Spec, facts job.Facts) power.DeviceClass {
	if !local(s.Endpoint) {
		return power.Unclassified
	}
	if facts.Device != "" {
		return facts.Device
	}
	if onCPU(facts.Models) {
		return power.CPU
	}
	if class, found := c.held(s); found {
		return class
	}
	if gpus, err := sysfs.GPUs(c.sys); err == nil && !anyGPU(gpus) {
		return power.CPU
	}
	return power.Unclassified
}

// local reports whether an endpoint is on this machine.
func local(endpoint url.URL) bool {
	host := endpoint.Hostname()
	ip, err := netip.ParseAddr(host)
	return endpoint.Scheme == "unix" || host == "localhost" || err == nil && ip.IsLoopback()
}

// onCPU reports whether all that is resident is in the processor's memory, as far
// as it is known where. What has no room left in a GPU's spills over there too.
func onCPU(models []job.Model) bool {
	resident := false
	for _, m := range models {
		if m.Resident && m.VRAM != 0 {
			return false
		}
		resident = resident || m.Resident
	}
	return resident
}

// anyGPU leaves out the display controllers of virtual machines and servers,
// on which no model runs.
func anyGPU(gpus map[string]power.DeviceClass) bool {
	for _, class := range gpus {
		if class != power.Unclassified {
			return true
		}
	}
	return false
}

// held returns the class of the device nodes that a server's processes have
// open; of several, one whose rules are the stricter. Looking at links of /proc opens no device.
func (c classifier) held(s backend.Spec) (power.DeviceClass, bool) {
	port, err := strconv.ParseUint(s.Endpoint.Port(), 10, 16)
	if err != nil {
		return power.Unclassified, false
	}
	class, found := power.Unclassified, false
	for _, file := range c.peers.Files(uint16(port)) {
		switch {
		case strings.HasPrefix(file, "/dev/nvidia"):
			return power.NVIDIA, true
		case strings.HasPrefix(file, "/dev/dri/renderD"):
			if node := sysfs.RenderNode(c.sys, path.Base(file)); !found || node.Discrete() {
				class, found = node, true
			}
		}
	}
	return class, found
}
