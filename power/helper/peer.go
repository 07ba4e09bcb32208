package helper

import (
	"errors"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is who connected, with all groups.
type Peer struct {
	UID, GID uint32
	Groups   []uint32
}

// PeerOf asks the kernel who connected, and with which rights. It keeps that
// as it was then (SO_PEERCRED and SO_PEERGROUPS, unix(7)), so that no user
// database is needed, which homes and networks have other kinds of.
func PeerOf(conn net.Conn) (Peer, error) {
	own, ok := conn.(*net.UnixConn)
	if !ok {
		return Peer{}, errors.New("nobody knows who asks")
	}
	raw, err := own.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var p Peer
	if e := raw.Control(func(fd uintptr) { p, err = peerAt(int(fd)) }); e != nil {
		return Peer{}, e
	}
	if err != nil {
		return Peer{}, fmt.Errorf("find out who asks: %w", err)
	}
	return p, nil
}

func peerAt(fd int) (Peer, error) {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	groups, err := groupsAt(fd)
	return Peer{c.Uid, c.Gid, groups}, err
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
