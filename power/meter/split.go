package meter

import (
	"math"

	"github.com/joulemux/joulemux/power"
)

// split divides e by the weights, to the microjoule. Without any weight it is
// divided evenly.
func split(e power.Energy, weights []float64) []power.Energy {
	total := 0.0
	for _, w := range weights {
		total += w
	}
	shares := make([]power.Energy, len(weights))
	given, upTo := power.Energy(0), 0.0
	for i, w := range weights {
		if total > 0 {
			upTo += w / total
		} else {
			upTo += 1 / float64(len(weights))
		}
		sum := min(max(power.Energy(math.Round(float64(e)*upTo)), given), e)
		if i == len(weights)-1 {
			sum = e
		}
		shares[i], given = sum-given, sum
	}
	return shares
}

// hostDraw is what the processor is assumed to draw to keep another device
// fed: it weighs a job whose device has a sensor of its own.
const hostDraw = 2 * power.Watt

// weights returns how the active energy of a domain is divided among jobs.
//
// Backends divide it by what they are assumed to draw: a backend draws that
// once, however many jobs it works on, and they divide its part.
func weights(d power.Domain, members []member) []float64 {
	list := make([]float64, len(members))
	for i, m := range members {
		list[i] = m.part * weight(d, m.span).Watts()
	}
	return list
}

// weight returns what a job's backend is assumed to draw from a domain.
func weight(d power.Domain, s *Span) power.Power {
	if s.apart(d) {
		return hostDraw
	}
	return max(s.work.Draw, power.Watt/10)
}

// shareBackends fills in which part of its backend's energy each member has:
// jobs that write divide it by the tokens that they wrote, and while none does,
// it is that of the one which came first. Servers work on one job at a time
// unless tokens show otherwise, and a job that stands in line takes nothing.
// That is a convention and no physics, so costs say how many jobs shared; and
// what a job may have taken that shows nothing to its end is a claim.
func shareBackends(members []member) {
	for i := range members {
		m := &members[i]
		first, writing, tokens := true, 0, int64(0)
		for j, other := range members {
			if other.span.work.Backend != m.span.work.Backend {
				continue
			}
			first = first && j >= i
			if other.writing {
				writing++
				tokens += other.tokens
			}
		}
		switch {
		case writing == 0 && first:
			m.part = 1
		case m.writing && tokens == 0:
			m.part = 1 / float64(writing)
		case m.writing:
			m.part = float64(m.tokens) / float64(tokens)
		}
	}
}
