package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

func modelsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "models",
		Short: "List the models of all backends",
		Long: `List the models of all backends, each once, by its weights, whatever backends
call it.

    CONTEXT    how many tokens it can see at most
    LOADED ON  the backends that have it in memory, and until when they keep it
               if nobody asks for it
    FITS       the backends whose device's memory has room for it and a fifth
               more; "not" those where it has not. NVIDIA's GPUs are not asked,
               since that wakes them

What nobody tells is "-".`,
		Args: cobra.NoArgs,
		RunE: runs(func(ctx context.Context, _ []string) error {
			ctx, stop := interruptible(ctx)
			defer stop()
			var list wire.Models
			if err := a.client().call(ctx, http.MethodGet, "models", nil, &list); err != nil {
				return err
			}
			if a.json {
				return a.record(list)
			}
			return writeModels(a.out, list.Models)
		}),
	}
}
