// Command bench measures what joulemuxd costs: the processor time of a job
// beside that of a bare reverse proxy, how much later an answer comes than
// without it, memory, and how often it wakes up when nothing is asked of it.
//
// Everything runs in processes of its own and on this machine: joulemuxd as it
// is built, real buses and a real upowerd from packaging/rig, and a backend
// that is fake, so that no model's work is measured. Figures are of this
// machine and moment; only ratios of figures from one run say anything of
// another. A target that is missed is no failure, and is told in the table.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// plan is how much is measured.
type plan struct {
	rounds   int
	requests int // of a round, that are not streamed
	streams  int // of a round
	many     int // streams before memory is looked at
	updates  int
	settle   time.Duration
	window   time.Duration
	parts    string
	before   string // another joulemuxd, or ""
}

// part is what can be measured by itself.
type part struct {
	name    string
	measure func(context.Context, plan) ([]row, error)
}

// parts are all of them. The last takes the longest.
var parts = []part{
	{"jobs", measureJobs},
	{"grpc", measureGRPC},
	{"cache", measureCache},
	{"metrics", measureMetrics},
	{"memory", measureMemory},
	{"metering", measureMetering},
	{"rest", measureRest},
}

func main() {
	// A role knows no better end than by the signal that asks for it.
	if args := os.Args[1:]; len(args) > 0 && strings.HasPrefix(args[0], rolePrefix) {
		exit(play(args[0], args[1:]))
	}
	exit(run(os.Args[1:]))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p, err := parse(args)
	if err != nil {
		return err
	}
	var rows []row
	for _, part := range parts {
		if !p.wants(part.name) {
			continue
		}
		measured, err := part.measure(ctx, p)
		if err != nil {
			if len(rows) > 0 {
				show(os.Stdout, rows) // they took minutes
			}
			return fmt.Errorf("%s: %w", part.name, err)
		}
		rows = append(rows, measured...)
	}
	show(os.Stdout, rows)
	fmt.Println("\nto repeat: go run ./packaging/bench", strings.Join(args, " "))
	return nil
}

func parse(args []string) (plan, error) {
	var p plan
	quick := false
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.StringVar(&p.parts, "part", "all", "`what` to measure, with commas between: "+names()+" or all")
	flags.StringVar(&p.before, "before", "", "`path` of another joulemuxd, whose jobs and memory to compare with")
	flags.IntVar(&p.rounds, "rounds", 9, "`number` of times that each proxy is measured")
	flags.IntVar(&p.requests, "requests", 500, "`number` of plain requests in a round")
	flags.IntVar(&p.streams, "streams", 30, "`number` of streams in a round")
	flags.IntVar(&p.many, "many", 10_000, "`number` of streams before memory is measured")
	flags.IntVar(&p.updates, "updates", 20, "`number` of times that the charge changes")
	flags.DurationVar(&p.settle, "settle", 5*time.Minute, "`time` after the last job until joulemuxd counts as at rest")
	flags.DurationVar(&p.window, "window", 2*time.Minute, "`time` for which it is then watched")
	flags.BoolVar(&quick, "quick", false, "measure little, for a first look")
	if err := flags.Parse(args); err != nil {
		return p, err
	}
	if quick {
		p.rounds, p.requests, p.streams, p.many, p.updates = 3, 200, 5, 500, 6
		p.settle, p.window = 20*time.Second, 20*time.Second
	}
	switch {
	case flags.NArg() > 0:
		return p, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case p.unknown() != "":
		return p, fmt.Errorf("there is no part %q; want %s or all", p.unknown(), names())
	case min(p.rounds, p.requests, p.streams, p.many, p.updates) < 1 || p.window <= 0:
		return p, fmt.Errorf("nothing to measure: every number must be positive")
	}
	return p, nil
}

// wants reports whether a part is to be measured.
func (p plan) wants(name string) bool {
	return p.parts == "all" || slices.Contains(strings.Split(p.parts, ","), name)
}

// unknown returns a part that is wanted and that there is not, or "".
func (p plan) unknown() string {
	for name := range strings.SplitSeq(p.parts, ",") {
		if name != "all" && !slices.ContainsFunc(parts, func(one part) bool { return one.name == name }) {
			return name
		}
	}
	return ""
}

func names() string {
	var list []string
	for _, one := range parts {
		list = append(list, one.name)
	}
	return strings.Join(list, ", ")
}
