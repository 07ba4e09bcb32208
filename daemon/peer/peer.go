// Package peer finds out who is at the other end of a socket on this machine:
// the user behind a TCP connection, and the processes and devices behind a
// server.
//
// It only reads /proc. What to make of the answer, be it a refusal or a device
// class, is the caller's.
package peer

import (
	"net/netip"
	"strconv"

	"github.com/prometheus/procfs"
)

// Table is the processes and sockets of this machine.
type Table struct{ fs procfs.FS }

// Open returns the table that is mounted at path, usually "/proc".
func Open(path string) (Table, error) {
	fs, err := procfs.NewFS(path)
	return Table{fs}, err
}

// UID returns the user who opened the socket at local that is connected to
// remote. It is not known if the socket is closed already.
func (t Table) UID(local, remote netip.AddrPort) (uid int, known bool) {
	for _, s := range t.sockets() {
		if s.local == unmap(local) && s.remote == unmap(remote) && s.uid <= maxUID {
			return int(s.uid), true
		}
	}
	return 0, false
}

// maxUID is the largest uid of the kernel.
const maxUID = 1<<32 - 2

// socket is a TCP socket as the kernel lists it.
type socket struct {
	local, remote netip.AddrPort
	state         uint64
	uid, inode    uint64
}

// listening is TCP_LISTEN of the kernel's tcp_states.h.
const listening = 10

// sockets lists all TCP sockets. An IPv4 client may well use an IPv6 socket,
// so both tables count.
func (t Table) sockets() []socket {
	v4, _ := t.fs.NetTCP()  //nolint:staticcheck // Netlink's sock_diag, which is recommended instead, has no parser in any kept library.
	v6, _ := t.fs.NetTCP6() //nolint:staticcheck // As above.
	list := make([]socket, 0, len(v4)+len(v6))
	for _, table := range []procfs.NetTCP{v4, v6} {
		for _, l := range table {
			local, _ := netip.AddrFromSlice(l.LocalAddr)
			remote, _ := netip.AddrFromSlice(l.RemAddr)
			list = append(list, socket{
				local:  netip.AddrPortFrom(local.Unmap(), uint16(l.LocalPort)),
				remote: netip.AddrPortFrom(remote.Unmap(), uint16(l.RemPort)),
				state:  l.St, uid: l.UID, inode: l.Inode,
			})
		}
	}
	return list
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Files returns what is held open by the processes that listen on a TCP port of
// this machine, and by their descendants, as far as we may see it: paths such
// as /dev/nvidia0.
func (t Table) Files(port uint16) []string {
	listeners := make(map[string]bool)
	for _, s := range t.sockets() {
		if s.state == listening && s.local.Port() == port {
			listeners["socket:["+strconv.FormatUint(s.inode, 10)+"]"] = true
		}
	}
	if len(listeners) == 0 {
		return nil
	}
	var files []string
	for _, p := range t.family(listeners) {
		files = append(files, p.files...)
	}
	return files
}

// process is what matters of one.
type process struct {
	parent int
	files  []string
	server bool
}

// family returns the processes that hold one of the listeners, and their
// descendants: Ollama's server leaves the devices to its runners.
func (t Table) family(listeners map[string]bool) []process {
	all := make(map[int]process)
	procs, err := t.fs.AllProcs()
	if err != nil {
		return nil
	}
	for _, p := range procs {
		files, err := p.FileDescriptorTargets()
		if err != nil {
			continue // somebody else's, or gone
		}
		stat, err := p.Stat()
		if err != nil {
			continue
		}
		one := process{parent: stat.PPID, files: files}
		for _, f := range files {
			one.server = one.server || listeners[f]
		}
		all[p.PID] = one
	}
	var members []process
	for pid, p := range all {
		if descends(all, pid) {
			members = append(members, p)
		}
	}
	return members
}

// descends reports whether a process or one above it is a server.
func descends(all map[int]process, pid int) bool {
	for range len(all) {
		p, ok := all[pid]
		if !ok {
			return false
		}
		if p.server {
			return true
		}
		pid = p.parent
	}
	return false
}
