package pull

import (
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// State is how far a pull is.
type State string

// The states. Of the last two nothing follows.
const (
	Starting State = "starting"
	Pulling  State = "pulling"
	Paused   State = "paused"   // the rules do not let it go on
	Retrying State = "retrying" // after a cut
	Done     State = "done"
	Failed   State = "failed"
)

// Step is what a backend says of its work: in words, and of one part of the
// model with that digest, if it is at one, how many bytes are there.
type Step struct {
	Status, Digest   string
	Total, Completed int64
}

// Progress is how a pull is getting on.
type Progress struct {
	Order
	State State
	// Note says why it is paused, or what broke.
	Note string
	// Network is that by which the model comes.
	Network Network
	// Step is the latest.
	Step Step
	// Completed and Total are in bytes, of all parts that the backend has told
	// of by now: it tells of them one by one, mostly the largest first.
	Completed, Total int64
	// Rate is in bytes per second, over the last seconds, and Left what it will
	// take at that; zero is not known.
	Rate float64
	Left time.Duration
	// Err says why it has failed.
	Err *job.Error
}

// Ended reports whether nothing follows.
func (p Progress) Ended() bool { return p.State == Done || p.State == Failed }

// Percent is how much is there, 0 to 100, or 0 if nobody knows of how much.
func (p Progress) Percent() float64 {
	if p.Total <= 0 {
		return 0
	}
	return 100 * float64(p.Completed) / float64(p.Total)
}

// tally adds up what a backend tells of the parts of a model.
type tally struct {
	parts map[string]Step // by digest
	// seen are the parts of which was heard in this attempt: what is there when
	// one is heard of first was there before.
	seen map[string]bool
	// fetched is how many bytes came in this attempt, and samples when.
	fetched int64
	samples []sample
}

type sample struct {
	at      time.Time
	fetched int64
}

// window is the time over which a rate is taken, and often how often one is.
const (
	window = 5 * time.Second
	often  = 250 * time.Millisecond
)

// attempt begins another attempt.
func (t *tally) attempt() {
	if t.parts == nil {
		t.parts = make(map[string]Step)
	}
	t.seen, t.fetched, t.samples = make(map[string]bool), 0, nil
}

// mostParts is far more than any model has.
const mostParts = 10_000

// add takes in a step. A backend may find that less is there than it had said.
func (t *tally) add(now time.Time, s Step) {
	if s.Digest == "" || s.Total < 0 || s.Completed < 0 || len(t.parts) >= mostParts {
		return
	}
	s.Completed = min(s.Completed, s.Total)
	if t.seen[s.Digest] {
		t.fetched += max(0, s.Completed-t.parts[s.Digest].Completed)
	}
	t.parts[s.Digest], t.seen[s.Digest] = s, true
	t.sample(now)
}

// sample keeps what is needed for a rate over the window.
func (t *tally) sample(now time.Time) {
	if n := len(t.samples); n > 0 && now.Sub(t.samples[n-1].at) < often {
		return
	}
	t.samples = append(t.samples, sample{now, t.fetched})
	for len(t.samples) > 2 && now.Sub(t.samples[0].at) > window {
		t.samples = t.samples[1:]
	}
}

// into fills in the figures.
func (t *tally) into(p *Progress) {
	p.Completed, p.Total, p.Rate, p.Left = 0, 0, 0, 0
	for _, s := range t.parts {
		p.Completed += s.Completed
		p.Total += s.Total
	}
	if n := len(t.samples); n > 1 {
		first, last := t.samples[0], t.samples[n-1]
		p.Rate = float64(last.fetched-first.fetched) / last.at.Sub(first.at).Seconds()
	}
	if left := float64(p.Total - p.Completed); p.Rate > 0 {
		p.Left = time.Duration(min(left/p.Rate, mostLeft) * float64(time.Second))
	}
}

// mostLeft is in seconds, and keeps a rate of next to nothing from overflowing.
const mostLeft = 30 * 24 * 3600
