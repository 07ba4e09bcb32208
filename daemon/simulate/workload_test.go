package simulate_test

import (
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/simulate"
)

func TestSizesAreThoseOfTheTables(t *testing.T) {
	w := simulate.DefaultWorkload()
	w.Length = 2000 * time.Hour
	prompts, answers := make(map[simulate.Class][]int32), make(map[simulate.Class][]int32)
	all := 0
	for _, r := range simulate.Generate(1, w).Requests {
		prompts[r.Class] = append(prompts[r.Class], int32(r.Prompt))
		answers[r.Class] = append(answers[r.Class], int32(r.Output))
		all++
	}
	conversation, code := job.Lengths{2, 181, 207, 372, 387, 396, 403, 414, 703, 984, 1020, 1045, 1071, 1097, 1130, 1189, 1315, 1876, 2734, 4083, 4096},
		job.Lengths{3, 75, 147, 232, 386, 578, 770, 938, 1075, 1261, 1469, 1690, 1909, 2164, 2433, 2745, 3192, 3919, 4096, 4096, 4096}
	for class, want := range map[simulate.Class]struct {
		share           float64
		prompt, answers job.Lengths
	}{
		simulate.Interactive: {0.45, conversation, job.Job{}.PriorLengths()},
		simulate.Completion:  {0.30, code, job.Job{Completion: true}.PriorLengths()},
		simulate.Background:  {0.25, conversation, job.Job{}.PriorLengths()},
	} {
		if share := float64(len(answers[class])) / float64(all); math.Abs(share-want.share) > 0.01 {
			t.Errorf("%.3f are %s, want %.2f", share, class, want.share)
		}
		alike(t, class, "prompts", job.LengthsOf(prompts[class]), want.prompt)
		alike(t, class, "answers", job.LengthsOf(answers[class]), want.answers)
	}
}

// alike checks that a sample's quantiles are where those of the table have them.
func alike(t *testing.T, class simulate.Class, what string, got, want job.Lengths) {
	t.Helper()
	for i := range got[:20] { // the longest of a sample is anywhere
		near := math.Abs(float64(got[i]-want[i])) < 0.01*float64(want[i])
		if share := want.Share(float64(got[i])); math.Abs(share-float64(i)/20) > 0.03 && !near {
			t.Errorf("%s, %s: %d %% are at most %d, where the table has %.1f %%", class, what, 5*i, got[i], 100*share)
		}
	}
}

func TestArrivals(t *testing.T) {
	w := simulate.DefaultWorkload()
	w.Length = 2000 * time.Hour
	requests := simulate.Generate(2, w).Requests
	if !slices.IsSortedFunc(requests, func(a, b simulate.Request) int { return int(a.At - b.At) }) {
		t.Error("requests are not in order of time")
	}
	// A session every 14 minutes, of 1 + 1/(e^(1/2.5) - 1) requests.
	want := 2000 * 60 / 14 * (1 + 1/(math.Exp(1/2.5)-1))
	if n := float64(len(requests)); math.Abs(n/want-1) > 0.03 {
		t.Errorf("%v requests, want %.0f", n, want)
	}
}

func TestRequestsAreTheSameWhateverTheLine(t *testing.T) {
	w := simulate.DefaultWorkload()
	never := simulate.Generate(5, w)
	w.Line = simulate.FlipsLine
	flips := simulate.Generate(5, w)
	asleep := func(r simulate.Request) bool {
		return r.At >= flips.Suspend && r.At < flips.Suspend+flips.SuspendedFor
	}
	if want := slices.DeleteFunc(never.Requests, asleep); !slices.Equal(flips.Requests, want) {
		t.Error("requests differ by more than those that would have come in the sleep")
	}
	if flips.SuspendedFor == 0 || len(flips.Line) == 0 || never.SuspendedFor != 0 || len(never.Line) != 0 {
		t.Errorf("sleeps %v and %v, flips %d and %d", never.SuspendedFor, flips.SuspendedFor, len(never.Line), len(flips.Line))
	}
	for i, s := range flips.Line {
		if before := i == 0 && flips.StartsOnLine || i > 0 && flips.Line[i-1].On; s.On == before {
			t.Errorf("switch %d changes nothing", i)
		}
	}
	if again := simulate.Generate(5, w); !reflect.DeepEqual(again, flips) {
		t.Error("the same seed makes another trace")
	}
}
