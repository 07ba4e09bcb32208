// Command joulemux is the client of joulemuxd, for people and scripts: it
// generates text, shows what the daemon sees and decides, and holds tiers.
//
// It speaks the JSON of daemon/httpapi/wire over HTTP, on the daemon's Unix
// socket: that works over ssh too, where there may be no session bus. It owns
// nothing but its terminal, and leaves every decision to the daemon. Only
// "joulemux capture" reads the machine itself, for a bug report, and "joulemux
// token" the file of tokens, which the daemon only reads.
//
// Answers are written to standard output, and what is said about them to
// standard error. The exit codes are:
//
//	0    it worked
//	1    it failed: the backend did, the answer broke off, …
//	2    the command line or the request is wrong
//	3    the daemon cannot be reached, or is stopping
//	4    the model is not there, or the job, or the pipeline
//	5    the power policy forbids it
//	6    no backend can take it
//	7    it is too busy, or this client has had its share
//	8    the deadline has passed
//	130  Ctrl-C
//
// "joulemux hold" exits as the command does that it runs.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/cmd/program"
)

func main() {
	a := &app{console: newConsole(os.Stdin, os.Stdout, os.Stderr)}
	a.records = a.out
	os.Exit(a.report(rootCommand(a).ExecuteContext(context.Background())))
}

// app is what all commands share.
type app struct {
	console
	socket string
	json   bool
	// records is where --json writes to.
	records io.Writer
}

func rootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "joulemux",
		Short:         "Ask joulemuxd for text, and see what it decides",
		Long:          "joulemux is the client of joulemuxd, which sends work for language models to where it\ncosts the fewest joules.",
		Version:       program.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.PersistentFlags().StringVar(&a.socket, "socket", defaultSocket(), "the daemon's `PATH`, or JOULEMUX_SOCKET")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "write JSON, as \"joulemux help json\" describes")
	root.AddCommand(
		generateCommand(a), chatCommand(a), pipelineCommand(a), explainCommand(a), statusCommand(a), backendsCommand(a), modelsCommand(a), pullCommand(a), cacheCommand(a),
		energyCommand(a), holdCommand(a), policyCommand(a), tokenCommand(a), simulateCommand(a), captureCommand(a), versionCommand(a), exitCodesTopic(), jsonTopic(),
	)
	a.offerTo(root)
	return root
}

// defaultSocket is where the daemon listens. Sessions that no login manager
// began, as under sudo, may not have XDG_RUNTIME_DIR.
func defaultSocket() string {
	runtime := cmp.Or(os.Getenv("XDG_RUNTIME_DIR"), fmt.Sprintf("/run/user/%d", os.Getuid()))
	return cmp.Or(os.Getenv("JOULEMUX_SOCKET"), filepath.Join(runtime, "joulemux", "api.sock"))
}

// action is what a command does once its command line is found to be right.
type action func(ctx context.Context, args []string) error

// runs makes do the action of a command. Its errors are marked, because what
// else cobra returns is wrong use of the command line.
func runs(do action) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return asFailure(do(cmd.Context(), args))
	}
}

// interruptible returns a context that the first Ctrl-C ends. The second one
// ends the program, should it be stuck.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func versionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this client; status has the daemon's",
		Args:  cobra.NoArgs,
		RunE: runs(func(context.Context, []string) error {
			if a.json {
				return a.record(map[string]string{"version": program.Version()})
			}
			_, err := fmt.Fprintln(a.out, "joulemux", program.Version())
			return err
		}),
	}
}
