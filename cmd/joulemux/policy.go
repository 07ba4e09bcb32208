package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

func policyCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "policy [auto | saver | balanced | performance]",
		Short: "Show or choose how careful to be, for good",
		Long: `Show how careful the machine is to be with energy, or choose it for good:

    auto         as the tier says
    balanced     never freer than the tier battery
    saver        never freer than the tier saver
    performance  as on line power, unless the battery is critical

Choosing ends all holds.`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.FixedCompletions(
			[]string{"auto", "saver", "balanced", "performance"}, cobra.ShellCompDirectiveNoFileComp),
		RunE: runs(func(ctx context.Context, args []string) error {
			ctx, stop := interruptible(ctx)
			defer stop()
			var p wire.Policy
			method, body := http.MethodGet, any(nil)
			if len(args) == 1 {
				method, body = http.MethodPut, wire.Policy{Policy: args[0]}
			}
			if err := a.client().call(ctx, method, "policy", body, &p); err != nil {
				return err
			}
			if a.json {
				return a.record(p)
			}
			_, err := fmt.Fprintln(a.out, plain(p.Policy))
			return err
		}),
	}
}
