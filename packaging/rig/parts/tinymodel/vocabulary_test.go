package main

import "testing"

func TestEveryPieceIsInTheVocabularyOnce(t *testing.T) {
	seen := make(map[string]bool)
	for _, piece := range newVocabulary().pieces {
		if seen[piece] {
			t.Errorf("%q is there twice", piece)
		}
		seen[piece] = true
	}
}

func TestTheGrammarIsComplete(t *testing.T) {
	for before, following := range next {
		var sum float64
		for _, p := range following {
			sum += p
		}
		if sum < 0.999 || sum > 1.001 {
			t.Errorf("after role %d the probabilities sum to %v, not 1", before, sum)
		}
	}
}
