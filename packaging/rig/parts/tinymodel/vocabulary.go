package main

import (
	"fmt"
	"strings"
)

// A role is the part that a token plays in a sentence.
type role int

const (
	none role = iota // control, byte and character tokens: in prompts only
	opener
	subjectAdjective
	subject
	verb
	determiner
	objectAdjective
	object
	preposition
	conjunction
	second // the determiner of a second subject
	stop
	roles
)

// next is the grammar: how likely each role follows another. Subjects and
// objects are different words, because the model sees one token back only.
var next = [roles]map[role]float64{
	none:             {opener: 1},
	opener:           {subjectAdjective: .5, subject: .5},
	subjectAdjective: {subject: 1},
	subject:          {verb: 1},
	verb:             {determiner: 1},
	determiner:       {objectAdjective: .4, object: .6},
	objectAdjective:  {object: 1},
	object:           {stop: .5, preposition: .3, conjunction: .2},
	preposition:      {determiner: 1},
	conjunction:      {second: 1},
	second:           {subjectAdjective: .3, subject: .7},
	stop:             {opener: 1},
}

// words are the words that the model speaks.
var words = [roles]string{
	opener:           "The This That Every One Another Our My Your Some Her His",
	subjectAdjective: "young old quiet brave clever gentle patient curious honest sleepy proud shy wise busy happy lonely careful tired polite famous",
	subject: "fox teacher sailor baker painter farmer doctor singer writer driver child king queen " +
		"dog cat horse bird whale owl rabbit bear neighbour stranger friend student captain gardener " +
		"river wind moon sun storm forest mountain city machine robot engine clock train ship cloud",
	verb: "carries finds keeps opens follows draws builds moves remembers watches paints repairs " +
		"brings crosses lifts holds counts measures saves warms reads writes cleans answers hides " +
		"visits knows sees hears wants leaves loves sells buys turns touches",
	determiner:      "the this that my your our their its her his",
	objectAdjective: "small large wooden silver golden red green blue white black warm cold broken new bright heavy soft round hidden forgotten simple quick deep wide",
	object: "lamp window bridge door letter garden table stone road boat basket book map key bell " +
		"tree house kitchen tower market harbour song story picture candle mirror " +
		"coat hat glass bottle bread cake fire field hill village station street school library " +
		"battery kettle piano guitar violin ladder wheel box cup chair pencil paper blanket",
	preposition: "under over near behind beside through without around after before inside across",
	conjunction: "and while because until but so",
	second:      "each every one another some",
}

// Token types of the llama tokenizer, as in llama.cpp's llama.h.
const (
	typeNormal  int32 = 1
	typeUnknown int32 = 2
	typeControl int32 = 3
	typeByte    int32 = 6
)

// Tokens with a fixed place.
const (
	unknownToken uint32 = iota
	beginToken
	endToken
)

// A vocabulary is the list of tokens, as three columns for the tokenizer, and
// the role of each.
type vocabulary struct {
	pieces []string
	types  []int32
	scores []float32
	roles  []role
}

func newVocabulary() *vocabulary {
	v := new(vocabulary)
	v.add("<unk>", typeUnknown, none)
	v.add("<s>", typeControl, none)
	v.add("</s>", typeControl, none)
	for b := range 256 {
		v.add(fmt.Sprintf("<0x%02X>", b), typeByte, none)
	}
	v.addCharacters()
	v.add(".", typeNormal, stop)
	for r, list := range words {
		for word := range strings.FieldsSeq(list) {
			v.add("▁"+word, typeNormal, role(r))
		}
	}
	return v
}

// addCharacters adds what prompts are cut into, so that a letter or a space
// costs one token and not one for each of its bytes.
func (v *vocabulary) addCharacters() {
	v.add("▁", typeNormal, none)
	for c := '!'; c <= '~'; c++ {
		if c != '.' {
			v.add(string(c), typeNormal, none)
		}
	}
}

// add appends a token. A later token has a lower score, as in a vocabulary
// that was learned.
func (v *vocabulary) add(piece string, kind int32, r role) {
	v.scores = append(v.scores, -float32(len(v.pieces)))
	v.pieces = append(v.pieces, piece)
	v.types = append(v.types, kind)
	v.roles = append(v.roles, r)
}

// sizes counts the tokens of each role.
func (v *vocabulary) sizes() (n [roles]int) {
	for _, r := range v.roles {
		n[r]++
	}
	return n
}
