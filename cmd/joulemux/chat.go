package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

func chatCommand(a *app) *cobra.Command {
	c := &conversation{app: a, options: options{}}
	cmd := &cobra.Command{
		Use:   "chat",
		Short: "Have a conversation",
		Long: `Have a conversation, a line at a time. Ctrl-D ends it; Ctrl-C cancels the
answer under way, and twice in a row ends the conversation. What was said
stays known until then, with as much of a cancelled answer as there is.

If standard input is no terminal, each of its lines is a turn, and the first
failure or Ctrl-C ends the conversation.`,
		Args: cobra.NoArgs,
		RunE: runs(func(ctx context.Context, _ []string) error { return c.run(ctx) }),
	}
	c.options.flags(cmd)
	quietFlag(cmd, &c.quiet)
	return cmd
}

// conversation is what was said so far, and how to go on.
type conversation struct {
	*app
	options    options
	quiet      bool
	messages   []wire.Message
	interrupts chan os.Signal
}

func (c *conversation) run(ctx context.Context) error {
	c.interrupts = make(chan os.Signal, 1)
	signal.Notify(c.interrupts, os.Interrupt)
	defer signal.Stop(c.interrupts)
	turns := readLines(c.in)
	interrupted := false // since the last turn began
	for {
		c.invite()
		select {
		case <-c.interrupts:
			if interrupted || !c.inTerminal {
				return failuref(codeInterrupted, "interrupted")
			}
			interrupted = true
			c.dismiss()
			c.warn()
		case line, open := <-turns:
			if !open || line.err != nil {
				c.dismiss()
				return line.err
			}
			err := c.turn(ctx, line.text)
			if interrupted = errors.Is(err, context.Canceled); interrupted && c.inTerminal {
				c.warn()
				continue
			}
			if err = c.survive(err); err != nil {
				return err
			}
		}
	}
}

// survive complains of a failure that a person can react to; any other one is
// returned.
func (c *conversation) survive(err error) error {
	var f *failure
	if !c.inTerminal || !errors.As(err, &f) {
		return err
	}
	c.complain(f)
	return nil
}

// invite asks for the next line, if a person is to write it.
func (c *conversation) invite() {
	if c.inTerminal && !c.quiet {
		fmt.Fprint(c.err, "> ")
	}
}

// dismiss ends the line that invite began.
func (c *conversation) dismiss() {
	if c.inTerminal && !c.quiet {
		fmt.Fprintln(c.err)
	}
}

// warn says what the next Ctrl-C does.
func (c *conversation) warn() {
	if !c.quiet {
		fmt.Fprintln(c.err, "Ctrl-C again, or Ctrl-D, ends the conversation")
	}
}

// turn has a line answered. The conversation remembers both, unless there is
// no answer or it failed: then the same line can be said again.
func (c *conversation) turn(ctx context.Context, line string) error {
	line, err := valid(line)
	if err != nil || strings.TrimSpace(line) == "" {
		return err
	}
	ctx, release := c.cancellable(ctx)
	messages := append(c.messages, wire.Message{Role: "user", Content: line})
	text, err := c.answer(ctx, "chat", wire.Chat{Messages: messages, Options: c.options}, c.quiet)
	if interrupted := release(); interrupted && err == nil {
		err = context.Canceled // The answer was just complete. Ctrl-C counts all the same.
	}
	if !c.json && !c.onTerminal && text != "" && !strings.HasSuffix(text, "\n") {
		fmt.Fprintln(c.out) // An answer begins on a line of its own.
	}
	if text != "" && (err == nil || errors.Is(err, context.Canceled)) {
		c.messages = append(messages, wire.Message{Role: "assistant", Content: text})
	}
	return err
}

// cancellable returns a context that Ctrl-C ends until release is called, which
// reports whether it did.
func (c *conversation) cancellable(ctx context.Context) (_ context.Context, release func() (interrupted bool)) {
	ctx, cancel := context.WithCancel(ctx)
	outcome := make(chan bool, 1)
	go func() {
		select {
		case <-c.interrupts:
			outcome <- true
			cancel()
		case <-ctx.Done():
			outcome <- false
		}
	}()
	return ctx, func() bool { cancel(); return <-outcome }
}

// line is one of standard input, or why there are no more.
type line struct {
	text string
	err  error
}

// readLines reads lines as they are asked for. It goes on until the input
// ends: no reader can be told to stop waiting for a person.
func readLines(r io.Reader) <-chan line {
	read := make(chan line)
	go func() {
		defer close(read)
		s := bufio.NewScanner(r)
		s.Buffer(nil, maxPrompt)
		for s.Scan() {
			read <- line{text: s.Text()}
		}
		switch err := s.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			read <- line{err: failuref(wire.CodePromptTooLarge, "a line is larger than %d MiB", maxPrompt>>20)}
		case err != nil:
			read <- line{err: err}
		}
	}()
	return read
}
