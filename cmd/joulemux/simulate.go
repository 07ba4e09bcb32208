package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/simulate"
)

// simulation is what is asked to be simulated.
type simulation struct {
	seeds, random      int
	hours, charge      float64
	machines, policies []string
	trace, line, plot  string
	sensitivity, show  bool
}

func simulateCommand(a *app) *cobra.Command {
	s := simulation{seeds: 40, hours: 6, charge: 100, machines: simulate.Shipped(), line: string(simulate.NeverOnLine)}
	for _, p := range simulate.Policies() {
		s.policies = append(s.policies, p.Name)
	}
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Compare policies on a simulated machine, in no time",
		Long: `Run requests on a simulated machine, with the daemon's own rules and with
simpler ones, and compare what the devices then take with the least energy that
would have done had everything been known in advance. It needs no daemon.

Requests are drawn, or read from lines of

    time,prompt_tokens,output_tokens,class

with the time in seconds and one of the classes interactive, completion and
background. Machines are ` + strings.Join(simulate.Shipped(), ", ") + `, or your own in a file: --show
writes those of shipped ones to begin with, with the sources of their figures.
Policies are

` + policiesHelp() + `
Columns are the energy over that least one, in the median of all runs and
between which figures eight of ten are; which part of the jobs was late,
refused or lost; which part waited for a better tier, as its rule says; which
part of the energy went into keeping models ready; the seconds to the first
token, of half of the jobs and of nineteen in twenty; the energy beside what
policy ` + simulate.Reference + ` took; and in how many runs the battery ran empty, which ends them.`,
		Example: `  joulemux simulate --machine hybrid --line flips
  joulemux simulate --seeds 10 --sensitivity
  joulemux simulate --machine mine.json --trace day.csv --plot day.svg`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = runs(func(ctx context.Context, _ []string) error {
		ctx, stop := interruptible(ctx)
		defer stop()
		return a.simulate(ctx, s)
	})
	s.flags(cmd)
	return cmd
}

func policiesHelp() string {
	var b strings.Builder
	t := newTable(&b)
	for _, p := range simulate.Policies() {
		t.row(p.Name, p.Says)
	}
	_ = t.flush() // A builder takes everything.
	return "    " + strings.ReplaceAll(strings.TrimSpace(b.String()), "\n", "\n    ") + "\n"
}

func (s *simulation) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVar(&s.seeds, "seeds", s.seeds, "draw requests `N` times, from as many seeds")
	f.Float64Var(&s.hours, "hours", s.hours, "how long a run is, in `HOURS`")
	f.StringSliceVar(&s.machines, "machine", s.machines, "a shipped machine's `NAME`, or a file; may be given again")
	f.IntVar(&s.random, "random", 0, "draw `N` machines within published ranges instead")
	f.StringSliceVar(&s.policies, "policy", s.policies, "a policy's `NAME`; may be given again")
	f.StringVar(&s.trace, "trace", "", "read the requests from a `FILE` of CSV")
	f.StringVar(&s.line, "line", s.line, "`WHEN` there is line power: never, flips or always; where it flips, the lid is closed once as well")
	f.Float64Var(&s.charge, "charge", s.charge, "how full the battery is at first, in `PERCENT`; 0 has 100, 60 or 25 drawn")
	f.StringVar(&s.plot, "plot", "", "draw the first run of the first policy into a `FILE` of SVG")
	f.BoolVar(&s.sensitivity, "sensitivity", false, "change one assumption after the other")
	f.BoolVar(&s.show, "show", false, "write the files of the shipped machines named, and run nothing")
	s.completions(cmd)
}

// completions are what a shell offers for the flags.
func (s *simulation) completions(cmd *cobra.Command) {
	words := func(flag string, directive cobra.ShellCompDirective, words ...string) {
		_ = cmd.RegisterFlagCompletionFunc(flag, // It fails only for a flag that is not there.
			cobra.FixedCompletions(words, directive))
	}
	words("line", cobra.ShellCompDirectiveNoFileComp, string(simulate.NeverOnLine), string(simulate.FlipsLine), string(simulate.AlwaysOnLine))
	words("policy", cobra.ShellCompDirectiveNoFileComp, slices.Clone(s.policies)...)
	words("machine", cobra.ShellCompDirectiveDefault, simulate.Shipped()...)
	words("trace", cobra.ShellCompDirectiveFilterFileExt, "csv")
	words("plot", cobra.ShellCompDirectiveFilterFileExt, "svg")
}

// simulate does what is asked, machine by machine.
func (a *app) simulate(ctx context.Context, s simulation) error {
	if s.show {
		return a.showMachines(s.machines)
	}
	study, err := s.study()
	if err != nil {
		return err
	}
	machines, err := s.load()
	if err != nil {
		return err
	}
	if s.plot != "" {
		study.Machine = machines[0]
		if err := s.draw(&study); err != nil {
			return err
		}
	}
	if s.random > 0 {
		return a.simulateRandom(ctx, study, machines)
	}
	for i, m := range machines {
		study.Machine = m
		if i > 0 && !a.json {
			fmt.Fprintln(a.out)
		}
		if err := a.simulateOn(ctx, study, s); err != nil {
			return err
		}
	}
	return nil
}

