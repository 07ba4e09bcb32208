package dispatch

import (
	"context"
	"reflect"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/daemon/quota"
	"github.com/joulemux/joulemux/power"
)

// enter admits a job, unless the dispatcher has been stopped, or the client has
// had its share.
func (d *Dispatcher) enter(ctx context.Context, r *run, cancel context.CancelCauseFunc) error {
	for {
		entered, err := d.tryToEnter(r, cancel)
		if entered || err != nil {
			return err
		}
		if err := d.lookUpSpent(ctx, r.job.Client); err != nil {
			return &job.Error{Code: job.Cancelled, Detail: "the client is gone", Err: err}
		}
	}
}

// tryToEnter does so if what the client has spent is known, as far as it matters.
func (d *Dispatcher) tryToEnter(r *run, cancel context.CancelCauseFunc) (entered bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	switch {
	case d.stopped:
		return false, job.Errorf(job.Stopping, "")
	case d.quota.MustKnow(now, r.job.Client):
		return false, nil
	}
	if r.account, err = d.quota.Admit(now, r.job.Client); err != nil {
		return false, err
	}
	d.running[r] = cancel
	return true, nil
}

// lookUpSpent has the quota know what clients have spent today. It reads a file,
// for which only those wait whose energy is limited.
func (d *Dispatcher) lookUpSpent(ctx context.Context, client string) error {
	d.lookup.Lock()
	defer d.lookup.Unlock()
	now := time.Now()
	if !d.expectSpent(now, client) {
		return nil // another has looked meanwhile
	}
	totals, err := d.Ledger.Totals(ctx, now, now.Add(1), ledger.ByClient)
	if err != nil {
		return err
	}
	spent := make(map[string]power.Energy, len(totals))
	for _, t := range totals {
		known := t.Measured.Plus(t.Derived).Plus(t.Estimated)
		spent[t.Key] = known.Energy + known.Tail
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.quota.Know(now, spent)
	return nil
}

// expectSpent begins to look up what was spent, if that is not known.
func (d *Dispatcher) expectSpent(now time.Time, client string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.quota.MustKnow(now, client) {
		return false
	}
	d.quota.Expect()
	return true
}

// ration replaces what clients may have.
func (d *Dispatcher) ration(r quota.Rules) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !reflect.DeepEqual(d.quota.Rules(), r) { // else all would have to be looked up again
		d.quota.Configure(r)
	}
}

// Spent counts what a client's attempts have taken, and what their devices took
// after them, which is known only later. The ledger is to be told first: it may be
// looked up there.
func (d *Dispatcher) Spent(client string, e power.Energy) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.quota.Spent(time.Now(), client, e)
}

func (d *Dispatcher) leave(r *run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.running, r)
	d.quota.End(r.account)
}
