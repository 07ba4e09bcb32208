// Package program is what joulemuxd and its helpers have in common as programs:
// a command line of flags alone, a version, exit codes, and an end when they are
// told to stop. What they do until then is their own.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// Exit codes.
const (
	ExitFailure = 1
	ExitUsage   = 2
)

// Parse parses a command line, to whose flags it adds --version. It says itself
// what is wrong, as package flag does, and answers --version and --help, which
// are flag.ErrHelp: ExitCode has the end of the program after an error.
func Parse(flags *flag.FlagSet, args []string, stdout, stderr io.Writer) error {
	flags.SetOutput(stderr)
	version := flags.Bool("version", false, "say the version, and end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		err := fmt.Errorf("unexpected argument %q", flags.Arg(0))
		fmt.Fprintf(stderr, "%s: %v\n", flags.Name(), err)
		return err
	}
	if *version {
		fmt.Fprintln(stdout, flags.Name(), Version())
		return flag.ErrHelp
	}
	return nil
}

// ExitCode is that of a program whose command line was not one to go on with.
func ExitCode(err error) int {
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	return ExitUsage
}

// Run does what a program is for until SIGTERM or SIGINT, says why it failed if
// it did, and returns the exit code.
func Run(name string, stderr io.Writer, do func(context.Context) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := do(ctx); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return ExitFailure
	}
	return 0
}

// Version is the module's, as the build recorded it.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
