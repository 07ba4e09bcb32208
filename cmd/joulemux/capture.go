package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/joulemux/joulemux/power/sysfs"
)

func captureCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "capture",
		Short: "Write what this machine's sensors say, for a bug report",
		Long: `Write what joulemux finds to read about power on this machine, as a txtar
archive to go into a bug report:

    joulemux capture >machine.txtar

It has the files that the daemon may look at and what they say now: of the
batteries how full they are, of the processor its counters of energy and heat,
of GPUs and NPUs whether they sleep, and what they draw if they do not. What
you may not read is there by its name and mode. It needs no daemon.

Nothing else is read, and so it has no serial numbers, makers of batteries,
hardware addresses, and no names of you or of your machine. Supplies with a
name of their own, as mice and headsets have, become supply-1 and so on. The
first line has the machine's product name and its kernel. Have a look at it
before you send it.

No device is woken up. Run as root it has what only root may read as well.`,
		Args: cobra.NoArgs,
		RunE: runs(func(context.Context, []string) error {
			text, err := capture(os.DirFS("/sys"), os.DirFS("/proc"), time.Now())
			if err != nil {
				return err
			}
			if a.json {
				return a.record(map[string]string{"capture": text})
			}
			_, err = fmt.Fprint(a.out, text)
			return err
		}),
	}
}

// capture returns an archive of what the readers of power/sysfs read. It calls
// them and writes down what they open, so it leaves out nothing that they need
// and has nothing that they do not; and it wakes what they wake, which is
// nothing.
func capture(sys, proc fs.FS, now time.Time) (string, error) {
	if _, err := fs.ReadDir(sys, "class"); err != nil {
		return "", fmt.Errorf("nothing to capture: %w", err)
	}
	seenSys, seenProc := newRecorder(sys), newRecorder(proc)
	lookAtAll(seenSys, seenProc)

	var b strings.Builder
	fmt.Fprintf(&b, "%s, Linux %s, recorded by joulemux capture on %s.\n\n",
		firstLine(sys, "class/dmi/id/product_name", "unnamed machine"),
		firstLine(proc, "sys/kernel/osrelease", "unknown"), now.Format(time.DateOnly))
	seenSys.write(&b, "sys")
	seenProc.write(&b, "proc")
	return b.String(), nil
}

// lookAtAll calls every reader. What they say is of no interest here.
func lookAtAll(sys, proc fs.FS) {
	for _, s := range sysfs.Sensors(sys) {
		_, _ = s.Read(context.Background())
	}
	sysfs.Unreadable(sys)
	sysfs.Supply(sys)
	sysfs.FullCharge(sys)
	sysfs.Thermal(sys)
	sysfs.NPUOccupancy(sys)
	_, _ = sysfs.Devices(sys)
	_, _ = sysfs.GPUs(sys)
	nodes, _ := fs.Glob(sys, "class/drm/renderD*")
	for _, node := range nodes {
		sysfs.RenderNode(sys, path.Base(node))
	}
	_, _ = sysfs.CPUBusy(proc)
}

func firstLine(tree fs.FS, name, otherwise string) string {
	text, _ := fs.ReadFile(tree, name)
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if line == "" {
		return otherwise
	}
	return plain(line)
}