// simulateOn shows what comes of one machine.
func (a *app) simulateOn(ctx context.Context, study simulate.Study, s simulation) error {
	if s.sensitivity {
		return a.simulateVariations(ctx, study)
	}
	summaries, err := study.Run(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return a.recordSummaries("", summaries)
	}
	fmt.Fprintf(a.out, "%s: %s\n", plain(study.Machine.Name), s.describe(summaries[0]))
	return writeSummaries(a.out, summaries)
}

// describe says what was run, of which one summary is at hand.
func (s *simulation) describe(one simulate.Summary) string {
	said := fmt.Sprintf("%s from %s, line power %s", counted(one.Jobs, "job"), counted(one.Runs, "seed"), s.line)
	if s.trace != "" {
		said = fmt.Sprintf("%s of %s, line power %s", counted(one.Jobs, "job"), plain(s.trace), s.line)
	}
	if one.Infeasible > 0 {
		said += fmt.Sprintf("; no device is in time for %.1f %% of them", 100*one.Infeasible)
	}
	return said
}

func (a *app) showMachines(names []string) error {
	for _, name := range names {
		text, err := simulate.ShippedFile(name)
		if err != nil {
			return failuref(wire.CodeInvalid, "--machine: %v", err)
		}
		if _, err := a.out.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// study is what is common to all machines.
func (s *simulation) study() (study simulate.Study, err error) {
	if s.seeds < 1 || s.seeds > 10_000 || !(s.hours > 0 && s.hours <= 24*31) || !(s.charge >= 0 && s.charge <= 100) || s.random < 0 || s.random > 10_000 {
		return study, failuref(wire.CodeInvalid, "want 1 to 10000 --seeds, more than 0 --hours and no month of them, 0 to 100 percent of --charge and 0 to 10000 --random")
	}
	line := simulate.LinePower(s.line)
	if !slices.Contains([]simulate.LinePower{simulate.NeverOnLine, simulate.FlipsLine, simulate.AlwaysOnLine}, line) {
		return study, failuref(wire.CodeInvalid, "--line: %q is none of never, flips, always", s.line)
	}
	all := simulate.Policies()
	study.Reference = all[slices.IndexFunc(all, func(p simulate.Policy) bool { return p.Name == simulate.Reference })]
	for _, name := range s.policies {
		i := slices.IndexFunc(all, func(p simulate.Policy) bool { return p.Name == name })
		if i < 0 {
			return study, failuref(wire.CodeInvalid, "--policy: there is no %q", name)
		}
		study.Policies = append(study.Policies, all[i])
	}
	w := simulate.DefaultWorkload()
	w.Length, w.Line, w.Charge = time.Duration(s.hours*float64(time.Hour)), line, s.charge/100
	study.Options = simulate.DefaultOptions()
	study.Traces, err = s.traces(w)
	return study, err
}

// traces are drawn, or the one of the file under each of the ways in which the
// machine may be powered.
func (s *simulation) traces(w simulate.Workload) ([]simulate.Trace, error) {
	if s.trace == "" {
		return simulate.Seeds(s.seeds, w), nil
	}
	f, err := os.Open(s.trace)
	if err != nil {
		return nil, failuref(wire.CodeInvalid, "--trace: %v", err)
	}
	defer f.Close()
	requests, err := simulate.ReadCSV(f)
	var fault *simulate.LineError
	switch {
	case errors.As(err, &fault):
		return nil, failuref(wire.CodeInvalid, "%s: %v", s.trace, err)
	case err != nil:
		return nil, err
	case len(requests) == 0:
		return nil, failuref(wire.CodeInvalid, "%s: there are no requests", s.trace)
	}
	return []simulate.Trace{simulate.Powered(0, w, requests)}, nil
}

// load returns the machines that are asked for.
func (s *simulation) load() (machines []simulate.Machine, err error) {
	for i := range s.random {
		machines = append(machines, simulate.Random(uint64(i)))
	}
	if s.random > 0 {
		return machines, nil
	}
	for _, name := range s.machines {
		m, err := loadMachine(name)
		if err != nil {
			return nil, failuref(wire.CodeInvalid, "--machine: %v", err)
		}
		machines = append(machines, m)
	}
	if len(machines) == 0 {
		return nil, failuref(wire.CodeInvalid, "--machine: there is none")
	}
	return machines, nil
}

func loadMachine(name string) (simulate.Machine, error) {
	if slices.Contains(simulate.Shipped(), name) {
		return simulate.Named(name)
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return simulate.Machine{}, fmt.Errorf("%q is no file, and none of %s", name, strings.Join(simulate.Shipped(), ", "))
	}
	if err != nil {
		return simulate.Machine{}, err
	}
	m, err := simulate.ParseMachine(text)
	if err != nil {
		return m, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// draw draws a run.
func (s *simulation) draw(study *simulate.Study) (err error) {
	o := study.Options
	o.Timeline = true
	r, err := simulate.Run(&study.Machine, &study.Traces[0], study.Policies[0], &o)
	if err != nil {
		return err
	}
	f, err := os.Create(s.plot)
	if err != nil {
		return failuref(wire.CodeInvalid, "--plot: %v", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	p := r.Plot(fmt.Sprintf("%s, policy %s: %s over the least of %s", r.Machine, r.Policy, r.Spent().Total(), r.Bound))
	return p.WriteSVG(f)
}
