package simulate

import "github.com/joulemux/joulemux/daemon/job"

// Known is what is known of the device of a machine that has been used for long.
func (d *Device) Known() job.Profile { return known(d) }
