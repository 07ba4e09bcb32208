// Command demo shows what joulemux does, on a laptop that is not there.
//
//	go run ./packaging/demo           one laptop's day, as a table
//	go run ./packaging/demo -serve    the same laptop on the usual ports, to play with
//
// The laptop's battery is simulated, and four Ollamas on the CPU stand in for
// its four devices. All else is real: upowerd, the buses, joulemuxd, and the
// clients joulemux and busctl, whose answers are all that the table shows.
// MODEL in the environment names a model that the user's Ollama has, to be used
// in place of the rig's tiny one.
//
// The package owns the order of events and their display. The parts are of
// packaging/rig; they keep to private folders and buses, and end with us.
// What is being done is said on standard error. The exit code is 0 if the day
// went as it should, and 1 if not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	serve := flag.Bool("serve", false, "keep the laptop running on the usual ports, and take commands for its battery")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	// Whichever way the user leaves, nothing is to stay behind. SIGPIPE is
	// among them, for when our output goes to a pager.
	ctx, stop := signal.NotifyContext(context.Background(),
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()

	what := day
	if *serve {
		what = playground
	}
	if err := what(ctx, console{in: os.Stdin, out: os.Stdout, err: os.Stderr}); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", explain(ctx, err))
		stop()
		os.Exit(1)
	}
}

// explain says that we were told to stop, rather than what failed for it.
func explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("stopped")
	}
	return err
}

// console is where we hear of the user and where we are heard.
type console struct {
	in       io.Reader
	out, err io.Writer
}

// say tells what is being done.
func (c console) say(format string, args ...any) {
	fmt.Fprintf(c.err, "demo: "+format+"\n", args...)
}
