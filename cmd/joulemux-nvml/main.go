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
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/joulemux/joulemux/power/nvml"
	"github.com/joulemux/joulemux/systemd"
)

const (
	exitFailure = 1
	exitUsage   = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// command is the command line.
type command struct {
	sys, level string
	measure    time.Duration
	version    bool
}

// parse says itself what is wrong, as package flag does.
func parse(args []string, stderr io.Writer) (command, error) {
	var c command
	flags := flag.NewFlagSet("joulemux-nvml", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&c.sys, "sysfs", "/sys", "`folder` to read the machine's hardware from")
	flags.StringVar(&c.level, "log-level", "info", "`level` of the log: debug, info, warn or error")
	flags.DurationVar(&c.measure, "measure", 0, "watch each GPU for a `time` such as 10s, and say how its figures behave")
	flags.BoolVar(&c.version, "version", false, "say the version, and end")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 0 {
		err := fmt.Errorf("unexpected argument %q", flags.Arg(0))
		fmt.Fprintln(stderr, "joulemux-nvml:", err)
		return c, err
	}
	return c, nil
}

func run(args []string, stdout, stderr io.Writer) int {
	c, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return exitUsage
	case c.version:
		fmt.Fprintln(stdout, "joulemux-nvml", version())
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if c.measure > 0 {
		err = measure(ctx, c, stdout)
	} else {
		err = serve(ctx, c)
	}
	if err != nil {
		fmt.Fprintln(stderr, "joulemux-nvml:", err)
		return exitFailure
	}
	return 0
}

// serve answers on the socket that we were started with.
func serve(ctx context.Context, c command) error {
	level := new(slog.LevelVar)
	if err := level.UnmarshalText([]byte(c.level)); err != nil {
		return fmt.Errorf("--log-level: %w", err)
	}
	inherited, err := systemd.Listeners()
	if err != nil {
		return err
	}
	sockets := inherited[systemd.NVML]
	if len(sockets) != 1 {
		return fmt.Errorf("%d sockets called %q were handed on: the service manager starts this, by joulemux-nvml.socket", len(sockets), systemd.NVML)
	}
	server := nvml.Server{Sys: os.DirFS(c.sys), Open: open, Log: slog.New(systemd.NewLogHandler(level))}
	return server.Serve(ctx, sockets[0])
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

// version is the module's, as the build recorded it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
