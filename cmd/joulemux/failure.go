package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// failure is why a command did not do what it should: an error of the daemon,
// or one of our own in the same form.
type failure struct {
	record wire.Error
	// told says that --json has written the record already.
	told bool
}

// The codes of failures that only a client has.
const (
	codeFailed      = "failed"
	codeUnreachable = "daemon_unreachable"
	codeBroken      = "answer_broken"
	codeInterrupted = "interrupted"
)

func (f *failure) Error() string { return f.record.Text }

func failuref(code, format string, args ...any) *failure {
	return &failure{record: wire.Error{Code: code, Text: fmt.Sprintf(format, args...)}}
}

// asFailure returns err as a failure. How a held command ended is none.
func asFailure(err error) error {
	var f *failure
	var status exitError
	switch {
	case err == nil, errors.As(err, &status):
		return err
	case errors.As(err, &f):
		return f
	case errors.Is(err, context.Canceled):
		return failuref(codeInterrupted, "interrupted")
	default:
		return failuref(codeFailed, "%v", err)
	}
}

// report tells how a command ended, and returns the exit code.
func (a *app) report(err error) int {
	var f *failure
	var status exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case !errors.As(err, &f): // It is cobra's, about the command line, which it may not have read to its end.
		f = failuref(wire.CodeInvalid, "%v", err)
		a.json = a.json || slices.Contains(os.Args, "--json")
	}
	a.complain(f)
	return f.exitCode()
}

// complain says what went wrong: one line, and one for each backend that
// refused the job.
func (a *app) complain(f *failure) {
	if a.json && !f.told {
		_ = a.record(wire.Event{Error: &f.record})
		f.told = true
	}
	if a.json && a.records == a.err {
		return // Both would be in one stream.
	}
	fmt.Fprintln(a.err, "joulemux:", f.headline())
	for _, id := range slices.Sorted(maps.Keys(f.record.Refused)) {
		fmt.Fprintf(a.err, "    %s: %s\n", plain(id), plain(f.record.Refused[id]))
	}
}

// headline is the text without the refusals, which the daemon lists there too
// for clients that read nothing else, and with when to try again.
func (f *failure) headline() string {
	text := f.record.Text
	for id, why := range f.record.Refused {
		for _, separator := range []string{": ", "; "} {
			text = strings.ReplaceAll(text, separator+id+": "+why, "")
		}
	}
	if after := f.record.RetryAfterSeconds; after > 0 {
		text += fmt.Sprintf("; try again in %d s", after)
	}
	return plain(text)
}

// exitCode is the only place where a failure becomes an exit code.
func (f *failure) exitCode() int {
	switch f.record.Code {
	case wire.CodeInvalid, wire.CodePromptTooLarge, wire.CodeUnsupported:
		return 2
	case codeUnreachable, wire.CodeStopping:
		return 3
	case wire.CodeModelNotFound, wire.CodeJobNotFound, wire.CodePipelineNotFound:
		return 4
	case wire.CodePowerPolicy:
		return 5
	case wire.CodeNoBackend, wire.CodeBackendNotFound:
		return 6
	case wire.CodeBusy, wire.CodeOverLimit:
		return 7
	case wire.CodeDeadlinePassed:
		return 8
	case codeInterrupted:
		return 130
	default:
		return 1
	}
}

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `The exit codes of joulemux:

    0    it worked
    1    it failed: the backend or the daemon did, the answer broke off, the
         job was cancelled by somebody else, or the daemon does not allow it
    2    the command line or the request is wrong
    3    the daemon cannot be reached, or is stopping
    4    no backend has the model, the ledger has no such job, or there is no
         such pipeline
    5    the power policy of this tier forbids it
    6    no backend can take it, or there is none of the name given to --target
    7    it is too busy, or this client has had its share
    8    the deadline has passed
    130  Ctrl-C

"joulemux hold" exits as the command does that it runs, with 128 and the
number of the signal if one ended it, 126 if it cannot be run, and 127 if it
is not there.`,
	}
}

func jsonTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "json",
		Short: "What --json writes",
		Long: `With --json every command writes JSON to standard output, one object per
line, in place of what it says to people.

    generate, chat   a line for each event of an answer, as it comes:
                     {"routed":{...}}, again if another backend takes over;
                     {"text":"..."} for each piece of the answer;
                     {"end":{...}} with what it took
    pipeline run     a line for each event of a run: {"stage":"...","routed":{...}},
                     {"stage":"...","text":"..."} with --stream,
                     {"stage":"...","done":{...}} with what a stage came to, and
                     {"end":{...}} with the output and what all took
    pipeline list    {"pipelines":[...]}
    pipeline show, check
                     {"name":"...","stages":[...],...}, or with "faults":[...]
    explain          {"tier":"...","backend":"...","backends":[...],...}; with
                     --all-tiers a line for each tier
    status           the daemon's status, with the members text, alt, class,
                     tooltip and percentage for status bars; with --follow
                     a line for each change
    backends         {"backends":[...]}
    models           {"models":[...]}
    pull             a line for each piece of news: {"pull":{...}}, at last
                     {"end":{"model":"...","backend":"...","bytes":...}}
    energy           {"by":"backend","totals":[...],...}, or of one job
                     {"id":"...","attempts":[...]}
    policy           {"policy":"..."}
    cache            {"entries":...,"bytes":...,...}; clear: what there was
    token            create: {"name":"...","rights":[...],...,"token":"..."};
                     list: {"tokens":[...]}; revoke: {"revoked":"..."}
    simulate         a line for each machine and policy, of each variation
                     with --sensitivity
    capture          {"capture":"..."}
    version          {"version":"..."}
    hold             {"cookie":1,"tier":"...",...} when the hold is taken, and
                     again with "released":true if the user ends it. Standard
                     output is the command's, so this is on standard error.

What fails ends with the line

    {"error":{"error":"in words","code":"power_policy","refused":{"id":"why"}}}

whose code is one of the daemon's: invalid, prompt_too_large, model_not_found,
job_not_found, backend_not_found, pipeline_not_found, no_backend, power_policy,
busy, over_limit, cancelled, deadline_passed, backend_failed, unsupported,
unauthenticated, forbidden, stopping, internal; or one of the client's own:
daemon_unreachable, answer_broken, interrupted, failed. An answer is whole only
if its last line is an end. Clients should ignore members they do not know.`,
	}
}
