package wire

import "time"

// Status is what there is to know at one moment.
type Status struct {
	Version    string    `json:"version"`
	Tier       string    `json:"tier"`
	TierReason string    `json:"tier_reason"`
	Since      time.Time `json:"since"`
	Supply     Supply    `json:"supply"`
	// Profile is the power profile, "" if no daemon keeps one.
	Profile string `json:"profile"`
	Policy  string `json:"policy"`
	Holds   []Held `json:"holds"`
	// ActiveBackend is where an ordinary job would go now, "" if nowhere, and
	// ActiveReason says why.
	ActiveBackend string `json:"active_backend"`
	ActiveReason  string `json:"active_reason"`
	// Running is how many jobs are under way.
	Running int `json:"running"`
	// Faults is what is wrong with the configuration's file, and what is done
	// without it; "" if nothing is wrong.
	Faults string `json:"faults,omitempty"`
	Machine
	Backends []Backend `json:"backends"`
}

// Machine is what there is to see of the machine, read for whoever asks.
type Machine struct {
	// DrawWatts is what the machine takes from its battery, if it says so.
	DrawWatts *float64 `json:"draw_watts,omitempty"`
	// Draws are what single sensors say, and Devices the graphics and neural
	// processors, read without waking any.
	Draws   []Draw   `json:"draws"`
	Devices []Device `json:"devices"`
	// Unreadable are domains with a sensor that root alone may read.
	Unreadable []string `json:"unreadable,omitempty"`
	// Heat is the processor's, if it can be read, and Degraded why the machine
	// does not perform as its power profile promises, as in "lap-detected".
	Heat     *Heat  `json:"heat,omitempty"`
	Degraded string `json:"degraded,omitempty"`
	// CrossCheck is how the sensors compare with the battery, after five minutes
	// on it.
	CrossCheck *CrossCheck `json:"cross_check,omitempty"`
}

// Heat is how hot the processor is. Vetoed tells that it should be given no more
// work, and Reason why.
type Heat struct {
	Celsius float64 `json:"celsius"` // 0 if not known
	Vetoed  bool    `json:"vetoed"`
	Reason  string  `json:"reason,omitempty"`
}

// CrossCheck is what the sensors counted beside what the batteries gave. The
// sensors do not see all of a machine: a ratio over 1 is a fault.
type CrossCheck struct {
	Seconds       float64 `json:"seconds"`
	BatteryJoules float64 `json:"battery_joules"`
	SensorsJoules float64 `json:"sensors_joules"`
	Ratio         float64 `json:"ratio"`
}

// Draw is what a part of the machine takes now. Domains contain each other, so
// they do not add up.
type Draw struct {
	Domain string  `json:"domain"` // as in "package-0"
	Scope  string  `json:"scope"`  // "platform", "package", "core", "uncore", "dram", "npu" or "dgpu"
	Source string  `json:"source"` // the sensor, as in "rapl"
	Watts  float64 `json:"watts"`
	// Asleep devices were not asked.
	Asleep bool `json:"asleep,omitempty"`
}

// Device is a graphics or neural processor, as the kernel's power management
// sees it.
type Device struct {
	Address string `json:"address"` // on the PCI bus
	Vendor  string `json:"vendor"`  // "nvidia", "amd" or "intel", or the number on the bus
	Kind    string `json:"kind"`    // "display" or "accelerator"
	// Status is the kernel's runtime_status, such as "active" or "suspended",
	// and PowerState the bus's, such as "D0" or "D3cold".
	Status      string `json:"status"`
	PowerState  string `json:"power_state"`
	SuspendedMs int64  `json:"suspended_ms"`
	ActiveMs    int64  `json:"active_ms"`
	// BusyMs is for how long there has been work for it, where it tells.
	BusyMs int64 `json:"busy_ms,omitempty"`
	// NeverSleeps tells that the device is set to stay on.
	NeverSleeps bool `json:"never_sleeps,omitempty"`
}

// Supply is how the machine is powered.
type Supply struct {
	Source        string  `json:"source"` // "upower", "sysfs" or ""
	Battery       bool    `json:"battery"`
	Discharging   bool    `json:"discharging"`
	ChargePercent float64 `json:"charge_percent"`
	Text          string  `json:"text"` // for people
}

// Hold asks to keep the tier at least as careful as Tier. Reason is for people,
// in at most 256 bytes.
type Hold struct {
	Tier   string `json:"tier"`
	Reason string `json:"reason"`
}

// Held is a hold in force. A line with Released set says that it has ended
// though its holder has not ended it.
type Held struct {
	Cookie   uint32    `json:"cookie"`
	Tier     string    `json:"tier"`
	Reason   string    `json:"reason"`
	Holder   string    `json:"holder"`
	Since    time.Time `json:"since"`
	Released bool      `json:"released,omitempty"`
}

// Policy is what the user has chosen for good: "auto", "saver", "balanced" or
// "performance".
type Policy struct {
	Policy string `json:"policy"`
}
