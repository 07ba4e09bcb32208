package plan

import (
	"slices"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
)

// lengths is how long answers were, by who asked for what. Who has asked too
// little is judged by all who ask the same of that model. A distribution of few
// answers has no tails, and deadlines are about tails: so the prior counts as
// some answers more, the fewer the more there are.
type lengths map[asker]*history

// asker is whose answers are alike: a client's to a model. An empty client is
// all of them.
type asker struct {
	client, model string
	kind          job.Kind
	class         job.Class
	completion    bool
}

const (
	// leastLengths is how many answers tell more of a client than those of all
	// clients do.
	leastLengths = 8
	// mostLengths is how many are remembered of one asker.
	mostLengths = 64
	// priorLengths is how many answers the prior is worth before there are any:
	// one for each stretch between two of its quantiles.
	priorLengths = len(job.Lengths{}) - 1
	// mostAskers bounds of how many; then all are forgotten, which costs a
	// worse prediction for a while.
	mostAskers = 512
)

// history is the latest lengths, in a ring.
type history struct {
	ring    []int32
	next    int
	lengths job.Lengths
}

func newLengths() lengths { return make(lengths) }

func askerOf(j *job.Job) asker {
	return asker{j.Client, name(j), j.Kind, j.Class, j.Completion}
}

// of returns how long the answers to such jobs were, or the zero Lengths if
// too few are known.
func (l lengths) of(j *job.Job) job.Lengths {
	a := askerOf(j)
	if h := l[a]; h != nil && len(h.ring) >= leastLengths {
		return h.lengths
	}
	if h := l[a.anyone()]; h != nil {
		return h.lengths
	}
	return job.Lengths{}
}

// anyone is all who ask the same.
func (a asker) anyone() asker {
	a.client = ""
	return a
}

// learn remembers the length of an answer. One that was cut off at the limit
// which its client had set says nothing of those without.
func (l lengths) learn(j *job.Job, tokens int) {
	if tokens <= 0 || j.Kind == job.Embed || j.MaxTokens > 0 && tokens >= j.MaxTokens {
		return
	}
	if len(l) >= mostAskers {
		clear(l)
	}
	a, prior := askerOf(j), j.PriorLengths()
	l.history(a).add(tokens, prior)
	if a.client != "" {
		l.history(a.anyone()).add(tokens, prior)
	}
}

// history returns that of an asker, who may be new.
func (l lengths) history(a asker) *history {
	h := l[a]
	if h == nil {
		h = new(history)
		l[a] = h
	}
	return h
}

// add remembers one more answer.
func (h *history) add(tokens int, prior job.Lengths) {
	n := int32(min(tokens, 1<<30))
	if len(h.ring) < mostLengths {
		h.ring = append(h.ring, n)
	} else {
		h.ring[h.next] = n
		h.next = (h.next + 1) % mostLengths
	}
	all := append(make([]int32, 0, mostLengths+priorLengths), h.ring...)
	worth := priorLengths * (mostLengths - len(h.ring)) / mostLengths
	for i := range worth {
		at := (2*i + 1) * priorLengths / (2 * worth)
		all = append(all, (prior[at]+prior[at+1])/2)
	}
	h.lengths = job.LengthsOf(all)
}

// Recall takes in answers that were given before there was a plan, the latest
// first.
func (p *Plan) Recall(answers []ledger.Entry) {
	for _, e := range slices.Backward(answers) {
		j := job.Job{Kind: e.Kind, Model: e.Model, Client: e.Client, Completion: e.Completion, MaxTokens: e.MaxTokens}
		j.Class = e.Class
		p.lengths.learn(&j, e.Tokens)
	}
}

// learn takes in what an attempt that answered tells of others like it.
func (p *Plan) learn(j *placed, o Outcome) {
	p.lengths.learn(&j.job, o.Usage.Tokens)
	p.keepPrompt(j)
}
