// Command joulemux-nvml tells joulemuxd what NVIDIA's GPUs take.
//
// The user's service manager starts it when somebody connects to its socket
// (joulemux-nvml.socket), and it ends with its last connection, so that nothing
// keeps a GPU from its sleep. It is a program of its own because NVML needs
// cgo, and may crash or hang. Exit codes: 0 when it is done, 1 on a failure, 2
// for a wrong command line.
//
// With --measure it says how the figures of the GPUs behave here.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/joulemux/joulemux/cmd/program"
	"github.com/joulemux/joulemux/power/nvml"
	"github.com/joulemux/joulemux/systemd"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// command is the command line.
type command struct {
	sys, level string
	measure    time.Duration
}

// parse says itself what is wrong.
func parse(args []string, stdout, stderr io.Writer) (command, error) {
	var c command
	flags := flag.NewFlagSet("joulemux-nvml", flag.ContinueOnError)
	flags.StringVar(&c.sys, "sysfs", "/sys", "`folder` to read the machine's hardware from")
	flags.StringVar(&c.level, "log-level", "info", "`level` of the log: debug, info, warn or error")
	flags.DurationVar(&c.measure, "measure", 0, "watch each GPU for a `time` such as 10s, and say how its figures behave")
	err := program.Parse(flags, args, stdout, stderr)
	return c, err
}

func run(args []string, stdout, stderr io.Writer) int {
	c, err := parse(args, stdout, stderr)
	if err != nil {
		return program.ExitCode(err)
	}
	return program.Run("joulemux-nvml", stderr, func(ctx context.Context) error {
		if c.measure > 0 {
			return measure(ctx, c, stdout)
		}
		return serve(ctx, c)
	})
}

// serve answers on the socket that we were started with.
func serve(ctx context.Context, c command) error {
	level := new(slog.LevelVar)
	if err := level.UnmarshalText([]byte(c.level)); err != nil {
		return fmt.Errorf("--log-level: %w", err)
	}
	socket, err := systemd.Listener(systemd.NVML, "joulemux-nvml.socket")
	if err != nil {
		return err
	}
	server := nvml.Server{Sys: os.DirFS(c.sys), Open: open, Log: slog.New(systemd.NewLogHandler(level))}
	return server.Serve(ctx, socket)
}

// measure watches one GPU after the other.
func measure(ctx context.Context, c command, stdout io.Writer) error {
	sys := os.DirFS(c.sys)
	gpus, err := nvml.GPUs(sys)
	if err != nil {
		return err
	}
	if len(gpus) == 0 {
		return errors.New("there is no NVIDIA GPU")
	}
	for _, gpu := range gpus {
		report, err := nvml.Measure(ctx, sys, open, gpu, c.measure)
		if err != nil {
			return err
		}
		fmt.Fprint(stdout, report)
	}
	return nil
}
