package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

func pullCommand(a *app) *cobra.Command {
	var order wire.PullOrder
	cmd := &cobra.Command{
		Use:   "pull MODEL",
		Short: "Have a backend fetch a model",
		Long: `Have a backend fetch a model: the one where a job for it would go, or that which
--backend names. A pull that is under way already is joined.

On battery, and where the network connection is metered, nothing is fetched
unless --anyway is given, or models.pull in the configuration says so. A pull
pauses when the machine goes on battery, goes on with line power, and is tried
again after a cut. What has come is kept.

The pull ends with the last who waits for it: Ctrl-C ends it, unless another
program wants the model, too. Asked again, it goes on where it was.`,
		Example: `  joulemux pull qwen2.5:0.5b`,
		Args:    cobra.ExactArgs(1),
		RunE: runs(func(ctx context.Context, args []string) error {
			ctx, stop := interruptible(ctx)
			defer stop()
			order.Model = args[0]
			return a.pull(ctx, order)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&order.Backend, "backend", "", "the `ID` or device class of the backend that is to fetch it")
	flags.BoolVar(&order.Anyway, "anyway", false, "on battery and by a metered connection, too")
	flags.BoolVar(&order.Insecure, "insecure", false, "from a registry without TLS, too")
	return cmd
}

// pull has a model fetched, and shows how that gets on.
func (a *app) pull(ctx context.Context, order wire.PullOrder) error {
	shown := &fetchProgress{app: a}
	err := stream(ctx, a, "pull", order, func(e wire.Event) error {
		switch {
		case a.json:
		case e.Pull != nil:
			shown.show(*e.Pull)
		case e.End != nil:
			shown.end()
			end := fields(e.End)
			_, err := fmt.Fprintf(a.out, "%s is on %s now%s\n", end.text("model"), end.text("backend"), ofSize(end.number("bytes")))
			return err
		}
		return nil
	}, overEvent)
	shown.end()
	return err
}

func ofSize(bytes float64) string {
	if bytes <= 0 {
		return ""
	}
	return ", " + size(int64(bytes))
}

// fetchProgress shows how a model gets on that is fetched: in one line of a terminal,
// or elsewhere in a line for each tenth of it, and for what is out of the
// ordinary.
type fetchProgress struct {
	*app
	open bool   // The terminal's line has no end yet.
	last string // What was said last, but for its figures.
	told bool   // That nobody knows what the network costs.
}

func (p *fetchProgress) show(now wire.Pull) {
	if now.Network == "unknown" && !p.told {
		p.told = true
		p.end()
		fmt.Fprintln(p.err, "nobody tells whether the network is metered (there is no NetworkManager, or it does not know)")
	}
	text := plain(pulling(now))
	if s, terminal := p.err.(screen); terminal {
		// To the line's beginning, and what is left of an older one away.
		_, _ = io.WriteString(s.Writer, "\r"+text+"\x1b[K")
		p.open = true
		return
	}
	key := now.State + now.Note
	if now.TotalBytes > 0 && now.State == "pulling" {
		key += fmt.Sprint(now.CompletedBytes * 10 / now.TotalBytes)
	}
	if key != p.last {
		p.last = key
		fmt.Fprintln(p.err, text)
	}
}

// end ends the terminal's line.
func (p *fetchProgress) end() {
	if p.open {
		p.open = false
		fmt.Fprintln(p.err)
	}
}

// pulling says in a line how a model gets on.
func pulling(p wire.Pull) string {
	parts := []string{p.Model + " on " + p.Backend + ": " + p.State}
	if p.TotalBytes > 0 {
		parts[0] += fmt.Sprintf(" %d %%", p.CompletedBytes*100/p.TotalBytes)
		parts = append(parts, size(p.CompletedBytes)+" of "+size(p.TotalBytes))
	}
	if p.BytesPerSecond > 0 {
		parts = append(parts, size(int64(p.BytesPerSecond))+"/s")
		if p.SecondsLeft > 0 {
			parts = append(parts, (time.Duration(p.SecondsLeft+1)*time.Second).String()+" left")
		}
	}
	switch {
	case p.Note != "":
		parts = append(parts, p.Note)
	case p.TotalBytes == 0 && p.Status != "":
		parts = append(parts, p.Status)
	}
	return strings.Join(parts, ", ")
}
