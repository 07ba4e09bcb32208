package ledger

import (
	"fmt"
	"testing"

	"github.com/joulemux/joulemux/power"
)

// sumOfAll returns what all accounts come to.
func (p *pending) sumOfAll() (all Sum) {
	for _, s := range p.sums {
		all = all.Plus(s)
	}
	return all
}

func TestWhatWaitsIsBoundedAndNothingOfItsSumIsLost(t *testing.T) {
	p := newPending()
	const jobs = 3 * maxEntries
	for i := range jobs {
		id := fmt.Sprint(i)
		p.record(but(func(e *Entry) { e.ID, e.Client = id, id }))
		p.tail(id, power.Joule)
		p.tail("written "+id, power.Joule)
	}
	if len(p.entries) != maxEntries || p.dropped != jobs-maxEntries {
		t.Errorf("%d entries wait, %d were dropped", len(p.entries), p.dropped)
	}
	if got := p.entries[0].ID; got != fmt.Sprint(jobs-maxEntries) {
		t.Errorf("the oldest that waits is %s", got)
	}
	if len(p.sums) > maxAccounts+1 || len(p.tails) != maxTails {
		t.Errorf("%d accounts and %d tails wait", len(p.sums), len(p.tails))
	}
	if got, one := p.sumOfAll(), sumOf(answer()); got.Jobs != jobs || got.Energy != jobs*one.Energy || got.Tail != jobs*power.Joule {
		t.Errorf("their sum is %+v", got)
	}
}

func TestATailGoesToTheLatestEntryOfAJob(t *testing.T) {
	p := newPending()
	p.record(answer())
	p.record(but(func(e *Entry) { e.Backend = "ollama-cpu" }))
	p.tail("a", power.Joule)
	if p.entries[0].Cost.Tail != 0 || p.entries[1].Cost.Tail != power.Joule {
		t.Errorf("tails are %v and %v", p.entries[0].Cost.Tail, p.entries[1].Cost.Tail)
	}
}

func TestATailIsWithinItsBounds(t *testing.T) {
	p := newPending()
	p.record(answer())
	p.tail("a", -5)
	p.tail("b", 1<<62)
	if p.entries[0].Cost.Tail != 0 || p.tails["b"] != maxEnergy {
		t.Errorf("tails are %v and %v", p.entries[0].Cost.Tail, p.tails["b"])
	}
}
