// Command joulemux-energyd tells joulemuxd what the energy counters show that
// only root may read: RAPL's, and that of Intel's NPU.
//
// It is an opt-in. The system's service manager starts it when somebody
// connects to its socket (joulemux-energyd.socket), as root without any
// capability: a file that belongs to root can be read by root without one. It
// writes nothing, and ends when nobody has been connected for a while. Whom it
// answers is on its command line; why that matters is in package energyd. Exit
// codes: 0 when it is done, 1 on a failure, 2 for a wrong command line.
package main

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/joulemux/joulemux/cmd/program"
	"github.com/joulemux/joulemux/power/energyd"
	"github.com/joulemux/joulemux/power/sysfs"
	"github.com/joulemux/joulemux/systemd"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// command is the command line.
type command struct {
	sys    string
	level  slog.LevelVar
	access energyd.Access
	idle   time.Duration
}

// parse says itself what is wrong.
func parse(args []string, stdout, stderr io.Writer) (*command, error) {
	c := new(command)
	flags := flag.NewFlagSet("joulemux-energyd", flag.ContinueOnError)
	flags.StringVar(&c.sys, "sysfs", "/sys", "`folder` to read the machine's hardware from")
	flags.TextVar(&c.level, "log-level", &c.level, "`level` of the log: debug, info, warn or error")
	flags.Func("allow-group", "answer members of a `group`, by name or number; can be repeated", func(s string) error {
		gid, err := group(s)
		c.access.Groups = append(c.access.Groups, gid)
		return err
	})
	flags.Func("allow-uid", "answer the user with a `number`; can be repeated", func(s string) error {
		uid, err := number(s)
		c.access.Users = append(c.access.Users, uid)
		return err
	})
	flags.DurationVar(&c.idle, "idle", 30*time.Second, "end after a `time` without connections")
	return c, program.Parse(flags, args, stdout, stderr)
}

// group returns the number of a group. A group that is not there is a mistake,
// and must not be one that comes later by another's hand.
func group(s string) (uint32, error) {
	if gid, err := number(s); err == nil {
		return gid, nil
	}
	g, err := user.LookupGroup(s)
	if err != nil {
		return 0, err
	}
	return number(g.Gid)
}

func number(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

func run(args []string, stdout, stderr io.Writer) int {
	c, err := parse(args, stdout, stderr)
	if err != nil {
		return program.ExitCode(err)
	}
	return program.Run("joulemux-energyd", stderr, func(ctx context.Context) error { return serve(ctx, c) })
}

// serve answers on the socket that we were started with.
func serve(ctx context.Context, c *command) error {
	socket, err := systemd.Listener(systemd.Energy, "joulemux-energyd.socket")
	if err != nil {
		return err
	}
	var readers []energyd.Reader
	for _, s := range sysfs.Sensors(energyd.Whitelist(os.DirFS(c.sys))) {
		readers = append(readers, s)
	}
	log := slog.New(systemd.NewLogHandler(&c.level))
	log.DebugContext(ctx, "started", "domains", len(readers), "users", c.access.Users, "groups", c.access.Groups)
	server := energyd.Server{Readers: readers, Access: c.access, Idle: c.idle, Log: log}
	server.Serve(ctx, socket)
	return nil
}
