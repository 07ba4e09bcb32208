package job

import (
	"math"
	"slices"
)

// Lengths is how long answers are, as a distribution: the numbers of tokens
// that 0, 5, 10 and so on up to 100 % of them do not exceed. Between two of
// them it is linear. The zero Lengths says nothing.
type Lengths [21]int32

// LengthsOf returns the distribution of those lengths, which it puts in order.
// Of none it is the zero Lengths.
func LengthsOf(all []int32) (l Lengths) {
	if len(all) == 0 {
		return l
	}
	slices.Sort(all)
	for i := range l {
		at := float64(i) / float64(len(l)-1) * float64(len(all)-1)
		below := int(at)
		above := min(below+1, len(all)-1)
		l[i] = all[below] + int32(math.Round(float64(all[above]-all[below])*(at-float64(below))))
	}
	return l
}

// Known reports whether l says anything.
func (l Lengths) Known() bool { return l[len(l)-1] > 0 }

// Bounded returns the lengths where answers are cut off at so many tokens;
// zero bounds nothing.
func (l Lengths) Bounded(most int) Lengths {
	if most <= 0 {
		return l
	}
	for i := range l {
		l[i] = min(l[i], int32(min(most, 1<<30)))
	}
	return l
}

// Mean returns the mean length.
func (l Lengths) Mean() float64 {
	sum := float64(l[0]+l[len(l)-1]) / 2
	for _, n := range l[1 : len(l)-1] {
		sum += float64(n)
	}
	return sum / float64(len(l)-1)
}

// Median returns the length that half of the answers do not exceed.
func (l Lengths) Median() int { return int(l[len(l)/2]) }

// Share returns which part of the answers has at most n tokens.
func (l Lengths) Share(n float64) float64 {
	last := len(l) - 1
	switch {
	case n < float64(l[0]):
		return 0
	case n >= float64(l[last]):
		return 1
	}
	above := last
	for float64(l[above-1]) > n {
		above--
	}
	low, high := float64(l[above-1]), float64(l[above])
	return (float64(above-1) + (n-low)/(high-low)) / float64(last)
}

// PriorLengths returns how long answers to jobs like j are until others have
// been learned: as those in the Azure LLM inference trace of 2023 were, to
// conversations and, for completions, to code
// (https://github.com/Azure/AzurePublicDataset).
func (j Job) PriorLengths() Lengths {
	if j.Completion {
		return Lengths{6, 6, 7, 7, 8, 9, 9, 10, 11, 12, 13, 14, 16, 18, 20, 24, 29, 39, 55, 90, 1899}
	}
	return Lengths{7, 41, 54, 67, 77, 85, 91, 96, 103, 113, 129, 151, 177, 217, 384, 395, 400, 411, 424, 451, LongestTokens}
}

// Expected returns how long j's answer is expected to be, within the limit
// that it sets.
func (j Job) Expected() Lengths {
	l := j.Lengths
	if !l.Known() {
		l = j.PriorLengths()
	}
	return l.Bounded(j.MaxTokens)
}
