package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

func backendsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "backends",
		Short: "List the backends",
		Args:  cobra.NoArgs,
		RunE: runs(func(ctx context.Context, _ []string) error {
			ctx, stop := interruptible(ctx)
			defer stop()
			var list wire.Backends
			if err := a.client().call(ctx, http.MethodGet, "backends", nil, &list); err != nil {
				return err
			}
			if a.json {
				return a.record(list)
			}
			return writeBackends(a.out, list.Backends)
		}),
	}
}
