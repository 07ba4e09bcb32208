package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/power"
)

func pipelineCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pipeline",
		Short: "Run several jobs for one request",
		Long: `Run a pipeline: several jobs for one request, as a YAML file says. Each stage
runs where its target and its limits let it; what one answers can decide which
comes next, and a larger model can be asked where a small one is unsure.

A pipeline is a file NAME.yaml in ~/.config/joulemux/pipelines, or one that came
with joulemux. It is read when it is asked for:

    description: Tells questions from texts, and answers or summarises.
    vars: {language: English}       # with defaults; --var changes them, ~ has none
    max_power_watts: 60             # of every job; --max-power can be less, not more
    deadline_ms: 120000             # of the whole run
    stages:
      - id: sort
        target: npu                 # a backend or a device class; else any
        tiers: [mains, battery]     # on other tiers it is skipped
        prompt: "Question or text? One word. {{clip 2000 .Input}}"
        max_tokens: 4
        next:                       # the first that holds; else the stage below
          - {when: {contains: question}, to: answer}
          - {to: summary}
      - id: answer
        prompt: "Answer in {{.Vars.language}}: {{.Input}}"
        escalate:                   # another model, if in doubt of the answer
          model: qwen2.5:7b
          confidence_below: 0.7     # where the server tells probabilities;
          check: {min_words: 3}     # where not, what has to hold
        next: end
      - id: summary
        prompt: "Summarise: {{.Input}} {{with .Stages.sort}}It is a {{.}}.{{end}}"

A stage takes model, target, class, preference, latency_critical,
prefer_power_efficiency, cache_enabled, max_latency_ms, deadline_ms,
max_power_watts, max_tokens, temperature, top_p, top_k, context_length, stop,
system, think, and format: json or a JSON schema, whose members are
{{.Fields.ID.NAME}}. An escalation takes model, target, tiers, max_tokens,
max_power_watts, max_latency_ms, latency_critical and prefer_power_efficiency.

Templates have .Input, .Vars.NAME, .Stages.ID and .Fields.ID.NAME, if, with, and,
or, not, eq, ne, lt, le, gt, ge, len, lower, trim, and clip N. Conditions have
equals, one_of, contains, matches, above, below, min_words, max_words, json and
not, and stage or field if they are about another answer or a member of one.

Confidence is the geometric mean of the probabilities of the answer's tokens.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(pipelineRunCommand(a), pipelineListCommand(a), pipelineCheckCommand(a), pipelineShowCommand(a))
	return cmd
}

// annotationFlags are those options that can be said of all jobs of a run.
var annotationFlags = []string{
	"model", "target", "class", "background", "latency-critical", "power-efficient", "preference", "max-latency", "max-power", "deadline",
}

func pipelineRunCommand(a *app) *cobra.Command {
	asked, vars, quiet := options{}, assignments{}, false
	var q wire.RunPipeline
	cmd := &cobra.Command{
		Use:   "run NAME|FILE [INPUT | -]",
		Short: "Run a pipeline",
		Long: `Run a pipeline: one of those that list shows, or, if there is a slash in it or
