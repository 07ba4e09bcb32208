package power

// Warning is what the source of a Supply says of how urgent the charge is.
type Warning uint8

// The warnings, from the least to the most urgent. Unwarned means that the
// source never warns, so that our own percentages decide alone.
const (
	Unwarned Warning = iota
	WarningNone
	WarningLow
	WarningCritical
)

// Supply is what is known of how the machine is powered.
//
// The zero Supply is unknown: nobody could be asked.
type Supply struct {
	// Source names who said so: "upower", "sysfs", or "" for nobody.
	Source string
	// Battery tells whether the machine has a battery (or a UPS) at all.
	// Without one the fields below are meaningless.
	Battery bool
	// Discharging is what makes a machine run on battery. A plug may be in
	// and still deliver less than the machine takes.
	Discharging bool
	Charge      Charge
	Warning     Warning
}

// Known reports whether anybody could say how the machine is powered.
func (s Supply) Known() bool { return s.Source != "" }

// String describes the supply for people, as in "battery, discharging, 62 %".
func (s Supply) String() string {
	switch {
	case !s.Known():
		return "unknown"
	case !s.Battery:
		return "line power, no battery"
	case s.Discharging:
		return "battery, discharging, " + s.Charge.String()
	default:
		return "line power, battery at " + s.Charge.String()
	}
}

// Profile is the user's power-profiles-daemon choice. It is an input to the
// tier, not a synonym of it. The empty profile means that no such daemon runs.
type Profile string

// The profiles by their names on D-Bus; only PowerSaver has an effect here.
const (
	PowerSaver  Profile = "power-saver"
	Balanced    Profile = "balanced"
	Performance Profile = "performance"
)
