package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// pair is what joulemuxd does, and what is done without it. Each returns how long
// it took.
type pair struct {
	what       string
	ours, bare func(context.Context) (time.Duration, error)
	count      int     // of each in a round
	target     float64 // of the difference, in microseconds
	each       int     // how many pieces share it
}

// compare measures by how much the half of all that are quickest takes longer with
// joulemuxd. The two take turns, so that what the machine does besides falls on
// both; the first round warms them up.
func (p pair) compare(ctx context.Context, rounds int) (row, error) {
	fmt.Fprintf(os.Stderr, "%s: %d rounds of %d\n", p.what, rounds, p.count)
	var ofOurs, ofBare, more []float64
	for round := range rounds + 1 {
		var took [2][]float64
		for range p.count {
			for i, do := range []func(context.Context) (time.Duration, error){p.ours, p.bare} {
				d, err := do(ctx)
				if err != nil {
					return row{}, err
				}
				took[i] = append(took[i], micros(d)/float64(p.each))
			}
		}
		if round > 0 {
			ours, bare := median(took[0]), median(took[1])
			ofOurs, ofBare, more = append(ofOurs, ours), append(ofBare, bare), append(more, ours-bare)
		}
	}
	return row{
		what: p.what, joulemux: fmt.Sprintf("%.1f us", median(ofOurs)), baseline: fmt.Sprintf("%.1f us", median(ofBare)),
		value: median(more), target: p.target, unit: " us",
	}, nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// timed returns how long a question takes to be answered.
func (q question) timed(p proxy) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		start := time.Now()
		err := q.ask(ctx, p.client, p.url)
		return time.Since(start), err
	}
}
