package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

func holdCommand(a *app) *cobra.Command {
	reason := ""
	cmd := &cobra.Command{
		Use:   "hold TIER [--reason TEXT] -- COMMAND [ARG...]",
		Short: "Keep the tier careful while a command runs",
		Long: `Keep the tier at least as careful as TIER while a command runs: battery, saver,
low or critical. The exit code is the command's. If the hold ends before the
command does, because the daemon or the user ends it, the command runs on.

Signals are passed on to the command. With --json what is to be said of the
hold is JSON on standard error: standard output is the command's.`,
		Example:               `  joulemux hold low --reason "on a plane" -- make -j8`,
		Args:                  tierAndCommand,
		DisableFlagsInUseLine: true, // they come before the command
		ValidArgsFunction:     cobra.FixedCompletions([]string{"battery", "saver", "low", "critical"}, cobra.ShellCompDirectiveNoFileComp),
		RunE: runs(func(ctx context.Context, args []string) error {
			a.records = a.err
			return a.hold(ctx, wire.Hold{Tier: args[0], Reason: reason}, args[1:])
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, in a `TEXT` for who looks at the status; the command, if nothing is given")
	return cmd
}

func tierAndCommand(cmd *cobra.Command, args []string) error {
	if cmd.ArgsLenAtDash() != 1 || len(args) < 2 {
		return errors.New("hold takes a tier, then --, then a command")
	}
	return nil
}

// hold runs a command under a hold.
func (a *app) hold(ctx context.Context, asked wire.Hold, command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return a.cannotRun(command[0], err)
	}
	if asked.Reason == "" {
		asked.Reason = filepath.Base(command[0]) // A path may be longer than a reason.
	}
	ctx, release := context.WithCancel(ctx)
	defer release()
	changes, err := a.client().lines(ctx, http.MethodPost, "hold", asked)
	if err != nil {
		return err
	}
	defer changes.close()
	if err := a.taken(changes); err != nil {
		return err
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		a.watchHold(ctx, changes, command[0])
	}()
	status, err := runCommand(path, command)
	release()
	<-watched
	if err != nil {
		return a.cannotRun(command[0], err)
	}
	return status.err()
}

// taken waits for the daemon to say that it holds the tier.
func (a *app) taken(changes *lines) error {
	var held wire.Held
	if _, err := changes.next(&held); err != nil {
		return failuref(codeBroken, "the daemon did not confirm the hold: %v", err)
	}
	if a.json {
		return a.record(held)
	}
	return nil
}

// watchHold says so if the hold ends before ctx does.
func (a *app) watchHold(ctx context.Context, changes *lines, command string) {
	for {
		var held wire.Held
		_, err := changes.next(&held)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			a.complain(failuref(codeUnreachable, "the daemon is gone, and the hold with it; %s runs on", command))
			return
		case held.Released && a.json:
			_ = a.record(held)
			return
		case held.Released:
			fmt.Fprintf(a.err, "joulemux: the hold on tier %s was ended by the user; %s runs on\n", plain(held.Tier), command)
			return
		}
	}
}

// cannotRun says why a command cannot be run, with the exit code that shells
// give for it.
func (a *app) cannotRun(command string, err error) error {
	a.complain(failuref(codeFailed, "%s cannot be run: %v", command, err))
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitError(127)
	}
	return exitError(126)
}

// exitError is how a held command ended, as an exit code. Nothing is left to
// be said about it.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func (e exitError) err() error {
	if e == 0 {
		return nil
	}
	return e
}

// runCommand runs a command with our own standard files and returns how it
// ended. The error is why it did not begin.
func runCommand(path string, command []string) (exitError, error) {
	cmd := &exec.Cmd{Path: path, Args: command, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	signals := catch()
	defer func() { signal.Stop(signals); close(signals) }()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go relay(signals, cmd.Process)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitError(128 + int(status.Signal())), nil
	}
	return exitError(exit.ExitCode()), nil
}
