package main

import (
	"context"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

func energyCommand(a *app) *cobra.Command {
	asked := url.Values{}
	by, since := "backend", "30d"
	cmd := &cobra.Command{
		Use:   "energy [JOB-ID]",
		Short: "Show what jobs took, by day, backend, model or client",
		Long: `Show what jobs took: all of them by day, backend, model or client, or one of
them by the id that its answer had.

Energy is what a job added to what the machine draws anyway, from its start to
its last token. It is

    measured   read from a counter of energy
    derived    computed from what was measured: sampled, or divided among jobs
    estimated  the watts of a backend, learned or assumed, times the time it worked

and these are columns of their own. The tail is what the devices took after
the last token. Totals, money and the share of a full battery have all of these
in them, and a "~" before them if a part was estimated. Jobs whose energy
nobody knows are counted below the table.

Of what ran elsewhere there is the radio, which is assumed, and what the server
charges. What energy costs is configured, as in

    energy: {price_per_kwh: 0.32, currency: EUR}

Money is both together. Each currency has a column; different ones are not
added up.`,
		Example: `  joulemux energy --by day --since 7d
  joulemux energy --by client --since 2026-01-02
  joulemux energy 5AIXKE7XHNRGZFMHVTMXG2PFNU`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.RunE = runs(func(ctx context.Context, args []string) error {
		ctx, stop := interruptible(ctx)
		defer stop()
		if len(args) == 1 {
			for _, flag := range []string{"by", "since"} {
				if cmd.Flags().Changed(flag) {
					return failuref(wire.CodeInvalid, "--%s is about many jobs, and %q is one", flag, args[0])
				}
			}
			return a.energyOfJob(ctx, args[0])
		}
		asked.Set("by", by)
		asked.Set("since", since)
		return a.energy(ctx, asked)
	})
	cmd.Flags().StringVar(&by, "by", by, "add up by this `WHAT`: day, backend, model or client")
	cmd.Flags().StringVar(&since, "since", since, "the last `DAYS` as in 7d, today included, or a day as in 2026-01-02, or all")
	_ = cmd.RegisterFlagCompletionFunc("by", // It fails only for a flag that is not there.
		cobra.FixedCompletions([]string{"day", "backend", "model", "client"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// energy shows what jobs took.
func (a *app) energy(ctx context.Context, asked url.Values) error {
	var e wire.Energy
	if err := a.client().call(ctx, http.MethodGet, "energy?"+asked.Encode(), nil, &e); err != nil {
		return err
	}
	if a.json {
		return a.record(e)
	}
	a.warnOf(e.Trouble)
	return writeEnergy(a.out, e)
}

// energyOfJob shows what one job took.
func (a *app) energyOfJob(ctx context.Context, id string) error {
	var j wire.EnergyJob
	if err := a.client().call(ctx, http.MethodGet, "energy/"+url.PathEscape(id), nil, &j); err != nil {
		return err
	}
	if a.json {
		return a.record(j)
	}
	a.warnOf(j.Trouble)
	return writeEnergyOfJob(a.out, j)
}
