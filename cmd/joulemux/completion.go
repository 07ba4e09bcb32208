package main

import (
	"context"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// tabPatience is how long a shell may be kept waiting for what fits a word.
const tabPatience = 2 * time.Second

// offerTo has the flags of a command, and of those below it, completed that name
// what the daemon knows.
func (a *app) offerTo(cmd *cobra.Command) {
	for flag, names := range map[string]cobra.CompletionFunc{
		"model": offer(a, "models", modelNames), "target": offer(a, "backends", backendNames), "backend": offer(a, "backends", backendNames),
	} {
		if cmd.Flags().Lookup(flag) != nil {
			_ = cmd.RegisterFlagCompletionFunc(flag, names) // It fails for one that has it from another command.
		}
	}
	for _, c := range cmd.Commands() {
		a.offerTo(c)
	}
}

// offer completes with the names in what the daemon says. Without a daemon there
// is nothing to offer.
func offer[T any](a *app, path string, names func(T) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), tabPatience)
		defer cancel()
		var list T
		_ = a.client().call(ctx, http.MethodGet, path, nil, &list)
		return names(list), cobra.ShellCompDirectiveNoFileComp
	}
}

// first completes the first argument, and none that follows.
func first(names cobra.CompletionFunc, directive cobra.ShellCompDirective) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list, _ := names(cmd, args, begun)
		return list, directive
	}
}

func modelNames(l wire.Models) (names []string) {
	for _, m := range l.Models {
		names = append(names, m.Names...)
	}
	return names
}

// backendNames are their ids and their devices' words.
func backendNames(l wire.Backends) (names []string) {
	for _, b := range l.Backends {
		names = append(names, b.ID, b.Hardware)
	}
	return names
}

func pipelineNames(l wire.Pipelines) (names []string) {
	for _, p := range l.Pipelines {
		names = append(names, p.Name)
	}
	return names
}
