package plan

import "github.com/joulemux/joulemux/daemon/job"

// lengths is how long answers were, by who asked for what. Who has asked too
// little is judged by the others who ask of the same model.
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
	// leastLengths is how many answers tell more than a prior.
	leastLengths = 8
	// mostLengths is how many are remembered of one asker.
	mostLengths = 64
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
	for _, a := range []asker{a, {model: a.model, kind: a.kind, class: a.class, completion: a.completion}} {
		if h := l[a]; h != nil && len(h.ring) >= leastLengths {
			return h.lengths
		}
	}
	return job.Lengths{}
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
	a := askerOf(j)
	l.add(a, tokens)
	if a.client != "" {
		a.client = ""
		l.add(a, tokens)
	}
}

func (l lengths) add(a asker, tokens int) {
	h := l[a]
	if h == nil {
		h = new(history)
		l[a] = h
	}
	n := int32(min(tokens, 1<<30))
	if len(h.ring) < mostLengths {
		h.ring = append(h.ring, n)
	} else {
		h.ring[h.next] = n
		h.next = (h.next + 1) % mostLengths
	}
	h.lengths = job.LengthsOf(append([]int32(nil), h.ring...))
}

// learn takes in what an attempt that answered tells of others like it.
func (p *Plan) learn(j *placed, o Outcome) {
	p.lengths.learn(&j.job, o.Usage.Tokens)
	p.keepPrompt(j)
}
