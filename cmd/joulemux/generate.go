package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// maxPrompt bounds what we read; the daemon's own limit is lower.
const maxPrompt = 64 << 20

func generateCommand(a *app) *cobra.Command {
	asked, quiet := options{}, false
	cmd := &cobra.Command{
		Use:   "generate [PROMPT | -]",
		Short: "Have a prompt continued",
		Long: `Have a prompt continued. The prompt is the arguments, joined by spaces, or
else standard input. The answer goes to standard output as it comes, and to
standard error where it is made, why there, and what it took. On a terminal
the control characters in an answer are left out.`,
		Example: `  joulemux generate --max-power 15W "Why is the sky blue?"
  joulemux generate --background --system "Summarize." < report.txt > summary.txt`,
		RunE: runs(func(ctx context.Context, args []string) error {
			prompt, err := a.prompt(args, quiet)
			if err != nil {
				return err
			}
			ctx, stop := interruptible(ctx)
			defer stop()
			_, err = a.answer(ctx, "generate", wire.Generate{Prompt: prompt, Options: asked}, quiet)
			return err
		}),
	}
	asked.flags(cmd)
	quietFlag(cmd, &quiet)
	return cmd
}

func quietFlag(cmd *cobra.Command, quiet *bool) {
	cmd.Flags().BoolVarP(quiet, "quiet", "q", false, "say nothing but the answer")
}

// prompt returns what is to be continued.
func (a *app) prompt(args []string, quiet bool) (string, error) {
	if len(args) > 0 && !(len(args) == 1 && args[0] == "-") {
		return valid(strings.Join(args, " "))
	}
	if a.inTerminal && !quiet {
		fmt.Fprintln(a.err, "joulemux: reading the prompt from the terminal; Ctrl-D on a line of its own ends it")
	}
	text, err := io.ReadAll(io.LimitReader(a.in, maxPrompt+1))
	if err != nil {
		return "", err
	}
	if len(text) > maxPrompt {
		return "", failuref(wire.CodePromptTooLarge, "the prompt is larger than %d MiB", maxPrompt>>20)
	}
	return valid(string(text))
}

// valid refuses text that JSON would garble.
func valid(prompt string) (string, error) {
	if !utf8.ValidString(prompt) {
		return "", failuref(wire.CodeInvalid, "the prompt is not valid UTF-8")
	}
	return prompt, nil
}
