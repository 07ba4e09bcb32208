package program_test

import (
	"context"
	"errors"
	"flag"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/cmd/program"
)

func TestCommandLines(t *testing.T) {
	for _, c := range []struct {
		args           string
		code           int // -1 to go on
		stdout, stderr string
	}{
		{args: "--fast", code: -1},
		{args: "", code: -1},
		{args: "--version", code: 0, stdout: "joulemux-test "},
		{args: "--help", code: 0, stderr: "-fast"},
		{args: "--slow", code: program.ExitUsage, stderr: "flag provided but not defined: -slow"},
		{args: "now", code: program.ExitUsage, stderr: `joulemux-test: unexpected argument "now"`},
		{args: "--version now", code: program.ExitUsage, stderr: "unexpected argument"},
	} {
		var stdout, stderr strings.Builder
		flags := flag.NewFlagSet("joulemux-test", flag.ContinueOnError)
		flags.Bool("fast", false, "")
		code := -1
		if err := program.Parse(flags, strings.Fields(c.args), &stdout, &stderr); err != nil {
			code = program.ExitCode(err)
		}
		if code != c.code || !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) {
			t.Errorf("%q: %d, %q, %q", c.args, code, stdout.String(), stderr.String())
		}
	}
}

func TestFailureIsSaid(t *testing.T) {
	var stderr strings.Builder
	failing := func(context.Context) error { return errors.New("no luck") }
	if code := program.Run("joulemux-test", &stderr, failing); code != program.ExitFailure || stderr.String() != "joulemux-test: no luck\n" {
		t.Errorf("%d, %q", code, stderr.String())
	}
}
