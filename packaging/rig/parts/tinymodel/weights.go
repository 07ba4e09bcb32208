package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"

	"github.com/ollama/ollama/fs/ggml"
)

// The shape of the model.
const (
	blocks      = 2
	width       = 64 // of the embedding
	heads       = 4
	feedForward = 128
	contextSize = 8192
)

// The first dimensions of the embedding are spoken for: a constant, then one
// for each role. No block writes to them, so the last layer can rely on them.
const (
	constant = 0
	reserved = 1 + int(roles)
)

const (
	signal = 4.0  // what a token's embedding holds in its constant and its role
	never  = -20. // the logit of a token that must not come now
	whim   = 0.15 // how much the rest of the embedding sways the choice of a word, but for the full stop
)

func metadata(v *vocabulary) ggml.KV {
	return ggml.KV{
		"general.architecture": "llama",
		"general.name":         "tiny",

		"llama.block_count":                      uint32(blocks),
		"llama.context_length":                   uint32(contextSize),
		"llama.embedding_length":                 uint32(width),
		"llama.feed_forward_length":              uint32(feedForward),
		"llama.attention.head_count":             uint32(heads),
		"llama.attention.head_count_kv":          uint32(heads),
		"llama.attention.layer_norm_rms_epsilon": float32(1e-5),
		"llama.rope.dimension_count":             uint32(width / heads),
		"llama.vocab_size":                       uint32(len(v.pieces)),

		"tokenizer.ggml.model":            "llama",
		"tokenizer.ggml.tokens":           v.pieces,
		"tokenizer.ggml.token_type":       v.types,
		"tokenizer.ggml.scores":           v.scores,
		"tokenizer.ggml.bos_token_id":     beginToken,
		"tokenizer.ggml.eos_token_id":     endToken,
		"tokenizer.ggml.unknown_token_id": unknownToken,
		"tokenizer.ggml.add_bos_token":    true,
	}
}

func tensors(v *vocabulary) []*ggml.Tensor {
	random := rand.New(rand.NewPCG(1, 2))
	list := []*ggml.Tensor{
		embedding(v, random).tensor("token_embd"),
		ones().tensor("output_norm"),
		output(v, random).tensor("output"),
	}
	for b := range blocks {
		name := func(part string) string { return fmt.Sprintf("blk.%d.%s", b, part) }
		list = append(list,
			ones().tensor(name("attn_norm")),
			noise(random, width, width).tensor(name("attn_q")),
			noise(random, width, width).tensor(name("attn_k")),
			noise(random, width, width).tensor(name("attn_v")),
			noise(random, width, width).spare().tensor(name("attn_output")),
			ones().tensor(name("ffn_norm")),
			noise(random, width, feedForward).tensor(name("ffn_gate")),
			noise(random, width, feedForward).tensor(name("ffn_up")),
			noise(random, feedForward, width).spare().tensor(name("ffn_down")),
		)
	}
	return list
}

// embedding says of each token which role it plays, and adds noise to tell it
// from the others.
func embedding(v *vocabulary, random *rand.Rand) *matrix {
	m := newMatrix(width, len(v.pieces))
	for token, r := range v.roles {
		row := m.row(token)
		row[constant] = signal
		row[1+int(r)] = signal
		for i := reserved; i < width; i++ {
			row[i] = float32(random.NormFloat64())
		}
	}
	return m
}

// output scores each token by the grammar, given the role of the one before it.
func output(v *vocabulary, random *rand.Rand) *matrix {
	m := newMatrix(width, len(v.pieces))
	sizes := v.sizes()
	for token, r := range v.roles {
		row := m.row(token)
		if r == none {
			row[constant] = never
			continue
		}
		for before := range next {
			row[1+before] = logit(next[before][r]/float64(sizes[r])) / signal
		}
		for i := reserved; i < width && r != stop; i++ {
			row[i] = float32(whim * random.NormFloat64())
		}
	}
	return m
}

// logit is the score of a token that should come with probability p.
func logit(p float64) float32 {
	return float32(max(never, math.Log(p)))
}

// A matrix has one row for each of its outputs.
type matrix struct {
	in, out int
	values  []float32
}

func newMatrix(in, out int) *matrix {
	return &matrix{in: in, out: out, values: make([]float32, in*out)}
}

// noise is a random matrix that keeps the length of a vector, more or less.
func noise(random *rand.Rand, in, out int) *matrix {
	m := newMatrix(in, out)
	for i := range m.values {
		m.values[i] = float32(random.NormFloat64() / math.Sqrt(float64(in)))
	}
	return m
}

// ones is the scale of a norm that changes nothing.
func ones() *matrix {
	m := newMatrix(width, 1)
	for i := range m.values {
		m.values[i] = 1
	}
	return m
}

func (m *matrix) row(out int) []float32 {
	return m.values[out*m.in : (out+1)*m.in]
}

// spare leaves the reserved dimensions of the output alone.
func (m *matrix) spare() *matrix {
	clear(m.values[:reserved*m.in])
	return m
}

func (m *matrix) tensor(name string) *ggml.Tensor {
	shape := []uint64{uint64(m.in), uint64(m.out)}
	if m.out == 1 {
		shape = shape[:1]
	}
	return &ggml.Tensor{Name: name + ".weight", Shape: shape, WriterTo: m}
}

// WriteTo writes the values as GGUF has them: little-endian, row by row.
func (m *matrix) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, m.values); err != nil {
		return 0, err
	}
	return b.WriteTo(w)
}
