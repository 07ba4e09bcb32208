package job

import (
	"math"
	"strconv"
)

// Price is what a remote server charges for a million tokens, read and written.
// The zero value is not known, or nothing.
type Price struct {
	Input, Output float64
	Currency      string // "" without a price
}

// Money is an amount in a currency. Amounts in different ones are never added up.
type Money struct {
	Nano     int64 // in billionths of the currency's unit
	Currency string
	// Unknown tells that more was charged, or may have been, than Nano.
	Unknown bool
}

// Of returns what is charged for a job that took so many tokens. Where a server
// did not say how many, nobody knows what it will charge.
func (p Price) Of(u Usage) Money {
	if p.Currency == "" {
		return Money{}
	}
	m := Money{Currency: p.Currency}
	if p.Input == 0 && p.Output == 0 {
		return m
	}
	if u.PromptTokens == 0 && u.Tokens == 0 {
		m.Unknown = true
		return m
	}
	// A unit for a million is a thousand billionths for each.
	m.Nano = int64(math.Round(1000 * (p.Input*float64(u.PromptTokens) + p.Output*float64(u.Tokens))))
	return m
}

// Amount returns the amount in the currency's unit.
func (m Money) Amount() float64 { return float64(m.Nano) / 1e9 }

// String formats the amount, as in "0.00027 EUR".
func (m Money) String() string {
	return strconv.FormatFloat(m.Amount(), 'f', -1, 64) + " " + m.Currency
}
