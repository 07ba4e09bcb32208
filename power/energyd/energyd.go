// Package energyd is both ends of the socket through which the daemon of a user
// learns what root alone may read: RAPL's energy counters and that of Intel's
// NPU. The Server runs as root without any capability, in cmd/joulemux-energyd,
// which the system's service manager starts when somebody connects; Sensors
// connects to it. It is an opt-in, as packaging/udev is.
//
// Until Linux 5.10 everybody could read energy_uj. PLATYPUS (Lipp et al., 2021)
// then showed what that gives away: the counter is renewed every millisecond, and
// whoever reads it often enough sees in it which operands a processor works
// with. It told AES and RSA keys, and where the kernel is (CVE-2020-8694 and
// CVE-2020-8695 of Intel, CVE-2020-12912 of AMD). Since commit 949dd0104c49,
// "powercap: restrict energy meter to root access", only root reads it, and a
// helper that tells everybody would undo that. So:
//
//   - Only root, a user that is named, or a member of a group that is named may
//     ask, which says the kernel and not the client (Access).
//   - The hardware is read ten times a second at most, whatever is asked by how
//     many (interval). That is a hundredth of what the counter offers; a job lasts
//     for seconds, and each reading has its own time, so a meter loses nothing.
//     It makes an attack slow, not impossible: what protects is who may ask.
//   - Nothing is opened but the counters and what describes them (Whitelist),
//     nothing is written, and nothing that a client says becomes part of a path.
//     Of the telemetry of Intel PMT one word goes out: the NPU's energy.
//
// What the daemon then tells its own clients is a side channel as well. That is
// for its wires to round: here are the counters as they are.
package energyd

import (
	"io/fs"
	"regexp"
	"time"
)

// Socket is where the helper listens, as in joulemux-energyd.socket.
const Socket = "/run/joulemux/energyd.sock"

// interval is how much time passes at least between two looks at the hardware.
const interval = 100 * time.Millisecond

// Whitelist returns the part of a tree of /sys that the helper needs. Nothing
// else is in it, whatever reads it.
func Whitelist(sys fs.FS) fs.FS { return whitelist{sys} }

type whitelist struct{ sys fs.FS }

// Open implements fs.FS.
func (w whitelist) Open(name string) (fs.File, error) {
	if !listed(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return w.sys.Open(name)
}

// listed says whether a file or folder is of use. Zones of RAPL may be in one
// another.
func listed(name string) bool { return list.MatchString(name) }

var list = regexp.MustCompile(`^class/powercap(/intel-rapl(-mmio)?(:\d+)*)*(/(name|energy_uj|max_energy_range_uj|constraint_0_max_power_uw))?$` +
	`|^class/intel_pmt(/telem\d+/(guid|telem))?$`)
