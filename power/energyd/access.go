package energyd

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Access says who may ask, beside root.
//
// On a desktop that is a group, which the one who owns the machine puts users
// into: who sits in front of it would have to be asked of logind, over a bus
// that the helper does not need otherwise. The socket's own group and mode say
// the same. They are checked by the kernel when somebody connects, and can be
// changed by a slip of the hand.
type Access struct {
	Users  []uint32
	Groups []uint32
}

// peer is who connected, with all groups.
type peer struct {
	uid, gid uint32
	groups   []uint32
}

func (a Access) admits(p peer) bool {
	return p.uid == 0 || slices.Contains(a.Users, p.uid) || slices.Contains(a.Groups, p.gid) ||
		slices.ContainsFunc(p.groups, func(g uint32) bool { return slices.Contains(a.Groups, g) })
}

// peerOf asks the kernel who connected, and with which rights. It keeps that
// as it was then (SO_PEERCRED and SO_PEERGROUPS, unix(7)), so that no user
// database is needed, which homes and networks have other kinds of.
func peerOf(conn net.Conn) (peer, error) {
	own, ok := conn.(*net.UnixConn)
	if !ok {
		return peer{}, errors.New("nobody knows who asks")
	}
	raw, err := own.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var p peer
	if e := raw.Control(func(fd uintptr) { p, err = peerAt(int(fd)) }); e != nil {
		return peer{}, e
	}
	if err != nil {
		return peer{}, fmt.Errorf("find out who asks: %w", err)
	}
	return p, nil
}

func peerAt(fd int) (peer, error) {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return peer{}, err
	}
	groups, err := groupsAt(fd)
	return peer{c.Uid, c.Gid, groups}, err
}

// groupsAt is the one option that package unix has no function for.
func groupsAt(fd int) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups)) * uint32(unsafe.Sizeof(groups[0]))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(unsafe.SliceData(groups))), uintptr(unsafe.Pointer(&size)), 0)
		n := int(size) / int(unsafe.Sizeof(groups[0]))
		switch {
		case errno == 0:
			return groups[:n], nil
		case errno != unix.ERANGE || n <= len(groups):
			return nil, errno
		}
		groups = make([]uint32, n)
	}
}
