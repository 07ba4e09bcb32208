package job_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/joulemux/joulemux/daemon/job"
)

func TestLengths(t *testing.T) {
	l := job.LengthsOf([]int32{30, 10, 20})
	if l[0] != 10 || l[10] != 20 || l[20] != 30 || l[5] != 15 {
		t.Errorf("quantiles are %v", l)
	}
	if m := l.Mean(); m != 20 || l.Median() != 20 {
		t.Errorf("the mean is %v, the median %v", m, l.Median())
	}
	for _, c := range []struct{ n, share float64 }{{9, 0}, {10, 0}, {15, 0.25}, {20, 0.5}, {29, 0.95}, {30, 1}, {1e9, 1}} {
		if got := l.Share(c.n); math.Abs(got-c.share) > 0.01 {
			t.Errorf("%v has share %v, want %v", c.n, got, c.share)
		}
	}
	cut := l.Bounded(20)
	if cut.Share(19.9) > 0.5 || cut.Share(20) != 1 || cut.Mean() != 17.5 {
		t.Errorf("cut off at 20: %v, mean %v", cut, cut.Mean())
	}
	if (job.Lengths{}).Known() || !l.Known() || job.LengthsOf(nil).Known() {
		t.Error("who knows?")
	}
}

func TestExpectedLengths(t *testing.T) {
	chat, code := job.Job{}, job.Job{Completion: true}
	// The means of the trace are 211.1 and 27.9; between two quantiles we draw
	// a line, above which the long tail of code stands out.
	if m := chat.Expected().Mean(); math.Abs(m-211) > 10 {
		t.Errorf("a chat's answer is %v", m)
	}
	if m := code.Expected().Mean(); m < 28 || m > 70 {
		t.Errorf("a completion is %v", m)
	}
	limited := job.Job{MaxTokens: 16, Lengths: job.LengthsOf([]int32{8, 24})}
	if m := limited.Expected().Mean(); m < 8 || m > 16 {
		t.Errorf("what is limited to 16 is %v", m)
	}
}

func TestShareIsTheInverseOfQuantiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		all := make([]int32, 1+r.IntN(40))
		for i := range all {
			all[i] = r.Int32N(50)
		}
		l := job.LengthsOf(all)
		if !slices.IsSorted(l[:]) {
			t.Fatalf("%v are not in order", l)
		}
		last := 0.0
		for n := -1.0; n < 52; n += 0.5 {
			share := l.Share(n)
			if share < last || share > 1 {
				t.Fatalf("%v: share of %v is %v after %v", l, n, share, last)
			}
			last = share
		}
		if last != 1 {
			t.Fatalf("%v: nothing is longer than the longest", l)
		}
	}
}
