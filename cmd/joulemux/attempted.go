package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/power"
)

// writeEnergyOfJob writes everything about each attempt at a job.
func writeEnergyOfJob(w io.Writer, j wire.EnergyJob) error {
	for i, a := range j.Attempts {
		t := newTable(w)
		name := a.ID
		if len(j.Attempts) > 1 {
			name += fmt.Sprintf(", attempt %d of %d at %s", i+1, len(j.Attempts), j.ID)
		}
		t.row("job", name)
		describeAttempt(t, a)
		describeCost(t, a)
		describeElsewhere(t, a)
		if err := t.flush(); err != nil {
			return err
		}
		if i+1 < len(j.Attempts) {
			fmt.Fprintln(w)
		}
	}
	return nil
}

// describeAttempt says where and when it was, and how it went.
func describeAttempt(t table, a wire.EnergyAttempt) {
	outcome := "answered"
	if a.Failed != "" {
		outcome = "failed: " + a.Failed
	}
	supply := "line power"
	if a.OnBattery {
		supply = "battery"
	}
	t.row("outcome", outcome+", at "+a.Ended.Local().Format(time.DateTime))
	t.row("where", fmt.Sprintf("%s (%s), %s", a.Backend, a.Hardware, a.Model))
	t.row("for", fmt.Sprintf("%s, %s, tier %s, on %s", cmp.Or(a.Client, "a client without a name"), a.Class, a.Tier, supply))
	t.row("tokens", fmt.Sprintf("%d, after a prompt of %d", a.Tokens, a.PromptTokens))
	times := []string{seconds(a.TotalMs) + " in all"}
	for _, part := range []struct {
		ms   int64
		what string
	}{{a.FirstTokenMs, "to the first token"}, {a.LoadMs, "loading"}, {a.PrefillMs, "reading the prompt"}, {a.DecodeMs, "writing"}} {
		if part.ms > 0 {
			times = append(times, seconds(part.ms)+" "+part.what)
		}
	}
	t.row("time", strings.Join(times, ", "))
}

func seconds(ms int64) string { return fmt.Sprintf("%.2f s", float64(ms)/1000) }

// describeCost says what it took, and how that is known.
func describeCost(t table, a wire.EnergyAttempt) {
	if a.Joules == nil {
		t.row("energy", cmp.Or(a.Quality, "unknown"))
		return
	}
	energy := power.Joules(*a.Joules).String() + " " + a.Quality
	if a.Uncertainty > 0 {
		energy += fmt.Sprintf(" ± %.0f %%", 100*a.Uncertainty)
	}
	if a.JoulesPerToken != nil {
		energy += fmt.Sprintf(", %s J/token", fixed(*a.JoulesPerToken, decimals(*a.JoulesPerToken, 2)))
	}
	if a.Wh != nil {
		energy += fmt.Sprintf(", %s Wh", fixed(*a.Wh, decimals(*a.Wh, 1)))
	}
	t.row("energy", energy)
	if a.Scope != "" {
		t.row("load", amount(a.LoadJoules, "of it"))
		t.row("tail", amount(a.TailJoules, "more after the last token"))
		t.row("gross", amount(a.GrossJoules, "with its share of the idle draw"))
		t.row("scope", a.Scope)
	}
	t.row("source", a.Source)
	if a.Coverage != nil {
		t.row("coverage", fmt.Sprintf("%.0f %% of the time", 100**a.Coverage))
	}
	if a.SharedJobs > 1 {
		t.row("shared", fmt.Sprintf("between %d jobs at most", a.SharedJobs))
	}
}

// describeElsewhere says what is to be said of an attempt that ran elsewhere.
func describeElsewhere(t table, a wire.EnergyAttempt) {
	if a.RadioJoules > 0 {
		t.row("radio", power.Joules(a.RadioJoules).String()+" estimated, of the network meanwhile")
	}
	switch {
	case a.Cost != nil:
		t.row("cost", money(*a.Cost, a.CostCurrency))
	case a.CostCurrency != "":
		t.row("cost", "unknown: the server did not tell how many tokens there were")
	}
}

// money is an amount with its currency.
func money(amount float64, currency string) string {
	return strings.TrimSpace(strconv.FormatFloat(amount, 'f', -1, 64) + " " + plain(currency))
}

// amount is an energy that may be told only later.
func amount(joules *float64, what string) string {
	if joules == nil {
		return "pending"
	}
	return power.Joules(*joules).String() + " " + what
}
