package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// explainedTiers are those that --all-tiers asks about.
var explainedTiers = []string{"mains", "battery", "saver", "low", "critical"}

func explainCommand(a *app) *cobra.Command {
	asked, tier, all := options{}, "", false
	cmd := &cobra.Command{
		Use:   "explain [PROMPT | -]",
		Short: "Show where a prompt would go, and why",
		Long: `Show what generate would do with the same prompt and options: where it would
be continued, what that is predicted to take on each backend, and why not on
the others. Nothing is generated.

    ENERGY   what the job takes, in J: LOAD to make the model resident, WORK to
             read the prompt and write the answer, TAIL for what the device
             takes because the model is kept ready afterwards
    J/TOKEN  what a token of the answer takes by itself
    FIRST    until the first token, and ALL until the last: with standing in
             LINE and loading, if there is any
    LATE     how likely the last token is to come after it is due
    COST     what decides, the least first: the energy, the seconds by what the
             tier says they are worth, and the risk to be late
    FIGURES  whether joules were learned from jobs or are assumed

That no backend would take the job is explained too, and no failure: the exit
code is 0. Where there is no backend at all, it is 6, as with generate.`,
		Example: `  joulemux explain "Why is the sky blue?"
  joulemux explain --all-tiers --background --system "Summarize." < report.txt`,
	}
	cmd.RunE = runs(func(ctx context.Context, args []string) error {
		prompt, err := a.prompt(args, false)
		if err != nil {
			return err
		}
		ctx, stop := interruptible(ctx)
		defer stop()
		request := wire.Explain{Prompt: prompt, Options: asked, Tier: tier}
		if all {
			return a.explainTiers(ctx, request)
		}
		return a.explain(ctx, request)
	})
	asked.flags(cmd)
	cmd.Flags().StringVar(&tier, "tier", "", "suppose this `TIER`: mains, battery, saver, low or critical")
	cmd.Flags().BoolVar(&all, "all-tiers", false, "show the choice on each of the tiers")
	cmd.MarkFlagsMutuallyExclusive("tier", "all-tiers")
	_ = cmd.RegisterFlagCompletionFunc("tier", // It fails only for a flag that is not there.
		cobra.FixedCompletions(explainedTiers, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// explain shows what would become of a job.
func (a *app) explain(ctx context.Context, request wire.Explain) error {
	var e wire.Explanation
	if err := a.client().call(ctx, http.MethodPost, "explain", request, &e); err != nil {
		return err
	}
	if a.json {
		return a.record(e)
	}
	return writeExplanation(a.out, e)
}

// explainTiers shows what would become of it on each tier.
func (a *app) explainTiers(ctx context.Context, request wire.Explain) error {
	var all []wire.Explanation
	c := a.client()
	for _, request.Tier = range explainedTiers {
		var e wire.Explanation
		if err := c.call(ctx, http.MethodPost, "explain", request, &e); err != nil {
			return err
		}
		all = append(all, e)
	}
	if !a.json {
		return writeChoices(a.out, all)
	}
	for _, e := range all {
		if err := a.record(e); err != nil {
			return err
		}
	}
	return nil
}
