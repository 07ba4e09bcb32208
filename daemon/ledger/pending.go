package ledger

import (
	"slices"

	"github.com/joulemux/joulemux/power"
)

// What may wait to be written while the file cannot be. Beyond it the oldest
// entries are known by their sums alone, and the rarest sums go to a common
// account.
const (
	maxEntries  = 1000
	maxTails    = 1000
	maxAccounts = 1000
)

// other stands for the backends, models and clients of an account in common.
const other = "other"

// pending is what was recorded and is not in the file yet.
type pending struct {
	entries []Entry // the oldest first
	sums    map[account]Sum
	paid    map[purse]Payment
	tails   map[string]power.Energy // of jobs that are in the file already
	// dropped counts the entries that are only in the sums.
	dropped int
}

func newPending() *pending {
	return &pending{sums: map[account]Sum{}, paid: map[purse]Payment{}, tails: map[string]power.Energy{}}
}

func (p *pending) empty() bool { return len(p.sums) == 0 && len(p.tails) == 0 }

// record takes an entry, which is normal.
func (p *pending) record(e Entry) {
	if len(p.entries) >= maxEntries {
		p.entries = slices.Delete(p.entries, 0, 1)
		p.dropped++
	}
	p.entries = append(p.entries, e)
	p.add(accountOf(e), sumOf(e))
	if e.Price.Currency != "" {
		p.pay(purseOf(e), paymentOf(e))
	}
}

func (p *pending) pay(a purse, more Payment) {
	if _, known := p.paid[a]; !known && len(p.paid) >= maxAccounts {
		a = purse{day: a.day, backend: other, model: other, client: other, currency: a.currency}
	}
	p.paid[a] = p.paid[a].plus(more)
}

func (p *pending) add(a account, s Sum) {
	if _, known := p.sums[a]; !known && len(p.sums) >= maxAccounts {
		a = account{day: a.day, backend: other, model: other, client: other, quality: a.quality}
	}
	p.sums[a] = p.sums[a].Plus(s)
}

// tail notes the tail of a job's energy.
func (p *pending) tail(id string, tail power.Energy) {
	tail = clamp(tail, maxEnergy)
	if i := p.find(id); i >= 0 {
		e := &p.entries[i]
		if e.Cost.Known() {
			p.add(accountOf(*e), Sum{Tail: tail - e.Cost.Tail})
			e.Cost.Tail = tail
		}
		return
	}
	if _, known := p.tails[id]; known || len(p.tails) < maxTails {
		p.tails[id] = tail
	}
}

// find returns the index of the latest entry of a job, or -1.
func (p *pending) find(id string) int {
	for i, e := range slices.Backward(p.entries) {
		if e.ID == id {
			return i
		}
	}
	return -1
}
