package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

func statusCommand(a *app) *cobra.Command {
	follow := false
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the tier, the backends, and where work would go now",
		Long: `Show the tier, the backends, and where work would go now. With --follow, show
a line for each change until Ctrl-C, or until the daemon ends.

With --json it serves status bars. For waybar:

    "custom/joulemux": {
        "exec": "joulemux status --follow --json",
        "return-type": "json",
        "restart-interval": 30
    }

It needs no interval: it writes when something changes, and sleeps until then.
The class and alt are the tier, for style sheets and format-icons; percentage
is the charge. Text and tooltip are escaped, as waybar needs them.`,
		Args: cobra.NoArgs,
		RunE: runs(func(ctx context.Context, _ []string) error {
			ctx, stop := interruptible(ctx)
			defer stop()
			if follow {
				return a.follow(ctx)
			}
			return a.status(ctx)
		}),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "show each change, a line each")
	return cmd
}

func (a *app) status(ctx context.Context) error {
	var s wire.Status
	if err := a.client().call(ctx, http.MethodGet, "status", nil, &s); err != nil {
		return err
	}
	if a.json {
		return a.record(barOf(s))
	}
	return writeStatus(a.out, s)
}

func (a *app) follow(ctx context.Context) error {
	changes, err := a.client().lines(ctx, http.MethodGet, "status?watch", nil)
	if err != nil {
		return err
	}
	defer changes.close()
	shown := ""
	for {
		var s wire.Status
		if _, err := changes.next(&s); err != nil {
			return ended(ctx, err)
		}
		if err := a.change(s, &shown); err != nil {
			return err
		}
	}
}

// ended is the failure for a daemon that watches nothing any more.
func ended(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return failuref(codeUnreachable, "the daemon has ended")
	default:
		return failuref(codeUnreachable, "the daemon is lost: %v", err)
	}
}

// change shows a new status. What changes nothing that people are shown is
// left out for them.
func (a *app) change(s wire.Status, shown *string) error {
	if a.json {
		return a.record(barOf(s))
	}
	text := summary(s)
	if text == *shown {
		return nil
	}
	*shown = text
	_, err := fmt.Fprintln(a.out, time.Now().Format(time.TimeOnly)+"  "+text)
	return err
}

// bar is a status with what status bars show.
type bar struct {
	wire.Status
	Text       string `json:"text"`
	Alt        string `json:"alt"`
	Class      string `json:"class"`
	Tooltip    string `json:"tooltip"`
	Percentage int    `json:"percentage"`
}

func barOf(s wire.Status) bar {
	return bar{
		Status: s,
		Text:   html.EscapeString(strings.Join(glance(s), " · ")),
		Alt:    s.Tier, Class: s.Tier,
		Tooltip:    html.EscapeString(strings.Join(details(s), "\n")),
		Percentage: int(s.Supply.ChargePercent + 0.5),
	}
}

// glance is what fits into a status bar, as "igpu", "6.4 W" and "62 %".
func glance(s wire.Status) []string {
	parts := []string{"no backend"}
	if s.ActiveBackend != "" {
		parts[0] = plain(hardware(s))
	}
	if s.DrawWatts != nil {
		parts = append(parts, fmt.Sprintf("%.1f W", *s.DrawWatts))
	}
	if s.Supply.Battery {
		parts = append(parts, fmt.Sprintf("%.0f %%", s.Supply.ChargePercent))
	}
	return parts
}

// hardware is that of the active backend, or its id.
func hardware(s wire.Status) string {
	for _, b := range s.Backends {
		if b.ID == s.ActiveBackend && b.Hardware != "" {
			return b.Hardware
		}
	}
	return s.ActiveBackend
}
