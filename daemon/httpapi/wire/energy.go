package wire

import "time"

// Energy is what jobs took on some days, from the ledger.
type Energy struct {
	// From and Until are the first and the last day, as in "2026-03-14", or ""
	// for an end that is open.
	From   string        `json:"from"`
	Until  string        `json:"until"`
	By     string        `json:"by"`
	Totals []EnergyTotal `json:"totals"` // in the order of their keys
	// All is of all of them. Each figure is rounded up by itself, so that this
	// one may be a little less than the others together.
	All EnergyTotal `json:"all"`
	// Tariff is what energy costs the user, if that is configured.
	Tariff *Tariff `json:"tariff,omitempty"`
	// BatteryWh is what this machine's batteries hold when they are full, if
	// that is known.
	BatteryWh *float64 `json:"battery_wh,omitempty"`
	// Trouble is why the ledger cannot use its file. Then costs are kept in
	// memory, and those that are in the file alone are missing here.
	Trouble string `json:"trouble,omitempty"`
}

// Tariff is what energy costs.
type Tariff struct {
	PricePerKWh float64 `json:"price_per_kwh"`
	Currency    string  `json:"currency"` // "" if nobody said
}

// EnergyTotal is what jobs that have something in common took. An attempt that
// failed counts as a job, as does the one that took its place.
//
// Figures of different qualities are not added up: what was measured is not
// made better by what was assumed, nor the other way round.
type EnergyTotal struct {
	Key string `json:"key"` // the day, backend, model or client; "" is not known, or all
	// These are of all jobs, the unknown ones too.
	Jobs         int64 `json:"jobs"`
	Failed       int64 `json:"failed"`
	PromptTokens int64 `json:"prompt_tokens"`
	Tokens       int64 `json:"tokens"`

	Measured  EnergySum `json:"measured"`
	Derived   EnergySum `json:"derived"`
	Estimated EnergySum `json:"estimated"`
	// UnknownJobs took energy that no sensor told, and NoneJobs took none here.
	UnknownJobs int64 `json:"unknown_jobs"`
	NoneJobs    int64 `json:"none_jobs"`
	// RadioJoules is what the network took while jobs ran elsewhere, by assumption.
	RadioJoules float64 `json:"radio_joules,omitempty"`
	// Cost is what the energy costs, the radio's and the tails included, and what
	// remote servers charge: once for each currency, as different ones are not
	// added up.
	Cost []Cost `json:"cost,omitempty"`
}

// Cost is money, in the unit of a currency. Amount is both others together.
type Cost struct {
	Currency     string  `json:"currency"` // "" is that of a tariff of which nobody said
	Amount       float64 `json:"amount"`
	EnergyAmount float64 `json:"energy_amount"`
	RemoteAmount float64 `json:"remote_amount"`
	// RemoteJobs is how many were charged for, and of UnknownJobs of them the server
	// did not say how much there was to charge for: that is not in it.
	RemoteJobs  int64 `json:"remote_jobs,omitempty"`
	UnknownJobs int64 `json:"unknown_jobs,omitempty"`
}

// EnergySum is what jobs of one quality took. Wh is Joules in another unit;
// GrossJoules has the jobs' share of the idle draw too; LoadJoules are a part
// of Joules, and TailJoules are not: they were taken after the last token.
type EnergySum struct {
	Jobs         int64   `json:"jobs"`
	Failed       int64   `json:"failed"`
	PromptTokens int64   `json:"prompt_tokens"`
	Tokens       int64   `json:"tokens"`
	Joules       float64 `json:"joules"`
	GrossJoules  float64 `json:"gross_joules"`
	LoadJoules   float64 `json:"load_joules"`
	TailJoules   float64 `json:"tail_joules"`
	Wh           float64 `json:"wh"`
}

// EnergyJob is what the ledger has of one job.
type EnergyJob struct {
	ID string `json:"id"`
	// Attempts are on one backend each. The last is the one that answered,
	// unless it has failed too.
	Attempts []EnergyAttempt `json:"attempts"`
	Trouble  string          `json:"trouble,omitempty"`
}

// EnergyAttempt is one attempt at a job, and what it took. Times that are zero
// are not known. The members about energy are those that an answer's report
// has, and the tail.
type EnergyAttempt struct {
	ID           string    `json:"id"` // the job's, and from the second on a number behind it
	Arrived      time.Time `json:"arrived"`
	Ended        time.Time `json:"ended"`
	Backend      string    `json:"backend"`
	Hardware     string    `json:"hardware"`
	Model        string    `json:"model"`
	Client       string    `json:"client"`
	Class        string    `json:"class"`
	Tier         string    `json:"tier"`
	OnBattery    bool      `json:"on_battery"`
	PromptTokens int       `json:"prompt_tokens"`
	Tokens       int       `json:"tokens"`
	LoadMs       int64     `json:"load_ms"`
	PrefillMs    int64     `json:"prefill_ms"`
	DecodeMs     int64     `json:"decode_ms"`
	FirstTokenMs int64     `json:"first_token_ms"`
	TotalMs      int64     `json:"total_ms"`
	Failed       string    `json:"failed,omitempty"` // one of the codes

	// Quality is "measured", "derived", "estimated", "unknown" or "none". Of
	// the last two there is nothing else.
	Quality        string   `json:"energy_quality"`
	Joules         *float64 `json:"energy_joules,omitempty"`
	Wh             *float64 `json:"energy_wh,omitempty"`
	JoulesPerToken *float64 `json:"joules_per_token,omitempty"`
	Source         string   `json:"energy_source,omitempty"` // the sensors, or what was assumed
	// The rest is there if a sensor had a part in it.
	Scope       string   `json:"energy_scope,omitempty"` // as in "dgpu+package"
	GrossJoules *float64 `json:"energy_gross_joules,omitempty"`
	LoadJoules  *float64 `json:"energy_load_joules,omitempty"`
	// TailJoules is missing until it is known, some seconds after the end.
	TailJoules  *float64 `json:"energy_tail_joules,omitempty"`
	Uncertainty float64  `json:"energy_uncertainty,omitempty"` // a part of the energy
	Coverage    *float64 `json:"energy_coverage,omitempty"`    // a part of the time
	SharedJobs  int      `json:"energy_shared_jobs,omitempty"` // at most, with this one
	// The following are of an attempt elsewhere: what the network took, by
	// assumption, and what the server charges, if that has a price and is known.
	RadioJoules  float64  `json:"radio_joules,omitempty"`
	Cost         *float64 `json:"cost,omitempty"`
	CostCurrency string   `json:"cost_currency,omitempty"`
}
