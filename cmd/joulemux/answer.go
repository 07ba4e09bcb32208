package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/power"
)

// answer has a job done and shows what comes of it. It returns the text, or as
// much of it as there is.
func (a *app) answer(ctx context.Context, path string, request any, quiet bool) (string, error) {
	shown := &transcript{app: a, quiet: quiet, pull: fetchProgress{app: a}}
	err := stream(ctx, a, path, request, shown.event, overEvent)
	if a.onTerminal && !a.json {
		shown.endLine() // An answer that broke off, for what comes next to be readable.
	}
	return shown.text.String(), err
}

// transcript shows an answer as it comes.
type transcript struct {
	*app
	quiet  bool
	routed bool
	text   strings.Builder
	ended  bool // The text's last line is.
	pull   fetchProgress
}

// event shows an event to a person.
func (t *transcript) event(e wire.Event) error {
	t.text.WriteString(e.Text)
	if t.json {
		return nil
	}
	if e.Pull == nil {
		t.pull.end()
	}
	switch {
	case e.Text != "":
		_, err := io.WriteString(t.out, e.Text)
		return err
	case e.Routed != nil && !t.quiet:
		again := ""
		if t.routed {
			again = "that failed, now "
		}
		t.routed = true
		fmt.Fprintln(t.err, again+routing(e.Routed))
	case e.Pull != nil && !t.quiet:
		t.pull.show(*e.Pull)
	case e.End != nil && !t.quiet:
		if t.onTerminal {
			t.endLine()
		}
		for _, line := range took(e.End) {
			fmt.Fprintln(t.err, line)
		}
	}
	return nil
}

// endLine ends the last line of the text, if the model did not.
func (t *transcript) endLine() {
	text := t.text.String()
	if text != "" && !strings.HasSuffix(text, "\n") && !t.ended {
		fmt.Fprintln(t.out)
	}
	t.ended = true
}

// fields are members of a decision or a report. Those that are missing, or of
// another kind than we know, are zero.
type fields map[string]any

func (f fields) text(key string) string {
	s, _ := f[key].(string)
	return plain(s)
}

func (f fields) number(key string) float64 {
	n, _ := f[key].(float64)
	return n
}

func (f fields) list(key string) []string {
	var all []string
	list, _ := f[key].([]any)
	for _, e := range list {
		if s, ok := e.(string); ok {
			all = append(all, plain(s))
		}
	}
	return all
}

// routing says where a job goes, as in "tier battery, ollama-igpu (igpu):
// least cost, …".
func routing(decision fields) string {
	return fmt.Sprintf("tier %s, %s (%s): %s", decision.text("tier"),
		decision.text("backend_used"), decision.text("hardware"), decision.text("reason"))
}

// took says what a job took, as in "38 tokens, 21.8 tokens/s, first after
// 0.41 s, 2.2 s in all; 26.1 J measured, 0.687 J/token (package by rapl), 4.20 J
// of it to load".
func took(report fields) []string {
	parts := []string{fmt.Sprintf("%.0f tokens", report.number("tokens_generated"))}
	if rate := report.number("tokens_per_second"); rate > 0 {
		parts = append(parts, fmt.Sprintf("%.1f tokens/s", rate))
	}
	parts = append(parts,
		fmt.Sprintf("first after %.2f s", report.number("time_to_first_token_ms")/1000),
		fmt.Sprintf("%.1f s in all", report.number("total_time_ms")/1000))
	var said []string
	for _, failed := range report.list("failed_attempts") {
		said = append(said, "failed before: "+failed)
	}
	return append(said, strings.Join(parts, ", ")+"; "+tookEnergy(report))
}

// tookEnergy says what energy a job took and how that is known. Of loading it
// says what it cost, which the next job will not have to pay.
func tookEnergy(report fields) string {
	energy := power.Cost{
		Energy: power.Joules(report.number("energy_joules")), Quality: power.Quality(report.text("energy_quality")),
	}
	said := energy.String()
	if radio := power.Joules(report.number("radio_joules")); radio > 0 && !energy.Known() {
		said = fmt.Sprintf("remote: 0 J here, %v of the radio's estimated", radio)
	}
	if currency := report.text("cost_currency"); currency != "" {
		said += ", " + money(report.number("cost"), currency)
	}
	if each := report.number("joules_per_token"); each > 0 && energy.Known() {
		said += fmt.Sprintf(", %s J/token", fixed(each, decimals(each, 2)))
	}
	source, scope := report.text("energy_source"), report.text("energy_scope")
	switch {
	case source != "" && scope != "":
		said += " (" + scope + " by " + source + ")"
	case source != "":
		said += " (" + source + ")"
	}
	if load := power.Joules(report.number("energy_load_joules")); load > 0 {
		said += fmt.Sprintf(", %v of it to load", load)
	}
	return said
}
