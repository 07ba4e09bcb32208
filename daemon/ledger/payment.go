package ledger

import "slices"

// Payment is what remote servers charged for jobs, in one currency.
type Payment struct {
	Currency string
	// Jobs is how many there were, and of Unknown of them nobody knows the price.
	Jobs, Unknown int64
	Nano          int64 // in billionths of the currency's unit
}

// Amount returns the amount in the currency's unit.
func (p Payment) Amount() float64 { return float64(p.Nano) / 1e9 }

func (p Payment) plus(q Payment) Payment {
	return Payment{Currency: q.Currency, Jobs: p.Jobs + q.Jobs, Unknown: p.Unknown + q.Unknown, Nano: p.Nano + q.Nano}
}

// Together returns payments with more of them: in another currency, one more.
func Together(all []Payment, more ...Payment) []Payment {
	all = slices.Clone(all)
	for _, p := range more {
		at := slices.IndexFunc(all, func(q Payment) bool { return q.Currency == p.Currency })
		if at < 0 {
			all = append(all, p)
		} else {
			all[at] = all[at].plus(p)
		}
	}
	return all
}

// purse is what a payment is kept for.
type purse struct{ day, backend, model, client, currency string }

// purseOf returns the purse that e, which is normal, is paid from.
func purseOf(e Entry) purse {
	return purse{day(e.Ended), e.Backend, e.Model, e.Client, e.Price.Currency}
}

// key returns what the purse has in common with others of its group.
func (p purse) key(by Grouping) string {
	return account{day: p.day, backend: p.backend, model: p.model, client: p.client}.key(by)
}

// paymentOf returns what e adds to its purse.
func paymentOf(e Entry) Payment {
	p := Payment{Currency: e.Price.Currency, Jobs: 1, Nano: e.Price.Nano}
	if e.Price.Unknown {
		p.Unknown = 1
	}
	return p
}
