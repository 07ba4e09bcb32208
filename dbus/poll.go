package dbus

import (
	"errors"
	"os"
	"syscall"
)

// gone are the events that tell of a reader who has closed his end. Epoll
// reports the first two unasked.
const gone = syscall.EPOLLERR | syscall.EPOLLHUP | syscall.EPOLLRDHUP

// openPoll makes the epoll descriptor, which is interested in the reader's end
// alone.
func (o *outlet) openPoll() error {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	// Go's poller takes in what is non-blocking. For an epoll descriptor it
	// makes no other difference.
	if err := syscall.SetNonblock(fd, true); err != nil {
		_ = syscall.Close(fd)
		return os.NewSyscallError("fcntl", err)
	}
	o.poll = os.NewFile(uintptr(fd), "epoll")
	if err := o.interest(syscall.EPOLL_CTL_ADD, 0); err != nil {
		_ = o.poll.Close()
		return err
	}
	return nil
}

// unread reports whether the reader is gone already.
func (o *outlet) unread() (gone bool) {
	raw, err := o.poll.SyscallConn()
	if err == nil {
		err = raw.Control(func(poll uintptr) { gone = o.drain(int(poll)) })
	}
	return gone || err != nil
}

// interest says of which events, beside those of a reader who is gone, we want
// to be told.
func (o *outlet) interest(operation int, events uint32) error {
	raw, err := o.poll.SyscallConn()
	if err != nil {
		return err
	}
	e := syscall.EpollEvent{Events: syscall.EPOLLRDHUP | events, Fd: int32(o.fd)}
	var failed error
	err = raw.Control(func(poll uintptr) { failed = syscall.EpollCtl(int(poll), operation, o.fd, &e) })
	return errors.Join(err, os.NewSyscallError("epoll_ctl", failed))
}

// watch waits for events until the reader is gone or the outlet is closed.
func (o *outlet) watch(onHangUp func()) {
	defer close(o.watched)
	raw, err := o.poll.SyscallConn()
	if err != nil {
		return
	}
	var hungUp bool
	err = raw.Read(func(poll uintptr) (done bool) {
		hungUp = o.drain(int(poll))
		return hungUp
	})
	if hungUp && err == nil {
		close(o.hungUp)
		onHangUp()
	}
}

// drain takes all events that there are, and reports whether the reader is
// gone. It must leave none: Go's poller tells of new ones alone.
func (o *outlet) drain(poll int) (hungUp bool) {
	events := make([]syscall.EpollEvent, 1)
	for {
		n, err := syscall.EpollWait(poll, events, 0)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil || n == 0:
			return false
		case events[0].Events&gone != 0:
			return true
		default:
			o.hasRoom(poll)
		}
	}
}

// hasRoom tells who writes that the reader has made room. He will ask again
// for the next time.
func (o *outlet) hasRoom(poll int) {
	e := syscall.EpollEvent{Events: syscall.EPOLLRDHUP, Fd: int32(o.fd)}
	_ = syscall.EpollCtl(poll, syscall.EPOLL_CTL_MOD, o.fd, &e)
	select {
	case o.writable <- struct{}{}:
	default:
	}
}
