package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/token"
)

func tokenCommand(a *app) *cobra.Command {
	path, _ := token.DefaultPath() // without a home --file can still name one
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Let other users, other machines and Prometheus in, by tokens",
		Long: `Let those in over TCP whom the daemon does not know: other users of this
machine, such as the one that Prometheus runs as, and other machines, if
server.host in the configuration is an address that they reach. Who shows a
token has its rights:

    generate  run jobs, ask where one would run, list models and backends
    metrics   read /metrics, and nothing else
    control   see what jobs took, change holds and the policy
    admin     pull, create, copy, push and delete models

A token is shown as "Authorization: Bearer TOKEN", or in the header X-Api-Key or
Api-Key; gRPC takes it as metadata. What it asks is counted under its name.
Your own programs need none. The file has only hashes of the tokens, and the
daemon sees at once when it changes.`,
	}
	cmd.PersistentFlags().StringVar(&path, "file", path, "the `FILE` of tokens, which is beside the daemon's configuration")
	file := func() *token.File { return token.Open(path) }
	cmd.AddCommand(createTokenCommand(a, file), listTokensCommand(a, file), revokeTokenCommand(a, file))
	return cmd
}

func createTokenCommand(a *app, file func() *token.File) *cobra.Command {
	rights, expires := []string{string(token.Generate)}, "never"
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token, and print it this once",
		Example: `  joulemux token create phone --expires 30d
  joulemux token create prometheus --right metrics |
    sudo install -m 640 -g prometheus /dev/stdin /etc/prometheus/joulemux.token`,
		Args: cobra.ExactArgs(1),
		RunE: runs(func(_ context.Context, args []string) error {
			now := time.Now()
			t := token.Token{Name: args[0], Created: now.Round(0).Truncate(time.Second)}
			if err := token.CheckName(t.Name); err != nil {
				return failuref(wire.CodeInvalid, "%v", err)
			}
			for _, name := range rights {
				r, err := token.ParseRight(name)
				if err != nil {
					return failuref(wire.CodeInvalid, "--right: %v", err)
				}
				t.Rights = append(t.Rights, r)
			}
			var err error
			if t.Expires, err = parseExpiry(expires, now); err != nil {
				return failuref(wire.CodeInvalid, "--expires: %v", err)
			}
			secret, err := file().Create(t)
			switch {
			case errors.Is(err, token.ErrTaken):
				return failuref(wire.CodeInvalid, "there is a token %q already; revoke it first, or take another name", t.Name)
			case err != nil:
				return err
			case a.json:
				return a.record(tokenRecord{tokenOf(t), secret})
			}
			fmt.Fprintln(a.err, "This is shown only now; the file has its hash. Whoever shows it is let in as", t.Name+".")
			_, err = fmt.Fprintln(a.out, secret)
			return err
		}),
	}
	cmd.Flags().StringSliceVar(&rights, "right", rights, "a `RIGHT` that it has: generate, metrics, control or admin; may be there several times")
	cmd.Flags().StringVar(&expires, "expires", expires, "the `TIME` for which it is good, as in 30d or 12h, or never")
	_ = cmd.RegisterFlagCompletionFunc("right", // It fails only for a flag that is not there.
		cobra.FixedCompletions([]string{"generate", "metrics", "control", "admin"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func listTokensCommand(a *app, file func() *token.File) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the tokens, with what they permit and when they end",
		Args:  cobra.NoArgs,
		RunE: runs(func(context.Context, []string) error {
			all, err := file().All()
			if err != nil {
				return err
			}
			if a.json {
				list := make([]tokenView, len(all))
				for i, t := range all {
					list[i] = tokenOf(t)
				}
				return a.record(map[string]any{"tokens": list})
			}
			if len(all) == 0 {
				_, err := fmt.Fprintln(a.out, "no tokens")
				return err
			}
			lines := newTable(a.out)
			lines.row("NAME", "RIGHTS", "CREATED", "EXPIRES")
			for _, t := range all {
				lines.row(t.Name, strings.Join(names(t.Rights), ","), t.Created.Local().Format(time.DateOnly), expiry(t, time.Now()))
			}
			return lines.flush()
		}),
	}
}

func revokeTokenCommand(a *app, file func() *token.File) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME",
		Short: "Have a token refused from now on",
		Args:  cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) (list []string, _ cobra.ShellCompDirective) {
			all, _ := file().All() // without them there is nothing to offer
			for _, t := range all {
				list = append(list, t.Name)
			}
			return list, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: runs(func(_ context.Context, args []string) error {
			err := file().Revoke(args[0])
			switch {
			case errors.Is(err, token.ErrNone):
				return failuref(wire.CodeInvalid, "there is no token %q", args[0])
			case err != nil:
				return err
			case a.json:
				return a.record(map[string]string{"revoked": args[0]})
			}
			return nil
		}),
	}
}

// tokenView is what is told of a token in JSON, and tokenRecord that of one which
// has just been made.
type (
	tokenView struct {
		Name    string    `json:"name"`
		Rights  []string  `json:"rights"`
		Created time.Time `json:"created"`
		Expires time.Time `json:"expires,omitzero"`
		Expired bool      `json:"expired,omitempty"`
	}
	tokenRecord struct {
		tokenView
		Token string `json:"token"`
	}
)

func tokenOf(t token.Token) tokenView {
	return tokenView{t.Name, names(t.Rights), t.Created, t.Expires, t.Expired(time.Now())}
}

func names(rights []token.Right) []string {
	list := make([]string, len(rights))
	for i, r := range rights {
		list[i] = string(r)
	}
	return list
}

// expiry says for people when a token ends.
func expiry(t token.Token, now time.Time) string {
	switch {
	case t.Expires.IsZero():
		return "never"
	case t.Expired(now):
		return "expired"
	default:
		return t.Expires.Local().Format("2006-01-02 15:04")
	}
}

// longestExpiry is in days. What should be good for longer never ends.
const longestExpiry = 3650

// parseExpiry returns when a token ends that is good for a time such as 30d or
// 12h; the zero time is never.
func parseExpiry(text string, now time.Time) (time.Time, error) {
	if text == "never" {
		return time.Time{}, nil
	}
	var d time.Duration
	days, isDays := strings.CutSuffix(text, "d")
	n, err := strconv.Atoi(days)
	switch {
	case isDays && err == nil && n <= longestExpiry:
		d = time.Duration(n) * 24 * time.Hour
	case !isDays:
		d, _ = time.ParseDuration(text)
	}
	if d <= 0 || d > longestExpiry*24*time.Hour {
		return time.Time{}, fmt.Errorf("want a time of up to %dd, as in 30d or 12h, or never, got %q", longestExpiry, text)
	}
	return now.Add(d).Round(0).Truncate(time.Second), nil
}
