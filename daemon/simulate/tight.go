package simulate

import (
	"math"
	"slices"

	"github.com/joulemux/joulemux/daemon/route"
)

// Tightness is how far the lower bound is from the optimum, over windows of a
// few requests. Ratios are of the optimum to the bound, where nobody has to be
// late: elsewhere the optimum can be less.
type Tightness struct {
	Windows int
	// InTime is in how many windows nobody has to be late.
	InTime           int
	Median, P95, Max float64
	// Equal is in which share of them the optimum is the bound.
	Equal float64
}

// Tight compares bound and optimum of each window on m.
func Tight(m *Machine, rules *route.Rules, windows [][]Request) (Tightness, error) {
	t := Tightness{Windows: len(windows)}
	var ratios []float64
	for _, w := range windows {
		optimum, err := Optimal(m, rules, w)
		if err != nil {
			return t, err
		}
		if optimum.Late == 0 {
			ratios = append(ratios, optimum.Energy.Joules()/LowerBound(m, rules, w).Energy.Joules())
		}
	}
	if len(ratios) == 0 {
		return t, nil
	}
	slices.Sort(ratios)
	t.InTime = len(ratios)
	t.Median, t.P95, t.Max = reached(ratios, 0.5), reached(ratios, 0.95), ratios[len(ratios)-1]
	above, _ := slices.BinarySearch(ratios, math.Nextafter(1, 2))
	t.Equal = float64(above) / float64(len(ratios))
	return t, nil
}

// reached returns the least of the numbers, which are in order, that a share of
// them does not exceed.
func reached(sorted []float64, share float64) float64 {
	at := int(math.Ceil(share*float64(len(sorted)))) - 1
	return sorted[max(0, at)]
}

// Windows returns up to so many stretches of size requests that follow each
// other, spread evenly over the requests.
func Windows(requests []Request, size, most int) [][]Request {
	var windows [][]Request
	for i := range min(most, max(0, len(requests)-size+1)) {
		from := 0
		if most > 1 {
			from = i * (len(requests) - size) / (most - 1)
		}
		windows = append(windows, requests[from:from+size])
	}
	return windows
}
