package power

// Quality says how a figure was obtained. Unknown is not zero: a figure of
// unknown quality has no value.
type Quality string

// The qualities, from the most to the least trustworthy. Their names are
// those on every wire.
const (
	Measured  Quality = "measured"  // read from a counter over the whole span
	Derived   Quality = "derived"   // computed from measured figures
	Estimated Quality = "estimated" // an assumed draw times a measured time
	Unknown   Quality = "unknown"   // no sensor covers the device
	None      Quality = "none"      // nothing was spent here: remote or cached
)

// Cost is the energy that a job took, and how that is known.
type Cost struct {
	Energy  Energy
	Quality Quality
	// Source names the sensors or assumptions behind the figure, as in
	// "12.0 W assumed × 3.2 s".
	Source string
}

// Plus returns the cost of both. The sum is as trustworthy as its weaker
// part; nothing spent elsewhere does not weaken it.
func (c Cost) Plus(d Cost) Cost {
	switch {
	case c.Quality == "" || c.Quality == None && c.Energy == 0:
		return d
	case d.Quality == "" || d.Quality == None && d.Energy == 0:
		return c
	}
	sum := Cost{Energy: c.Energy + d.Energy, Quality: weaker(c.Quality, d.Quality), Source: c.Source}
	if d.Source != c.Source {
		sum.Source += " + " + d.Source
	}
	return sum
}

func weaker(a, b Quality) Quality {
	rank := map[Quality]int{Measured: 0, Derived: 1, Estimated: 2, Unknown: 3, None: 4}
	if rank[a] >= rank[b] {
		return a
	}
	return b
}

// String formats the cost with its quality, as in "12.4 J estimated".
func (c Cost) String() string {
	switch c.Quality {
	case Unknown, None, "":
		return "energy " + string(c.quality())
	default:
		return c.Energy.String() + " " + string(c.Quality)
	}
}

// quality returns the quality with the zero value read as unknown.
func (c Cost) quality() Quality {
	if c.Quality == "" {
		return Unknown
	}
	return c.Quality
}
