package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

func cacheCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Show which answers are kept to be given again",
		Long: `Show which answers are kept to be given again: those that are the same every
time (embeddings, and text with a temperature of 0 or a seed), and others that
were asked for with --cache. They are in memory alone, and go when their model
changes. What is configured is as in

    cache: {size_mib: 8, share: false, idle_seconds: 3600}`,
		Args: cobra.NoArgs,
		RunE: runs(func(ctx context.Context, _ []string) error { return a.cache(ctx, http.MethodGet) }),
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "clear",
		Short: "Forget them",
		Args:  cobra.NoArgs,
		RunE:  runs(func(ctx context.Context, _ []string) error { return a.cache(ctx, http.MethodDelete) }),
	})
	return cmd
}

// cache shows what is kept, or forgets it and says how much that was.
func (a *app) cache(ctx context.Context, method string) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	var c wire.Cache
	if err := a.client().call(ctx, method, "cache", nil, &c); err != nil {
		return err
	}
	if a.json {
		return a.record(c)
	}
	if method == http.MethodDelete {
		_, err := fmt.Fprintf(a.out, "forgotten: %s, %s\n", counted(c.Entries, "answer"), kibibytes(c.Bytes))
		return err
	}
	t := newTable(a.out)
	t.row("kept", fmt.Sprintf("%s, %s of %s", counted(c.Entries, "answer"), kibibytes(c.Bytes), kibibytes(c.MaxBytes)))
	t.row("shared", map[bool]string{false: "no, each client has its own", true: "by all clients"}[c.Shared])
	t.row("given", fmt.Sprintf("%d again, %d at the same time, %d had to be made", c.Hits, c.Joined, c.Misses))
	t.row("gone", fmt.Sprintf("%d to make room, %d that nobody asked for", c.Evictions, c.Expiries))
	return t.flush()
}

// kibibytes says how much memory something takes.
func kibibytes(n int) string { return fmt.Sprintf("%.0f KiB", float64(n)/1024) }