it ends in .yaml, the one in a file. The input is the other arguments, joined by
spaces, or else standard input. The answer of the last stage goes to standard
output, and to standard error a line for each stage: where it ran, what it took,
and why there. What is said of jobs here goes before what the pipeline says.`,
		Example: `  git diff --staged | joulemux pipeline run commit-message
  joulemux pipeline run --var language=German triage < letter.txt`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: first(offer(a, "pipelines", pipelineNames), cobra.ShellCompDirectiveDefault), // or a file
		RunE: runs(func(ctx context.Context, args []string) error {
			q.Pipeline = args[0]
			if err := a.fromFile(&q); err != nil {
				return err
			}
			var err error
			if q.Input, err = a.pipelineInput(args[1:], quiet); err != nil {
				return err
			}
			q.Options, q.Vars = asked, vars
			ctx, stop := interruptible(ctx)
			defer stop()
			return a.runPipeline(ctx, q, quiet)
		}),
	}
	asked.flagsOf(cmd, annotationFlags)
	cmd.Flags().Var(vars, "var", "a variable's value, as in language=German; may be given again")
	cmd.Flags().BoolVar(&q.Stream, "stream", false, "write the answers as they come: the last one's to standard output")
	cmd.Flags().BoolVar(&q.PreserveContext, "preserve-context", false, "tell each stage what those before were asked and answered")
	cmd.Flags().BoolVar(&q.ContinueOnError, "continue-on-error", false, "go on after a stage that fails")
	quietFlag(cmd, &quiet)
	return cmd
}

// pipelineInput returns what a pipeline is to work on. There need not be any.
func (a *app) pipelineInput(args []string, quiet bool) (string, error) {
	if len(args) == 0 && a.inTerminal && !quiet {
		fmt.Fprintln(a.err, "joulemux: reading the input from the terminal; Ctrl-D on a line of its own ends it")
		return a.prompt(nil, true)
	}
	return a.prompt(args, quiet)
}

// fromFile reads the pipeline from a file, if it is named by one.
func (a *app) fromFile(q *wire.RunPipeline) error {
	if !strings.ContainsRune(q.Pipeline, '/') && !strings.HasSuffix(q.Pipeline, ".yaml") {
		return nil
	}
	text, err := readPipeline(q.Pipeline)
	q.Pipeline, q.Text = strings.TrimSuffix(filepath.Base(q.Pipeline), ".yaml"), text
	return err
}

func readPipeline(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", failuref(wire.CodeInvalid, "%v", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1<<20)) // the daemon's own limit is lower
	if err != nil {
		return "", failuref(wire.CodeInvalid, "%v", err)
	}
	return valid(string(text))
}

// assignments are variables with their values, as a flag.
type assignments map[string]string

// Set is called for each time that the flag is given.
func (v assignments) Set(text string) error {
	name, value, ok := strings.Cut(text, "=")
	switch {
	case !ok || name == "":
		return errors.New("want NAME=VALUE")
	case !utf8.ValidString(text):
		return errors.New("not valid UTF-8")
	}
	v[name] = value
	return nil
}

// Type is what the help calls the flag's value.
func (assignments) Type() string { return "NAME=VALUE" }

// String is the default, for the help; there is none.
func (assignments) String() string { return "" }

// runPipeline has a pipeline run and shows what comes of it.
func (a *app) runPipeline(ctx context.Context, q wire.RunPipeline, quiet bool) error {
	shown := &progress{app: a, quiet: quiet}
	return stream(ctx, a, "pipelines/run", q, shown.event, func(e wire.PipelineEvent) (end bool, failed *wire.Error) {
		return e.End != nil, e.Error
	})
}

// progress shows a run as it goes.
type progress struct {
	*app
	quiet bool
	last  string          // the stage that none follows, once it is known
	said  strings.Builder // what the stage at work has said so far
}

// event shows an event to a person. Pieces of an answer go to standard output only
// if it is the last.
func (p *progress) event(e wire.PipelineEvent) error {
	switch {
	case p.json:
	case e.Routed != nil:
		if e.Last {
			p.last = e.Stage
		}
	case e.Text != "":
		p.said.WriteString(e.Text)
		if e.Stage == p.last {
			_, err := io.WriteString(p.out, e.Text)
			return err
		}
		if !p.quiet {
			fmt.Fprint(p.err, e.Text)
		}
	case e.Done != nil:
		p.done(e.Stage, e.Done)
	case e.End != nil:
		return p.end(e.End)
	}
	return nil
}

// done shows what a stage came to, on a line of its own.
func (p *progress) done(stage string, d *wire.StageDone) {
	if text := p.said.String(); text != "" && !strings.HasSuffix(text, "\n") {
		if stage == p.last {
			fmt.Fprintln(p.out)
		} else if !p.quiet {
			fmt.Fprintln(p.err)
		}
	}
	if text := p.said.String(); stage != p.last || text == "" || d.Error != nil {
		p.last = "" // nothing of the output is told yet
	}
	p.said.Reset()
	if p.quiet {
		return
	}
	for _, line := range staged(stage, d) {
		fmt.Fprintln(p.err, line)
	}
}

// end shows what a run came to, with its output unless that came in pieces.
func (p *progress) end(e *wire.PipelineEnd) error {
	if !p.quiet {
		fmt.Fprintln(p.err, pipelineTook(e))
	}
	if p.last == e.Stage {
		return nil
	}
	_, err := fmt.Fprintln(p.out, e.Output)
	return err
}

// staged says what a stage came to, as in "sort: ollama-npu (npu): 3 tokens, 0.8 s,
// 2.40 J estimated; named as target", and what became of its escalation.
func staged(id string, d *wire.StageDone) []string {
	switch {
	case d.Skipped != "":
		return []string{plain(id + ": skipped, " + d.Skipped)}
	case d.Error != nil:
		return []string{plain(id + ": " + d.Error.Text)}
	}
	list := []string{plain(fmt.Sprintf("%s: %s (%s): %d tokens, %.1f s, %s; %s", id, d.Backend, d.Hardware,
		d.Tokens, float64(d.TotalMs)/1000, spentOn(d.EnergyQuality, d.EnergyJoules), d.Reason))}
	if d.Escalation != "" {
		which := "the first answer stands: "
		if d.Escalated {
			which = "the answer is " + d.Model + "'s: "
		}
		list = append(list, plain(id+": "+which+d.Escalation))
	}
	return list
}

// pipelineTook says what a run came to, as in "2 jobs, 41 tokens, 3.1 s, 12.4 J estimated".
func pipelineTook(e *wire.PipelineEnd) string {
	return plain(fmt.Sprintf("%s: %s, %d tokens, %.1f s, %s", e.Pipeline, counted(e.Jobs, "job"), e.Tokens, float64(e.TotalMs)/1000, spentOn(e.EnergyQuality, e.EnergyJoules)))
}

func spentOn(quality string, joules *float64) string {
	c := power.Cost{Quality: power.Quality(quality)}
	if joules != nil {
		c.Energy = power.Joules(*joules)
	}
	return c.String()
}

func pipelineListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the pipelines that there are",
		Args:  cobra.NoArgs,
		RunE: runs(func(ctx context.Context, _ []string) error {
			var list wire.Pipelines
			if err := a.client().call(ctx, http.MethodGet, "pipelines", nil, &list); err != nil {
				return err
			}
			if a.json {
				return a.record(list)
			}
			if len(list.Pipelines) == 0 {
				_, err := fmt.Fprintln(a.out, "no pipelines")
				return err
			}
			t := newTable(a.out)
			for _, p := range list.Pipelines {
				about := p.Description
				if n := len(p.Faults); n > 0 {
					about = fmt.Sprintf("has %s: joulemux pipeline check %s", counted(n, "fault"), p.Path)
				}
				t.row(p.Name, about)
			}
			return t.flush()
		}),
	}
}

func pipelineCheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "check FILE...",
		Short:             "Say what is wrong with pipelines, by line; run nothing",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: cobra.FixedCompletions([]string{"yaml"}, cobra.ShellCompDirectiveFilterFileExt),
		RunE: runs(func(ctx context.Context, files []string) error {
			wrong := 0
			for _, file := range files {
				text, err := readPipeline(file)
				if err != nil {
					return err
				}
				var p wire.Pipeline
				if err := a.client().call(ctx, http.MethodPost, "pipelines/check", wire.CheckPipeline{Name: strings.TrimSuffix(filepath.Base(file), ".yaml"), Text: text}, &p); err != nil {
					return err
				}
				p.Path = file
				wrong += len(p.Faults)
				if err := a.showChecked(p); err != nil {
					return err
				}
			}
			if wrong > 0 {
				return failuref(wire.CodeInvalid, "%s", counted(wrong, "fault"))
			}
			return nil
		}),
	}
}

// showChecked shows what is wrong with a pipeline, as compilers do.
func (a *app) showChecked(p wire.Pipeline) error {
	if a.json {
		return a.record(p)
	}
	for _, f := range p.Faults {
		where := p.Path
		if f.Line > 0 {
			where += fmt.Sprintf(":%d", f.Line)
		}
		if f.Key != "" {
			where += ": " + f.Key
		}
		if _, err := fmt.Fprintln(a.out, plain(where+": "+f.Text)); err != nil {
			return err
		}
	}
	if len(p.Faults) > 0 {
		return nil
	}
	_, err := fmt.Fprintln(a.out, p.Path, "is in order")
	return err
}

func pipelineShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a pipeline's text, to make another of",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: first(offer(a, "pipelines", pipelineNames), cobra.ShellCompDirectiveNoFileComp),
		RunE: runs(func(ctx context.Context, args []string) error {
			var p wire.Pipeline
			if err := a.client().call(ctx, http.MethodGet, "pipelines/"+url.PathEscape(args[0]), nil, &p); err != nil {
				return err
			}
			if a.json {
				return a.record(p)
			}
			fmt.Fprintln(a.err, p.Path)
			_, err := io.WriteString(a.out, p.Text)
			return err
		}),
	}
}

// flagsOf gives cmd the flags of some options.
func (o options) flagsOf(cmd *cobra.Command, names []string) {
	all := &cobra.Command{}
	o.flags(all)
	for _, name := range names {
		cmd.Flags().AddFlag(all.Flags().Lookup(name))
	}
}
