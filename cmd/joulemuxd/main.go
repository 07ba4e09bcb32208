// Command joulemuxd routes jobs for language models to the device that answers
// them with the fewest joules.
//
// It runs as a service of the user until SIGTERM or SIGINT, and reads its
// configuration again on SIGHUP. While that has faults it runs all the same, and
// answers jobs with what they are. Exit codes: 0 after a clean stop, 1 on a
// failure, 2 for a wrong command line, and with --check 78 for a configuration
// with faults (EX_CONFIG of sysexits.h).
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/joulemux/joulemux/cmd/program"
	"github.com/joulemux/joulemux/daemon"
	"github.com/joulemux/joulemux/daemon/config"
	"github.com/joulemux/joulemux/power/energyd"
	"github.com/joulemux/joulemux/systemd"
)

const exitConfig = 78

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// command is the command line.
type command struct {
	config, level, sys string
	check              bool
}

// parse says itself what is wrong.
func parse(args []string, stdout, stderr io.Writer) (command, error) {
	var c command
	path, _ := config.DefaultPath() // without a home --config can still name one
	flags := flag.NewFlagSet("joulemuxd", flag.ContinueOnError)
	flags.StringVar(&c.config, "config", path, "`file` with the configuration")
	flags.StringVar(&c.level, "log-level", "", "`level` of the log: debug, info, warn or error; by default the configuration's")
	flags.StringVar(&c.sys, "sysfs", "/sys", "`folder` to read the machine's hardware from")
	flags.BoolVar(&c.check, "check", false, "say what is wrong with the configuration, and end")
	err := program.Parse(flags, args, stdout, stderr)
	return c, err
}

func run(args []string, stdout, stderr io.Writer) int {
	c, err := parse(args, stdout, stderr)
	if err != nil {
		return program.ExitCode(err)
	}
	if c.check {
		return check(c.config, stdout, stderr)
	}
	return serve(c, stderr)
}

func check(path string, stdout, stderr io.Writer) int {
	notes, err := daemon.Check(path)
	if err != nil {
		fmt.Fprintln(stderr, "joulemuxd:", err)
		return exitConfig
	}
	for _, note := range notes {
		fmt.Fprintln(stdout, note)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(stdout, "there is no %s, and so the defaults are in force\n", path)
		return 0
	}
	fmt.Fprintln(stdout, path, "is in order")
	return 0
}

// processors is how many run Go code at a time. What passes through here waits
// far more than it computes; a second processor mostly has the first wake it
// up, which is what a daemon for batteries must not do. GOMAXPROCS overrides.
const processors = 1

func serve(c command, stderr io.Writer) int {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(processors)
	}
	level := new(slog.LevelVar)
	if c.level != "" {
		if err := level.UnmarshalText([]byte(c.level)); err != nil {
			fmt.Fprintln(stderr, "joulemuxd: --log-level:", err)
			return program.ExitUsage
		}
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	return program.Run("joulemuxd", stderr, func(ctx context.Context) error {
		inherited, err := systemd.Listeners()
		if err != nil {
			return err
		}
		return daemon.Run(ctx, daemon.Options{
			Config: c.config, State: stateFolder(), Pipelines: pipelineFolders(), Sys: os.DirFS(c.sys), Proc: os.DirFS("/proc"), EnergySocket: energyd.Socket,
			Version: program.Version(), Log: slog.New(systemd.NewLogHandler(level)), Level: level, FixedLevel: c.level != "",
			LogTarget: logTarget(), Reload: reload, Inherited: inherited,
		})
	})
}

// stateFolder is $XDG_STATE_HOME/joulemux, or "" where there is no home.
func stateFolder() string {
	if folder := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(folder) {
		return filepath.Join(folder, "joulemux")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "state", "joulemux")
}

// pipelineFolders are where pipelines are: the user's own first, then those that
// programs have installed.
func pipelineFolders() []string {
	home, _ := os.UserHomeDir() // without one there are still the machine's
	bases := []string{cmp.Or(os.Getenv("XDG_CONFIG_HOME"), filepath.Join(home, ".config")), cmp.Or(os.Getenv("XDG_DATA_HOME"), filepath.Join(home, ".local", "share"))}
	bases = append(bases, filepath.SplitList(cmp.Or(os.Getenv("XDG_DATA_DIRS"), "/usr/local/share:/usr/share"))...)
	var folders []string
	for _, base := range bases {
		if filepath.IsAbs(base) {
			folders = append(folders, filepath.Join(base, "joulemux", "pipelines"))
		}
	}
	return folders
}

// logTarget says where standard error goes, in systemd's words.
func logTarget() string {
	if os.Getenv("JOURNAL_STREAM") != "" {
		return "journal"
	}
	return "console"
}
