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
		Args:  cobra.NoArgs,
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
