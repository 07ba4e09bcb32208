package job

import "hash/maphash"

// Prompt is a fingerprint of what a model has to read: one sum for each
// stretch of promptStretch bytes, of everything up to its end. Two prompts that
// begin alike have sums that begin alike. No text can be had back from it, and
// the sums of one daemon mean nothing to another.
type Prompt []uint64

// promptStretch is how finely prompts are compared: 256 tokens or so. Longer
// ones than promptMost are told apart no further.
const (
	promptStretch = 1 << 10
	promptMost    = 256 << 10
)

// LeastFingerprint is how much text has a fingerprint, in bytes.
const LeastFingerprint = promptStretch

// seed makes sums of this process unlike those of any other.
var seed = maphash.MakeSeed()

// PromptOf returns the fingerprint of texts that are read one after the other.
func PromptOf(texts ...string) (p Prompt) {
	var h maphash.Hash
	h.SetSeed(seed)
	n := 0
	for _, text := range texts {
		if text == "" {
			continue // some wires have a text for what others leave out
		}
		for len(text) > 0 && n < promptMost {
			piece := text[:min(len(text), promptStretch-n%promptStretch)]
			_, _ = h.WriteString(piece) // never fails
			n += len(piece)
			text = text[len(piece):]
			if n%promptStretch == 0 {
				p = append(p, h.Sum64())
			}
		}
		_ = h.WriteByte(0xff) // where a text ends is a difference, too; in UTF-8 there is no such byte
	}
	return p
}

// Shared returns how many bytes two prompts begin with alike, at the least.
func (p Prompt) Shared(other Prompt) int {
	n := 0
	for n < min(len(p), len(other)) && p[n] == other[n] {
		n++
	}
	return n * promptStretch
}

// Fingerprint returns that of everything that the model has to read of c.
func (c Content) Fingerprint() Prompt {
	if c.Bytes() < promptStretch {
		return nil
	}
	texts := make([]string, 0, 2+2*len(c.Messages))
	if c.System != "" {
		texts = append(texts, c.System)
	}
	for _, m := range c.Messages {
		texts = append(texts, m.Role, m.Content)
	}
	return PromptOf(append(texts, c.Prompt)...)
}
