package residency

import "time"

// edges divide gaps into bins, in seconds. They are finest around the
// break-even of usual devices, and some are where tiers have their bounds.
var edges = [...]float64{
	1, 2, 3, 4, 5, 7, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120,
	150, 200, 250, 300, 400, 600, 900, 1200, 1800, 3600,
}

// bins are those between the edges, and the one of all longer gaps.
const bins = len(edges) + 1

// memory is how many gaps count: each weighs so much less when the next comes,
// since people's habits change.
const memory = 50

// Gaps are the times between the end of a job and the begin of the next for
// the same model on the same backend, as far as they are known: a histogram in
// which older ones weigh less. The zero Gaps knows of none.
type Gaps struct {
	count   int32
	weights [bins]float32
}

// With returns the gaps with one more.
func (g Gaps) With(gap time.Duration) Gaps {
	for i := range g.weights {
		g.weights[i] *= 1 - 1.0/memory
	}
	bin := 0
	for bin < len(edges) && edges[bin] < gap.Seconds() {
		bin++
	}
	g.weights[bin]++
	if g.count < 1<<30 {
		g.count++
	}
	return g
}

// Count returns how many gaps were added.
func (g *Gaps) Count() int { return int(g.count) }

// Longer returns which part of the gaps is longer than d. As long as none is
// known, all are.
func (g *Gaps) Longer(d time.Duration) float64 {
	c := g.curve()
	longer, _ := c.at(d.Seconds())
	return longer
}

// Until returns how much of the next d passes on average until the next job
// begins.
func (g *Gaps) Until(d time.Duration) time.Duration {
	c := g.curve()
	_, until := c.at(d.Seconds())
	return min(d, seconds(until))
}

// curve has for time zero, and then for each edge, which part of the gaps is
// longer, and how much of the time before it passes on average until the next
// job begins. Within a bin gaps are taken to be spread evenly.
type curve struct{ longer, until [bins]float64 }

func (g *Gaps) curve() (c curve) {
	total := 0.0
	for _, w := range g.weights {
		total += float64(w)
	}
	c.longer[0] = 1
	left, from := total, 0.0
	for i, to := range edges {
		left -= float64(g.weights[i])
		c.longer[i+1] = 1
		if total > 0 {
			c.longer[i+1] = max(0, left/total)
		}
		// The mean of what passes is the integral of what is longer.
		c.until[i+1] = c.until[i] + (to-from)*(c.longer[i]+c.longer[i+1])/2
		from = to
	}
	return c
}

// at returns both figures for a time in seconds.
func (c *curve) at(t float64) (longer, until float64) {
	i, from := 0, 0.0
	for i < len(edges) && edges[i] <= t {
		from = edges[i]
		i++
	}
	t = max(0, t-from)
	longer = c.longer[i]
	if i < len(edges) {
		longer += (c.longer[i+1] - c.longer[i]) * t / (edges[i] - from)
	}
	return longer, c.until[i] + t*(c.longer[i]+longer)/2
}
