package peer

import (
	"os"
	"strconv"

	"github.com/prometheus/procfs"
)

// Group returns the control group of the processes that listen on a TCP port of
// this machine, as in "/system.slice/ollama.service", or "" if it cannot be told.
//
// Which process of another user listens is not for us to see. A user who runs
// nothing but that server, as Ollama's packages make one, tells as well.
func (t Table) Group(port uint16) string {
	listeners, foreign := make(map[string]bool), -1
	for _, s := range t.sockets() {
		if s.state == listening && s.local.Port() == port {
			listeners["socket:["+strconv.FormatUint(s.inode, 10)+"]"] = true
			if int(s.uid) != os.Getuid() {
				foreign = int(s.uid)
			}
		}
	}
	procs, err := t.fs.AllProcs()
	if err != nil || len(listeners) == 0 {
		return ""
	}
	common := ""
	for _, p := range procs {
		if listens(p, listeners) {
			return group(p)
		}
		if foreign <= 0 || !runsAs(p, uint64(foreign)) { // root runs everything
			continue
		}
		switch g := group(p); common {
		case "", g:
			common = g
		default:
			return "" // a user of many things
		}
	}
	return common
}

// listens reports whether a process of ours holds one of the listeners.
func listens(p procfs.Proc, listeners map[string]bool) bool {
	files, err := p.FileDescriptorTargets()
	if err != nil {
		return false
	}
	for _, f := range files {
		if listeners[f] {
			return true
		}
	}
	return false
}

func runsAs(p procfs.Proc, uid uint64) bool {
	status, err := p.NewStatus()
	return err == nil && status.UIDs[1] == uid // the effective one
}

// group returns the group of the unified hierarchy that a process is in. The
// root is not one of a server's own.
func group(p procfs.Proc) string {
	groups, err := p.Cgroups()
	if err != nil {
		return ""
	}
	for _, g := range groups {
		if g.HierarchyID == 0 && g.Path != "/" {
			return g.Path
		}
	}
	return ""
}
