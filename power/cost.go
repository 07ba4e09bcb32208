package power

import (
	"math"
	"slices"
	"strings"
)

// Quality says how a figure was obtained. Unknown is not zero: a figure of
// unknown quality has no value.
type Quality string

// The qualities, from the most to the least trustworthy. Their names are
// those on every wire.
const (
	Measured  Quality = "measured"  // read from a counter of energy
	Derived   Quality = "derived"   // computed from measured figures
	Estimated Quality = "estimated" // an assumed draw times a measured time
	Unknown   Quality = "unknown"   // no sensor covers the device
	None      Quality = "none"      // nothing was spent here: remote or cached
)

// Cost is the energy that a job took, and how that is known.
type Cost struct {
	// Energy is what the job added to what the machine draws without it, from
	// the start of its attempt to its last token, Load included.
	Energy Energy
	// Gross is Energy with the job's share of the idle draw; zero if that is
	// not known.
	Gross Energy
	// Load is the part of Energy that went into making the model resident.
	Load Energy
	// Tail is what the device took on the job's account after the last token,
	// which is known only later.
	Tail Energy
	// Radio is what the network took, by assumption, where the job ran elsewhere.
	// It is no part of Energy.
	Radio   Energy
	Quality Quality
	// Scope says what of the machine is in Energy, as in "dgpu+package".
	Scope string
	// Source names the sensors or assumptions behind the figure, as in
	// "rapl" or "12.0 W assumed x 3.2 s".
	Source string
	// Uncertainty is the part of Energy by which it may be off, either way;
	// zero is not known.
	Uncertainty float64
	// Coverage is the part of the job's time in which its sensors could be
	// read. What is missing is not filled in.
	Coverage float64
	// Shared is how many jobs, this one included, the energy was divided
	// between at most.
	Shared int
}

// Plus returns the cost of both. The sum is as trustworthy as its weaker part,
// unless that is a hundredth of the other or less, as an attempt that failed at
// once is; nothing spent elsewhere does not weaken it.
func (c Cost) Plus(d Cost) Cost {
	switch radio := c.Radio + d.Radio; {
	case c.Quality == "" || c.Quality == None && c.Energy == 0:
		d.Radio = radio
		return d
	case d.Quality == "" || d.Quality == None && d.Energy == 0:
		c.Radio = radio
		return c
	}
	sum := Cost{
		Energy: c.Energy + d.Energy, Gross: gross(c, d), Load: c.Load + d.Load, Tail: c.Tail + d.Tail, Radio: c.Radio + d.Radio,
		Quality: weaker(c.Quality, d.Quality),
		Scope:   union(c.Scope, d.Scope, "+"), Source: union(c.Source, d.Source, " + "),
		Uncertainty: max(c.Uncertainty, d.Uncertainty), Coverage: min(c.Coverage, d.Coverage),
		Shared: max(c.Shared, d.Shared),
	}
	if most := larger(c, d); c.Known() && d.Known() && most.Energy/100 >= sum.Energy-most.Energy {
		sum.Quality, sum.Uncertainty, sum.Coverage = most.Quality, most.Uncertainty, most.Coverage
	}
	return sum
}

func larger(c, d Cost) Cost {
	if d.Energy > c.Energy {
		return d
	}
	return c
}

// gross adds up what two costs are with their idle shares. A share that is not
// known adds nothing, but what it would be a share of is no less for that.
func gross(c, d Cost) Energy {
	if c.Gross == 0 && d.Gross == 0 {
		return 0
	}
	return max(c.Gross, c.Energy) + max(d.Gross, d.Energy)
}

// union returns the words of both lists, each once.
func union(a, b, separator string) string {
	words := strings.Split(a, separator)
	for word := range strings.SplitSeq(b, separator) {
		if !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	return strings.Trim(strings.Join(words, separator), separator)
}

func weaker(a, b Quality) Quality {
	rank := map[Quality]int{Measured: 0, Derived: 1, Estimated: 2, Unknown: 3, None: 4}
	if rank[a] >= rank[b] {
		return a
	}
	return b
}

// Told returns the cost as callers may see it. What a sensor has a part in is
// rounded up to a tenth of a joule: finer figures would let a program that has
// jobs run beside somebody else's work learn from them what that is (PLATYPUS,
// CVE-2020-8694). The meter and the ledger keep microjoules.
func (c Cost) Told() Cost {
	if c.Scope == "" {
		return c
	}
	c.Energy, c.Gross, c.Load, c.Tail = c.Energy.Told(), c.Gross.Told(), c.Load.Told(), c.Tail.Told()
	c.Uncertainty, c.Coverage = math.Round(c.Uncertainty*100)/100, math.Round(c.Coverage*100)/100
	return c
}

// Told returns the energy rounded up to a tenth of a joule, as Cost.Told does
// and for its reason. It is for sums of costs.
func (e Energy) Told() Energy {
	const tenth = Joule / 10
	return (max(e, 0) + tenth - 1) / tenth * tenth
}

// Known reports whether the cost has a value.
func (c Cost) Known() bool {
	return c.Quality == Measured || c.Quality == Derived || c.Quality == Estimated
}

// String formats the cost with its quality, as in "12.4 J estimated".
func (c Cost) String() string {
	if !c.Known() {
		return "energy " + string(c.quality())
	}
	return c.Energy.String() + " " + string(c.Quality)
}

// quality returns the quality with the zero value read as unknown.
func (c Cost) quality() Quality {
	if c.Quality == "" {
		return Unknown
	}
	return c.Quality
}
